"""The heatmap: an RGB Secondary Capture beside the original, for any viewer.

Nothing that would make a viewer rescale the colors or measure on the resized picture is
carried over: no window, no rescale, no pixel spacing.
"""

import re

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, SecondaryCaptureImageStorage

from covidnet_node.case import Outcome, ResultKind
from covidnet_node.intended_use import NOTICE, PRODUCT
from covidnet_node.reports import codes, uids
from covidnet_node.reports.identity import STAND_INS, carry, text
from covidnet_node.reports.narrative import ascii_text
from covidnet_node.reports.order import Order
from covidnet_node.reports.series import Series

_FROM_SOURCE = (
    "PatientOrientation",
    "BodyPartExamined",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "RequestAttributesSequence",
)
"""True of the picture as of the original, whose geometry and aspect it keeps."""


_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})


def build_heatmap(order: Order, series: Series, picture: NDArray[np.uint8]) -> Dataset:
    """Build the image with an empty identity (PS3.3 A.8.1); `picture` (rows, columns, 3) RGB."""
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = uids.instance_uid(order, ResultKind.HEATMAP)
    image.Modality = "OT"
    image.SeriesInstanceUID = series.uid
    image.SeriesNumber = series.number
    image.SeriesDescription = series.description
    image.InstanceNumber = uids.instance_number(order, ResultKind.HEATMAP)
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.ImageComments = ascii_text(_comment(order))
    for keyword in _FROM_SOURCE:
        carry(order.source, image, keyword)
    _admit_lossy_syntax(order.source, image)
    _complete(order.source, image)
    _say_what_is_burned_in(order.source, image)
    _derive(image)
    _set_pixels(image, picture)
    return image


def _comment(order: Order) -> str:
    marked = order.analysis.outcome is Outcome.INCONCLUSIVE
    return f"{PRODUCT} AI heatmap. {'INCONCLUSIVE: no conclusion. ' if marked else ''}{NOTICE}."


def _admit_lossy_syntax(source: Dataset, image: Dataset) -> None:
    """Say "lossy" where the source came as lossy JPEG and forgot to (PS3.3 C.7.6.1.1.5)."""
    meta: Dataset = getattr(source, "file_meta", Dataset())
    if text(meta, "TransferSyntaxUID") in _LOSSY and text(image, "LossyImageCompression") != "01":
        image.LossyImageCompression = "01"
        image.LossyImageCompressionMethod = "ISO_10918_1"


def _complete(source: Dataset, image: Dataset) -> None:
    # Type 2C in General Image: the orientation cannot be told otherwise, so it is present.
    if "PatientOrientation" not in image:
        image.PatientOrientation = None
    # What was analyzed is a chest: the rules admitted it and lungs were found. Without a body
    # part the standard asks for a laterality, which a chest does not have.
    if not text(image, "BodyPartExamined"):
        image.BodyPartExamined = "CHEST"
    side = text(source, "Laterality")
    if side in {"L", "R"}:
        image.Laterality = side
    elif text(image, "BodyPartExamined") != "CHEST":
        image.Laterality = None
    aspect = re.fullmatch(r"([1-9]\d*) *\\ *([1-9]\d*)", text(source, "PixelAspectRatio"))
    if aspect is not None and aspect[1] != aspect[2]:
        image.PixelAspectRatio = [int(aspect[1]), int(aspect[2])]


def _say_what_is_burned_in(source: Dataset, image: Dataset) -> None:
    """Our own text identifies nobody; the source's own pixels may (0028,0301)."""
    stated = text(source, "BurnedInAnnotation")
    if stated in {"YES", "NO"}:
        image.BurnedInAnnotation = stated
    image.RecognizableVisualFeatures = "NO"


def _derive(image: Dataset) -> None:
    image.DerivationDescription = (
        "Original through its display pipeline with Grad-CAM of the ensemble blended over it, "
        "lung contour, and a text strip added at the top"
    )
    image.DerivationCodeSequence = [_coded(codes.GRAD_CAM)]
    origin = Dataset()
    origin.ReferencedSOPClassUID = STAND_INS["SOPClassUID"]
    origin.ReferencedSOPInstanceUID = STAND_INS["SOPInstanceUID"]
    purposeful = Dataset()
    purposeful.update(origin)
    purposeful.PurposeOfReferenceCodeSequence = [_coded(codes.SOURCE_IMAGE)]
    image.SourceImageSequence = [purposeful]
    series = Dataset()
    series.SeriesInstanceUID = STAND_INS["SeriesInstanceUID"]
    series.ReferencedInstanceSequence = [origin]
    image.ReferencedSeriesSequence = [series]


def _coded(concept: Dataset) -> Dataset:
    plain = Dataset()
    plain.update(concept)
    return plain


def _set_pixels(image: Dataset, picture: NDArray[np.uint8]) -> None:
    rows, columns, samples = picture.shape
    image.SamplesPerPixel = samples
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = rows, columns
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelRepresentation = 0
    data = np.ascontiguousarray(picture).tobytes()
    image.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
