"""The source as picture objects may know it: size, kind and geometry, never the identity.

highdicom refuses what real sources contain and decodes what must keep its bytes, so it is shown
a stand-in; `identity.transplant` puts the truth in afterwards. A geometry that is not valid is
no geometry: nothing is guessed.
"""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit
from pydicom.valuerep import DSfloat

from covidnet_node.reports import codes
from covidnet_node.reports.identity import STAND_INS, carry, count, text

_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
          "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName")  # fmt: skip
_LOSSY_JPEG = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})
_SQUARE = 1e-3
"""How far direction cosines may be from unit length and right angle."""
_FROM_CLOCK = ("ContributingEquipmentSequence", "SeriesDate", "SeriesTime")


def stand_in(source: Dataset) -> Dataset:
    """Reduce the source to what highdicom may see of it."""
    made = Dataset()
    for keyword, uid in STAND_INS.items():
        setattr(made, keyword, uid)
    for keyword in _EMPTY:
        setattr(made, keyword, None)
    made.Modality = "DX"
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    for keyword in ("Rows", "Columns"):
        setattr(made, keyword, count(source, keyword))
    return made


def has_shape(source: Dataset, shape: tuple[int, ...]) -> bool:
    """Whether the source has these (rows, columns)."""
    return shape == (count(source, "Rows"), count(source, "Columns"))


def is_gray(source: Dataset) -> bool:
    """Whether the source is a grayscale image."""
    gray = text(source, "PhotometricInterpretation") in {"MONOCHROME1", "MONOCHROME2"}
    return gray and (count(source, "SamplesPerPixel") or 1) == 1


def numbers(source: Dataset, keyword: str, how_many: int) -> tuple[float, ...] | None:
    """Values of a DS element, None unless there are `how_many` and each is a number."""
    words = text(source, keyword).split("\\")
    if len(words) != how_many:
        return None
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        return None
    return values if all(abs(value) < 1e9 for value in values) else None


def spacing(source: Dataset) -> tuple[float, float] | None:
    """Pixel Spacing in mm in the patient, between rows and columns; None if not told.

    Imager Pixel Spacing is not taken in its place: it is measured at the detector, where the
    chest is magnified (PS3.3 10.7.1.3).
    """
    told = numbers(source, "PixelSpacing", 2)
    return (told[0], told[1]) if told is not None and min(told) > 0 else None


def place(source: Dataset, made: Dataset) -> bool:
    """Tell where in the patient the image lies (PS3.3 C.7.6.2, C.7.4.1), if the source does.

    True where frame of reference, position, orientation and spacing are all there and valid.
    """
    frame = text(source, "FrameOfReferenceUID")
    at = numbers(source, "ImagePositionPatient", 3)
    along = numbers(source, "ImageOrientationPatient", 6)
    if not UID(frame).is_valid or at is None or along is None or spacing(source) is None:
        return False
    row, column = np.array(along[:3]), np.array(along[3:])
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > _SQUARE:
        return False
    made.FrameOfReferenceUID = frame
    # A projection has none, but highdicom asks.
    made.SliceThickness = None
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        values = text(source, keyword).split("\\")
        setattr(made, keyword, [DSfloat(float(value), auto_format=True) for value in values])
    return True


def carry_loss(source: Dataset, image: Dataset) -> None:
    """Carry the record of lossy compression over (PS3.3 C.7.6.1.1.5).

    Says "lossy" also where the source came as lossy JPEG and forgot to say so.
    """
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio",
                    "LossyImageCompressionMethod"):  # fmt: skip
        carry(source, image, keyword)
    meta: Dataset = getattr(source, "file_meta", Dataset())
    if text(meta, "TransferSyntaxUID") in _LOSSY_JPEG and (
        text(image, "LossyImageCompression") != "01"
    ):
        image.LossyImageCompression = "01"
        image.LossyImageCompressionMethod = "ISO_10918_1"


def name_body_part(source: Dataset, made: Dataset) -> None:
    """Set body part and side as the source has them (PS3.3 C.7.3.1).

    What was analyzed is a chest: the rules admitted it and lungs were found. Without a body part
    the standard asks for a laterality, which a chest does not have.
    """
    carry(source, made, "BodyPartExamined")
    if not text(made, "BodyPartExamined"):
        made.BodyPartExamined = "CHEST"
    side = text(source, "Laterality")
    if side in {"L", "R"}:
        made.Laterality = side
    elif text(made, "BodyPartExamined") != "CHEST":
        made.Laterality = None


def plain_copy(made: Dataset) -> Dataset:
    """Take what highdicom made without its class, its file meta and what it took from a clock."""
    copy = Dataset()
    copy.update(made)
    for keyword in _FROM_CLOCK:
        if keyword in copy:
            del copy[keyword]
    return copy


def refer_to_source(image: Dataset) -> None:
    """Name the source image as the one that a secondary capture was made from."""
    origin = Dataset()
    origin.ReferencedSOPClassUID = STAND_INS["SOPClassUID"]
    origin.ReferencedSOPInstanceUID = STAND_INS["SOPInstanceUID"]
    purposeful = Dataset()
    purposeful.update(origin)
    purposeful.PurposeOfReferenceCodeSequence = [codes.plain(codes.SOURCE_IMAGE)]
    image.SourceImageSequence = [purposeful]
    series = Dataset()
    series.SeriesInstanceUID = STAND_INS["SeriesInstanceUID"]
    series.ReferencedInstanceSequence = [origin]
    image.ReferencedSeriesSequence = [series]
