"""No damaged picture, outline, mask or map leaves the node."""

from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEGLosslessSV1,
)

from covidnet_node.case import Reason, ResultKind
from covidnet_node.errors import Park
from covidnet_node.reports import gate
from covidnet_node.reports.encode import encode
from covidnet_node.reports.results import build_results
from tests.orders import reread
from tests.pictures import (
    ALL,
    COLUMNS,
    IN_SPACE,
    PLAIN,
    ROWS,
    SYNTAXES,
    built,
    encoded,
    image,
    whole,
)

# The gate


def test_the_gate_lets_whole_pictures_pass() -> None:
    for syntax in SYNTAXES:
        made = whole(profile=ALL.model_copy(update={"heatmap_syntax": syntax}))
        for each in build_results(made):
            gate.check(each.dataset, made.source, made.profile)
            gate.check(reread(encode(each.dataset)), made.source, made.profile)


def setting(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def without(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


def _other_origin(dataset: Dataset) -> None:
    dataset.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.9.9"


def _other_class(dataset: Dataset) -> None:
    dataset.SourceImageSequence[0].ReferencedSOPClassUID = "1.9.9"


def _other_syntax(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1


def _line(dataset: Dataset) -> Dataset:
    found = dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert isinstance(found, Dataset)
    return found


def _beyond(dataset: Dataset) -> None:
    _line(dataset).GraphicData[0] = COLUMNS + 1.0


def _open(dataset: Dataset) -> None:
    _line(dataset).GraphicData[0] += 1.0


def _miscounted(dataset: Dataset) -> None:
    _line(dataset).NumberOfGraphicPoints = 3


def _other_image(dataset: Dataset) -> None:
    about = dataset.GraphicAnnotationSequence[0].ReferencedImageSequence[0]
    about.ReferencedSOPInstanceUID = "1.9.9"


def _undeclared_layer(dataset: Dataset) -> None:
    dataset.GraphicAnnotationSequence[0].GraphicLayer = "OTHER"


def _part(dataset: Dataset) -> None:
    dataset.DisplayedAreaSelectionSequence[0].DisplayedAreaBottomRightHandCorner = [9, 9]


def _nothing_drawn(dataset: Dataset) -> None:
    for each in dataset.GraphicAnnotationSequence:
        each.GraphicObjectSequence = []


def _window(dataset: Dataset) -> None:
    dataset.SoftcopyVOILUTSequence[0].WindowCenter = "3"


def _by_hand(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentAlgorithmType = "MANUAL"


def _lost_frame(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]


def _elsewhere(dataset: Dataset) -> None:
    group = dataset.PerFrameFunctionalGroupsSequence[0]
    group.PlanePositionSequence[0].ImagePositionPatient = ["0", "0", "0"]


def _stretched(dataset: Dataset) -> None:
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = ["1", "1"]


FULL = np.ones(2 * ROWS * COLUMNS, np.uint8)
FLOATS = ROWS * COLUMNS
DAMAGES: dict[ResultKind, dict[str, Callable[[Dataset], None]]] = {
    ResultKind.PLAIN: {
        "other origin": _other_origin,
        "other class of origin": _other_class,
        "other syntax": _other_syntax,
        "narrower": setting("Columns", COLUMNS - 1),
        "another's size": lambda d: (
            setattr(d, "Rows", ROWS // 2),
            setattr(d, "PixelData", PLAIN[: ROWS // 2].tobytes()),
        )[0],
        "no window": setting("WindowWidth", "100"),
    },
    ResultKind.CONTOURS: {
        "beyond the image": _beyond,
        "open line": _open,
        "miscounted": _miscounted,
        "other image": _other_image,
        "undeclared layer": _undeclared_layer,
        "part of the image": _part,
        "nothing drawn": _nothing_drawn,
        "other polarity": setting("PresentationLUTShape", "INVERSE"),
        "other window": _window,
        "other slope": setting("RescaleSlope", "3"),
        "no reference": without("ReferencedSeriesSequence"),
        "no date": without("PresentationCreationDate"),
        "other syntax": _other_syntax,
        "other patient": setting("PatientID", "PH-2"),
    },
    ResultKind.SEGMENTATION: {
        "other origin": _other_origin,
        "other size": setting("Rows", ROWS - 1),
        "by hand": _by_hand,
        "lost frame": _lost_frame,
        "empty": setting("PixelData", bytes(2 * ROWS * COLUMNS // 8)),
        "full": setting("PixelData", np.packbits(FULL).tobytes()),
        "short": setting("PixelData", bytes(100)),
        "no label": without("SegmentSequence"),
        "fractional": setting("SegmentationType", "FRACTIONAL"),
        "other patient": setting("PatientID", "PH-2"),
    },
    ResultKind.EVIDENCE_MAP: {
        "other origin": _other_origin,
        "other frame of reference": setting("FrameOfReferenceUID", "1.2.3.8"),
        "elsewhere": _elsewhere,
        "stretched": _stretched,
        "not a number": setting("FloatPixelData", np.full(FLOATS, np.nan, "<f4").tobytes()),
        "too large": setting("FloatPixelData", np.linspace(0, 9, FLOATS).astype("<f4").tobytes()),
        "constant": setting("FloatPixelData", np.full(FLOATS, 0.5, "<f4").tobytes()),
        "short": setting("FloatPixelData", bytes(8)),
        "other patient": setting("PatientID", "PH-2"),
    },
}
WINDOWED = {"WindowCenter": "500", "WindowWidth": "900", "RescaleSlope": "1",
            "RescaleIntercept": "0"}  # fmt: skip


@cache
def healthy() -> dict[ResultKind, bytes]:
    made = whole(image(**IN_SPACE, **WINDOWED))
    return {kind: encode(each.dataset) for kind, each in built(made).items()}


@pytest.mark.parametrize(
    ("kind", "damage"), [(kind, damage) for kind, every in DAMAGES.items() for damage in every]
)
def test_the_gate_stops_damaged_pictures(kind: ResultKind, damage: str) -> None:
    source = image(**IN_SPACE, **WINDOWED)
    dataset = reread(healthy()[kind])
    gate.check(dataset, source)
    DAMAGES[kind][damage](dataset)
    with pytest.raises(Park) as parked:
        gate.check(dataset, source)
    assert parked.value.reason is Reason.INVALID_RESULT


@pytest.mark.parametrize("syntax", ["rle", "jpeg_lossless", "jpeg_baseline"])
def test_the_gate_stops_pixels_that_cannot_be_decoded(syntax: str) -> None:
    file = reread(encoded(syntax))
    file.PixelData = file.PixelData[:200]
    with pytest.raises(Park):
        gate.check(file, image(**IN_SPACE))


def test_the_gate_stops_a_lossy_picture_that_does_not_say_so() -> None:
    file = reread(encoded("jpeg_baseline"))
    del file.LossyImageCompressionRatio
    with pytest.raises(Park, match="lossy"):
        gate.check(file, image(**IN_SPACE))


def test_an_encoded_file_is_a_whole_file() -> None:
    file = dcmread(BytesIO(encoded("rle")))
    assert file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID
