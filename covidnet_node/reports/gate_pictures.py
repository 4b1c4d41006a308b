"""The gate's questions to pictures, presentation states, masks and maps.

Each object is read as a stranger would read it and held against the header of the image it
answers; nothing is taken from the code that built it.
"""

import struct
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from covidnet_node.reports.checks import missing, names
from covidnet_node.reports.identity import count, items, tag_of, text, undecoded, value_bytes
from covidnet_node.reports.page_image import DERIVATION
from covidnet_node.reports.pixel_encoding import stated_syntax

_PICTURE = ("ConversionType", "ImageType", "Rows", "Columns", "DerivationDescription")
_PICTURE_FORBIDDEN = (
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "PresentationLUTShape",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
)
_PICTURE_FORMAT = {
    "SamplesPerPixel": 3,
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
}
_COLORS = {
    ExplicitVRLittleEndian: "RGB",
    RLELossless: "RGB",
    JPEGLosslessSV1: "RGB",
    JPEGBaseline8Bit: "YBR_FULL_422",
}
"""Photometric Interpretation by transfer syntax."""
_STATE = ("ContentLabel", "PresentationCreationDate", "PresentationCreationTime",
          "DisplayedAreaSelectionSequence", "GraphicLayerSequence")  # fmt: skip
_FRAMES = ("ContentLabel", "ContentDate", "ContentTime", "ImageType", "NumberOfFrames",
           "LossyImageCompression", "DimensionIndexSequence", "SharedFunctionalGroupsSequence",
           "PerFrameFunctionalGroupsSequence")  # fmt: skip
_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RuntimeError,
               NotImplementedError, OSError, EOFError, struct.error)  # fmt: skip
"""What pydicom and its decoders raise on broken values and pixels."""


def look_at_picture(result: Dataset, source: Dataset) -> Iterator[str]:
    """Complain of what is wrong with a heatmap or a plain picture (PS3.3 A.8.1)."""
    yield from missing(result, _PICTURE)
    for keyword in _PICTURE_FORBIDDEN:
        if keyword in result:
            yield f"{keyword} must not be there"
    syntax = stated_syntax(result)
    if text(result, "PhotometricInterpretation") != _COLORS.get(syntax):
        yield "PhotometricInterpretation is not that of the transfer syntax"
    for keyword, value in _PICTURE_FORMAT.items():
        if count(result, keyword) != value:
            yield f"{keyword} is not {value}"
    if syntax == JPEGBaseline8Bit and not _tells_its_loss(result):
        yield "lossy compression is not recorded"
    if text(result, "DerivationDescription") != DERIVATION:
        yield from _room_for(result, source)
        yield from _same_kind(result, source)
    yield from _pixels(result)
    yield from _origin(result, source)


def look_at_contours(result: Dataset, source: Dataset) -> Iterator[str]:
    """Complain of what is wrong with a presentation state (PS3.3 A.33.1)."""
    yield from _uncompressed(result)
    yield from missing(result, _STATE)
    _, series_uid, _ = names(source)
    listed = [(text(series, "SeriesInstanceUID"), _named(item))
              for series in items(result, "ReferencedSeriesSequence")
              for item in items(series, "ReferencedImageSequence")]  # fmt: skip
    if listed != [(series_uid, _named_source(source))]:
        yield "ReferencedSeriesSequence does not name the source"
    rows, columns = count(source, "Rows") or 0, count(source, "Columns") or 0
    for area in items(result, "DisplayedAreaSelectionSequence"):
        corners = [_values(area, f"DisplayedArea{corner}HandCorner")
                   for corner in ("TopLeft", "BottomRight")]  # fmt: skip
        if corners != [[1, 1], [columns, rows]]:
            yield "the displayed area is not the whole image"
    layers = {text(layer, "GraphicLayer") for layer in items(result, "GraphicLayerSequence")}
    drawn = 0
    for annotation in items(result, "GraphicAnnotationSequence"):
        if text(annotation, "GraphicLayer") not in layers:
            yield "an annotation lies in a layer that is not declared"
        if [_named(item) for item in items(annotation, "ReferencedImageSequence")] != [
            _named_source(source)
        ]:
            yield "an annotation does not name the source"
        for line in items(annotation, "GraphicObjectSequence"):
            drawn += 1
            yield from _line(line, rows, columns)
    if not drawn:
        yield "nothing is drawn"
    yield from _same_display(result, source)


def look_at_segmentation(result: Dataset, source: Dataset) -> Iterator[str]:
    """Complain of what is wrong with a segmentation (PS3.3 A.51)."""
    yield from _uncompressed(result)
    yield from missing(result, _FRAMES)
    yield from _origin(result, source)
    yield from _same_size(result, source)
    segments = items(result, "SegmentSequence")
    for segment in segments:
        if text(segment, "SegmentAlgorithmType") != "AUTOMATIC":
            yield "a segment is not called automatic"
        yield from missing(segment, ("SegmentLabel", "SegmentAlgorithmName"))
    if text(result, "SegmentationType") != "BINARY" or count(result, "BitsAllocated") != 1:
        yield "the mask is not binary"
    frames = items(result, "PerFrameFunctionalGroupsSequence")
    if not segments or text(result, "NumberOfFrames") != str(len(frames)):
        yield "NumberOfFrames is not that of the frames"
    if len(frames) != len(segments):
        yield "not one frame for each segment"
    # What is the same for all frames, as of one, is shared.
    numbers = [count(item, "ReferencedSegmentNumber")
               for group in (*items(result, "SharedFunctionalGroupsSequence"), *frames)
               for item in items(group, "SegmentIdentificationSequence")]  # fmt: skip
    if numbers != [count(segment, "SegmentNumber") for segment in segments]:
        yield "a frame is not of its segment"
    yield from _derived(result, source)
    yield from _masks(result, source)


def look_at_evidence_map(result: Dataset, source: Dataset) -> Iterator[str]:
    """Complain of what is wrong with a parametric map (PS3.3 A.75)."""
    yield from _uncompressed(result)
    yield from missing(result, _FRAMES)
    yield from _origin(result, source)
    yield from _same_size(result, source)
    yield from _derived(result, source)
    if value_bytes(result, "FrameOfReferenceUID") != value_bytes(source, "FrameOfReferenceUID"):
        yield "FrameOfReferenceUID is not the source's"
    groups = (*items(result, "SharedFunctionalGroupsSequence"),
              *items(result, "PerFrameFunctionalGroupsSequence"))  # fmt: skip
    for macro, keyword in (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        found = [_values(item, keyword) for group in groups for item in items(group, macro)]
        if len(found) != 1 or not _equal(found[0], _values(source, keyword)):
            yield f"{keyword} is not the source's"
    mapped = [item for group in groups for item in items(group, "RealWorldValueMappingSequence")]
    if len(mapped) != 1:
        yield "the meaning of the values is not stated"
    data = undecoded(result, "FloatPixelData") or b""
    if count(result, "BitsAllocated") != 32 or len(data) != 4 * _area(result):
        yield "FloatPixelData has not the stated size"
        return
    values = floats(result)
    # Written so that what is not a number fails.
    if not (values.size and values.min() >= 0 and values.max() <= 1):
        yield "a value outside 0 to 1"
    elif values.min() == values.max():
        yield "FloatPixelData is constant"


def _same_kind(result: Dataset, source: Dataset) -> Iterator[str]:
    """What is true of a picture as of its original: sides, loss, names burned into the pixels."""
    if value_bytes(result, "PatientOrientation") != (
        value_bytes(source, "PatientOrientation") or b""
    ):
        yield "PatientOrientation is not the source's"
    for keyword, value in (("LossyImageCompression", "01"), ("BurnedInAnnotation", "YES")):
        if text(source, keyword) == value and text(result, keyword) != value:
            yield f"{keyword} is not the source's"


def _derived(result: Dataset, source: Dataset) -> Iterator[str]:
    """Frames name the image they were made from, and no other (PS3.3 C.7.6.16.2.6)."""
    groups = (*items(result, "SharedFunctionalGroupsSequence"),
              *items(result, "PerFrameFunctionalGroupsSequence"))  # fmt: skip
    origins = {_named(item) for group in groups
               for derived in items(group, "DerivationImageSequence")
               for item in items(derived, "SourceImageSequence")}  # fmt: skip
    if origins - {_named_source(source)}:
        yield "a frame was made from another image"


def _uncompressed(result: Dataset) -> Iterator[str]:
    if stated_syntax(result) != ExplicitVRLittleEndian:
        yield "the transfer syntax is not one for this object"


def _origin(result: Dataset, source: Dataset) -> Iterator[str]:
    """Both ways in which an image names the one it was made from (PS3.3 C.7.6.1, C.12.1)."""
    origins = [_named(item) for item in items(result, "SourceImageSequence")]
    if origins != [_named_source(source)]:
        yield "SourceImageSequence does not name the source"
    listed = [(text(series, "SeriesInstanceUID"), _named(item))
              for series in items(result, "ReferencedSeriesSequence")
              for item in items(series, "ReferencedInstanceSequence")]  # fmt: skip
    if listed != [(names(source)[1], _named_source(source))]:
        yield "ReferencedSeriesSequence does not name the source"


def _named(item: Dataset) -> tuple[str, str]:
    return text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID")


def _named_source(source: Dataset) -> tuple[str, str]:
    return text(source, "SOPClassUID"), text(source, "SOPInstanceUID")


def _same_size(result: Dataset, source: Dataset) -> Iterator[str]:
    for keyword in ("Rows", "Columns"):
        if count(result, keyword) is None or count(result, keyword) != count(source, keyword):
            yield f"{keyword} is not the source's"


def _room_for(result: Dataset, source: Dataset) -> Iterator[str]:
    """A picture keeps the source's pixels: its width, and its height under the strip of text."""
    rows, columns = count(source, "Rows"), count(source, "Columns")
    if columns is not None and count(result, "Columns") != columns:
        yield "the picture has not the width of the source"
    if rows is not None and (count(result, "Rows") or 0) < rows:
        yield "the picture is not as high as the source"


def _area(result: Dataset) -> int:
    return (count(result, "Rows") or 0) * (count(result, "Columns") or 0)


def _tells_its_loss(result: Dataset) -> bool:
    lists = [text(result, f"LossyImageCompression{what}").split("\\")
             for what in ("Ratio", "Method")]  # fmt: skip
    paired = len(lists[0]) == len(lists[1]) and all(lists[0]) and all(lists[1])
    return paired and text(result, "LossyImageCompression") == "01"


def _pixels(result: Dataset) -> Iterator[str]:
    """Pixels of the stated size that can be decoded and show something."""
    data = undecoded(result, "PixelData") or b""
    length = 3 * _area(result)
    if stated_syntax(result) == ExplicitVRLittleEndian:
        if not length or len(data) != length + length % 2:
            yield "PixelData has not the stated size"
        elif data[:length] == data[:1] * length:
            yield "PixelData is constant"
        return
    pixels = decoded(result)
    if pixels is None or pixels.size != length or not length:
        yield "PixelData cannot be decoded to the stated size"
    elif pixels.min() == pixels.max():
        yield "PixelData is constant"


def decoded(result: Dataset) -> NDArray[np.uint8] | None:
    """Samples of a picture, YCbCr where it is a JPEG; None if they cannot be decoded."""
    if stated_syntax(result) == ExplicitVRLittleEndian:
        data = undecoded(result, "PixelData") or b""
        return np.frombuffer(data[: 3 * _area(result)], np.uint8)
    plain = Dataset()
    for keyword in (*_PICTURE_FORMAT, "Rows", "Columns", "PhotometricInterpretation", "PixelData"):
        if keyword in result:
            plain[keyword] = result.get_item(keyword)
    plain.file_meta = result.file_meta
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(pixel_array(plain, raw=True))
    except _UNREADABLE:
        return None


def line_points(line: Dataset) -> NDArray[np.float64]:
    """Columns and rows of a line, (points, 2)."""
    values = _values(line, "GraphicData")
    return np.array(values[: len(values) // 2 * 2], np.float64).reshape(-1, 2)


def _line(line: Dataset, rows: int, columns: int) -> Iterator[str]:
    """A closed polyline within the image, in its pixels (PS3.3 C.10.5.1.2)."""
    values, points = _values(line, "GraphicData"), line_points(line)
    if text(line, "GraphicType") != "POLYLINE" or text(line, "GraphicAnnotationUnits") != "PIXEL":
        yield "a line is not a polyline in pixels"
    if len(points) < 4 or 2 * len(points) != len(values):
        yield "a line has too few points"
    elif count(line, "NumberOfGraphicPoints") != len(points):
        yield "a line has not the stated number of points"
    elif not ((points >= 0).all() and (points <= (columns, rows)).all()):
        yield "a line leaves the image"
    elif (points[0] != points[-1]).any():
        yield "a line is not closed"


def _same_display(result: Dataset, source: Dataset) -> Iterator[str]:
    """Polarity, rescale and window must be the source's own, or the original is shown wrongly."""
    dark = text(source, "PhotometricInterpretation") == "MONOCHROME1"
    inverted = dark or text(source, "PresentationLUTShape") == "INVERSE"
    if text(result, "PresentationLUTShape") != ("INVERSE" if inverted else "IDENTITY"):
        yield "PresentationLUTShape is not the source's"
    if bool(items(result, "ModalityLUTSequence")) != bool(items(source, "ModalityLUTSequence")):
        yield "ModalityLUTSequence is not the source's"
    elif not items(source, "ModalityLUTSequence"):
        for keyword in ("RescaleSlope", "RescaleIntercept"):
            stated = _values(result, keyword)
            if stated and not _equal(stated, _values(source, keyword)):
                yield f"{keyword} is not the source's"
    for shown in items(result, "SoftcopyVOILUTSequence"):
        for keyword in ("WindowCenter", "WindowWidth"):
            first = _values(source, keyword)[:1]
            if not items(shown, "VOILUTSequence") and not _equal(_values(shown, keyword), first):
                yield f"{keyword} is not the source's"


def _values(item: Dataset, keyword: str) -> list[float]:
    """Numbers of one element; none where it is absent or unreadable."""
    if keyword not in item:
        return []
    if dictionary_VR(tag_of(keyword)) == "DS":
        words = text(item, keyword).split("\\")
        try:
            return [float(word) for word in words]
        except ValueError:
            return []
    try:
        value = item[keyword].value
        return [float(each) for each in (value if hasattr(value, "__iter__") else [value])]
    except _UNREADABLE:
        return []


def _equal(given: list[float], expected: list[float]) -> bool:
    """Whether the numbers are there and the same, as far as a DS of 16 characters tells."""
    same = len(given) == len(expected) > 0
    return same and bool(np.allclose(given, expected, rtol=1e-9, atol=1e-12))


def masks(result: Dataset) -> NDArray[np.uint8] | None:
    """Frames of one bit per pixel, (segments, pixels); None if there are not that many bits."""
    area, segments = _area(result), len(items(result, "SegmentSequence"))
    data = undecoded(result, "PixelData") or b""
    if not area or len(data) != (whole := -(-segments * area // 8)) + whole % 2:
        return None
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    return bits[: segments * area].reshape(segments, area)


def _masks(result: Dataset, source: Dataset) -> Iterator[str]:
    """Each mask is neither empty nor full, no pixel is in two, and sides are the patient's."""
    frames = masks(result)
    if frames is None:
        yield "PixelData has not the stated size"
        return
    sizes = frames.sum(axis=1, dtype=np.int64)
    if len(frames) == 0 or sizes.min() == 0 or sizes.max() == frames.shape[1]:
        yield "a mask is empty or full"
        return
    if frames.sum(axis=0).max() > 1:
        yield "two masks overlap"
    labels = [text(segment, "SegmentLabel") for segment in items(result, "SegmentSequence")]
    if "Right lung" in labels and "Left lung" in labels:
        shape = (-1, count(result, "Rows") or 1, count(result, "Columns") or 1)
        right, left = (
            np.argwhere(frames.reshape(shape)[labels.index(f"{side} lung")]).mean(axis=0)
            for side in ("Right", "Left")
        )
        if not _lies_left(left - right, text(source, "PatientOrientation")):
            yield "the sides of the masks are not the patient's"


def _lies_left(way: NDArray[np.float64], orientation: str) -> bool:
    """Whether a way, rows and columns, leads to the patient's left (PS3.3 C.7.6.1.1.1)."""
    along_row, _, down_column = orientation.partition("\\")
    # The first word tells where the columns go, the second where the rows go.
    for word, step in ((along_row, way[1]), (down_column, way[0])):
        if (side := word.strip()[:1]) in {"L", "R"}:
            return bool(step > 0) == (side == "L")
    return False


def floats(result: Dataset) -> NDArray[np.float32]:
    """Values of a parametric map."""
    data = undecoded(result, "FloatPixelData") or b""
    return np.frombuffer(data[: len(data) // 4 * 4], "<f4")
