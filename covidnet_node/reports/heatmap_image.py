"""The heatmap: an RGB Secondary Capture beside the original, for any viewer.

Where the profile asks for it, a second instance of the same series, size and numbering shows the
same picture without color and contour, so that a reader can switch the overlay off.

Nothing that would make a viewer rescale the colors or measure on the resized picture is
carried over: no window, no rescale, no pixel spacing.
"""

import re

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from covidnet_node.case import Outcome, ResultKind
from covidnet_node.intended_use import NOTICE, PRODUCT
from covidnet_node.reports import codes, uids
from covidnet_node.reports.identity import carry, text
from covidnet_node.reports.narrative import ascii_text
from covidnet_node.reports.order import Order
from covidnet_node.reports.pixel_encoding import set_pixels
from covidnet_node.reports.series import Series
from covidnet_node.reports.source_image import carry_loss, name_body_part, refer_to_source

_FROM_SOURCE = (
    "PatientOrientation",
    "RequestAttributesSequence",
)
"""True of the picture as of the original, whose geometry and aspect it keeps."""


_DRAWN = {
    ResultKind.HEATMAP: (
        "Original through its display pipeline with Grad-CAM of the ensemble blended over it, "
        "lung contour, and a text strip added at the top"
    ),
    ResultKind.PLAIN: (
        "Original through its display pipeline, nothing drawn on it, and a text strip added at "
        "the top: the picture under the heatmap beside it"
    ),
}


def build_picture(
    order: Order, kind: ResultKind, series: Series, picture: NDArray[np.uint8]
) -> Dataset:
    """Build heatmap or plain picture with an empty identity (PS3.3 A.8.1).

    `picture` is (rows, columns, 3) RGB.
    """
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = uids.instance_uid(order, kind)
    image.Modality = "OT"
    image.SeriesInstanceUID = series.uid
    image.SeriesNumber = series.number
    image.SeriesDescription = series.description
    image.InstanceNumber = uids.instance_number(order, kind)
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.ImageComments = ascii_text(_comment(order, kind))
    for keyword in _FROM_SOURCE:
        carry(order.source, image, keyword)
    carry_loss(order.source, image)
    _complete(order.source, image)
    _say_what_is_burned_in(order.source, image)
    _derive(image, kind)
    set_pixels(image, picture, order.profile.heatmap_syntax)
    return image


def _comment(order: Order, kind: ResultKind) -> str:
    what = "heatmap" if kind is ResultKind.HEATMAP else "picture without heatmap"
    marked = order.analysis.outcome is Outcome.INCONCLUSIVE
    return f"{PRODUCT} AI {what}. {'INCONCLUSIVE: no conclusion. ' if marked else ''}{NOTICE}."


def _complete(source: Dataset, image: Dataset) -> None:
    # Type 2C in General Image: the orientation cannot be told otherwise, so it is present.
    if "PatientOrientation" not in image:
        image.PatientOrientation = None
    name_body_part(source, image)
    aspect = re.fullmatch(r"([1-9]\d*) *\\ *([1-9]\d*)", text(source, "PixelAspectRatio"))
    if aspect is not None and aspect[1] != aspect[2]:
        image.PixelAspectRatio = [int(aspect[1]), int(aspect[2])]


def _say_what_is_burned_in(source: Dataset, image: Dataset) -> None:
    """Our own text identifies nobody; the source's own pixels may (0028,0301)."""
    stated = text(source, "BurnedInAnnotation")
    if stated in {"YES", "NO"}:
        image.BurnedInAnnotation = stated
    image.RecognizableVisualFeatures = "NO"


def _derive(image: Dataset, kind: ResultKind) -> None:
    image.DerivationDescription = _DRAWN[kind]
    if kind is ResultKind.HEATMAP:
        image.DerivationCodeSequence = [codes.plain(codes.GRAD_CAM)]
    refer_to_source(image)
