"""The raw heatmap as numbers: a Parametric Map for programs, not for eyes.

The IOD demands a frame of reference, a plane in the patient and a pixel spacing (PS3.3 A.75).
Plain CR and DX have none; then there is no map, because a geometry would have to be invented.
"""

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from covidnet_node.case import Algorithm, Explanation, ResultKind
from covidnet_node.intended_use import MANUFACTURER, NOTICE, PRODUCT
from covidnet_node.reports import codes, uids
from covidnet_node.reports.identity import text
from covidnet_node.reports.narrative import ascii_text
from covidnet_node.reports.order import Order
from covidnet_node.reports.series import Series
from covidnet_node.reports.source_image import (
    carry_loss,
    has_shape,
    name_body_part,
    place,
    plain_copy,
    stand_in,
)


def build_evidence_map(order: Order, series: Series) -> Dataset | None:
    """Build the map with an empty identity, 32-bit floats of 0 to 1.

    None where there is no map or the source does not say where in the patient it lies.
    """
    explained, algorithm = order.analysis.explanation, order.algorithm
    if explained is None or algorithm is None or not (explained.heatmap > 0).any():
        return None
    image = stand_in(order.source)
    if not place(order.source, image) or not has_shape(order.source, explained.heatmap.shape):
        return None
    made = plain_copy(_build(order, series, algorithm, explained, image))
    organization = uids.tracking_uid(order, "dimensions of the evidence map")
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in made.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    # highdicom says 1 mm; there are no slices.
    del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    name_body_part(order.source, made)
    carry_loss(order.source, made)
    if text(made, "LossyImageCompression") not in {"00", "01"}:
        made.LossyImageCompression = "00"
    return made


def _build(
    order: Order,
    series: Series,
    algorithm: Algorithm,
    explained: Explanation,
    image: Dataset,
) -> ParametricMap:
    values = np.nan_to_num(explained.heatmap).clip(0, 1).astype(np.float32)
    return ParametricMap(
        source_images=[image],
        pixel_array=values[None],
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=uids.instance_uid(order, ResultKind.EVIDENCE_MAP),
        instance_number=uids.instance_number(order, ResultKind.EVIDENCE_MAP),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PRODUCT,
        software_versions=ascii_text(algorithm.version),
        device_serial_number=uids.algorithm_digest(algorithm)[:16],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="EVIDENCE",
                lut_explanation=f"Where the networks looked for {explained.target}",
                unit=codes.NO_UNITS,
                value_range=(0.0, 1.0),
                slope=1.0,
                intercept=0.0,
                quantity_definition=codes.GRAD_CAM,
            )
        ],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="EVIDENCE",
        content_description=f"AI evidence. {NOTICE}",
        series_description=series.description,
    )
