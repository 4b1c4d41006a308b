"""The lungs as a Segmentation: a mask that other programs can measure.

The mask lies on the pixels of the image it names, so it needs no place in the patient; the
spacing is told where the source tells it. One segment for each lung where the image says which
side is which, one for both where it does not: the sides are read from Patient Orientation, never
guessed from the anatomy.
"""

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage

from covidnet_node.case import Algorithm, ResultKind
from covidnet_node.intended_use import MANUFACTURER, NOTICE, PRODUCT
from covidnet_node.reports import codes, uids
from covidnet_node.reports.identity import carry, text
from covidnet_node.reports.narrative import ascii_text
from covidnet_node.reports.order import Order
from covidnet_node.reports.series import Series
from covidnet_node.reports.source_image import (
    carry_loss,
    has_shape,
    name_body_part,
    plain_copy,
    spacing,
    stand_in,
)

Mask = NDArray[np.bool_]

_SECOND_LUNG = 0.1
"""Of the larger one's area, from which a piece of the mask is the other lung."""
_SIDES = {
    "Right": CodedConcept.from_code(standard.SCT.Right),
    "Left": CodedConcept.from_code(standard.SCT.Left),
}


def build_segmentation(order: Order, series: Series) -> Dataset | None:
    """Build the segmentation with an empty identity (PS3.3 A.51), one bit per pixel.

    None where no lungs were found.
    """
    lungs, algorithm = order.analysis.lungs, order.algorithm
    if lungs is None or algorithm is None or not has_shape(order.source, lungs.shape):
        return None
    if not lungs.any() or lungs.all():
        return None
    segments = _segments(lungs, text(order.source, "PatientOrientation"))
    made = plain_copy(_build(order, series, algorithm, segments))
    _complete(made, order)
    return made


def _segments(lungs: Mask, orientation: str) -> dict[str, Mask]:
    """Masks by side, "Right" and "Left" of the patient; "" where the side is not told."""
    halves = _halves(lungs, orientation)
    if halves is None:
        return {"": lungs}
    return halves


def _halves(lungs: Mask, orientation: str) -> dict[str, Mask] | None:
    """Split by Patient Orientation (PS3.3 C.7.6.1.1.1), which names where rows and columns go."""
    labels, found = ndimage.label(lungs)
    areas = ndimage.sum_labels(lungs, labels, np.arange(1, found + 1))
    largest = np.argsort(-areas, kind="stable")[:2]
    if len(largest) < 2 or areas[largest[1]] < _SECOND_LUNG * areas[largest[0]]:
        return None
    directions = [word.strip()[:1] for word in orientation.split("\\")]
    across = [axis for axis, word in enumerate(directions) if word in {"L", "R"}]
    if len(directions) != 2 or len(across) != 1:
        return None
    # The first word tells where a row leads, so it speaks of columns.
    axis = 1 - across[0]
    middles = ndimage.center_of_mass(lungs, labels, np.arange(1, found + 1))
    places = np.array([middle[axis] for middle in middles])
    one, two = (np.array(middles[index]) for index in largest)
    if abs(one - two)[axis] <= abs(one - two)[1 - axis]:
        # The lungs lie apart along the other axis: what the orientation says cannot be so.
        return None
    border = places[largest].mean()
    beyond = np.concatenate([[False], places >= border])[labels]
    towards, away = ("Left", "Right") if directions[across[0]] == "L" else ("Right", "Left")
    masks = {towards: lungs & beyond, away: lungs & ~beyond}
    return {side: masks[side] for side in _SIDES}


def _build(
    order: Order, series: Series, algorithm: Algorithm, segments: dict[str, Mask]
) -> Segmentation:
    image = stand_in(order.source)
    measured = spacing(order.source)
    return Segmentation(
        source_images=[image],
        pixel_array=np.stack(list(segments.values()), axis=-1)[None].astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, side, order, algorithm) for number, side in enumerate(segments, 1)
        ],
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=uids.instance_uid(order, ResultKind.SEGMENTATION),
        instance_number=uids.instance_number(order, ResultKind.SEGMENTATION),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PRODUCT,
        software_versions=ascii_text(algorithm.version),
        device_serial_number=uids.algorithm_digest(algorithm)[:16],
        content_label="LUNGS",
        content_description=f"AI lungs. {NOTICE}",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=None
        if measured is None
        else PixelMeasuresSequence(pixel_spacing=measured, slice_thickness=None),
        series_description=series.description,
    )


def _describe(number: int, side: str, order: Order, algorithm: Algorithm) -> SegmentDescription:
    words = f"{side} lung" if side else "Lung"
    # A code of its own: highdicom keeps what it is given, and a side would be written into it.
    kind = CodedConcept.from_dataset(codes.LUNG)
    if side:
        kind.SegmentedPropertyTypeModifierCodeSequence = [codes.plain(_SIDES[side])]
    return SegmentDescription(
        segment_number=number,
        segment_label=words,
        segmented_property_category=standard.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=ascii_text(algorithm.name),
            family=codes.ARTIFICIAL_INTELLIGENCE,
            version=ascii_text(algorithm.version),
        ),
        tracking_id=words,
        tracking_uid=uids.tracking_uid(order, f"segment {words}"),
    )


def _complete(made: Dataset, order: Order) -> None:
    """Set what highdicom leaves out, and replace what it drew at random."""
    organization = uids.tracking_uid(order, "dimensions of the segmentation")
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in made.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    # Type 2C in General Image: the orientation cannot be told otherwise, so it is present.
    carry(order.source, made, "PatientOrientation")
    if "PatientOrientation" not in made:
        made.PatientOrientation = None
    made["PixelData"].VR = "OB"
    name_body_part(order.source, made)
    if "Laterality" in made:  # which masks tell by segment (PS3.3 C.7.3.1)
        del made.Laterality
    carry_loss(order.source, made)
    if text(made, "LossyImageCompression") not in {"00", "01"}:
        made.LossyImageCompression = "00"
