"""Pictures beside the report: what they show, in which form, and that damaged ones stay here."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from covidnet_node.case import Analysis, Explanation, Outcome, Reason, ResultKind
from covidnet_node.config import Results
from covidnet_node.errors import Park
from covidnet_node.reports import codes, gate
from covidnet_node.reports.order import Built, Order
from covidnet_node.reports.results import build_results, encode
from tests.conftest import need_program
from tests.orders import ANALYZED, INCONCLUSIVE, NOT_ANALYZED, header, order, reread

ROWS, COLUMNS = 160, 120
ALL = Results(
    heatmap="plain_and_overlay", contours=True, segmentation=True, evidence_map=True, page=True
)
IN_SPACE = {
    "SOPClassUID": DigitalXRayImageStorageForPresentation,
    "Modality": "DX",
    "FrameOfReferenceUID": "1.2.3.9",
    "PixelSpacing": ["1.5", "1.5"],
    "ImagePositionPatient": ["-90", "0", "120"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "0", "-1"],
}
SLOPE = np.add.outer(np.arange(ROWS + 30), np.arange(COLUMNS)) * 3 // 4
PICTURE = np.stack([SLOPE, 255 - SLOPE, SLOPE // 2], axis=-1).astype(np.uint8)
PICTURE[10:20, 10:50] = (64, 200, 255)
PLAIN = PICTURE // 2


def lungs() -> np.ndarray:
    """Two ellipses; the one at the left of the image is the larger."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    left = ((column - 36) / 22) ** 2 + ((row - 80) / 60) ** 2 < 1
    right = ((column - 86) / 18) ** 2 + ((row - 80) / 55) ** 2 < 1
    return np.asarray(left | right)


def seen(**changes: object) -> Analysis:
    """An analyzed image with lungs and a peak in the lung at the left."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    heat = np.exp(-(((column - 36) / 8) ** 2) - ((row - 100) / 10) ** 2).astype(np.float32)
    found = replace(
        ANALYZED,
        lungs=lungs(),
        display=np.where(lungs(), 60, 190).astype(np.uint8),
        explanation=Explanation(heat, "covid19", 0.9),
    )
    return replace(found, **changes)


def image(**changes: object) -> Dataset:
    """A grayscale header of the size of the lungs."""
    made = header(**changes)
    made.Rows, made.Columns = ROWS, COLUMNS
    made.SamplesPerPixel = 1
    if "PhotometricInterpretation" not in made:
        made.PhotometricInterpretation = "MONOCHROME2"
    return made


def whole(source: Dataset | None = None, **changes: object) -> Order:
    """An order for everything, of an image that has it all."""
    made = order(image(**IN_SPACE) if source is None else source, analysis=seen(), profile=ALL)
    return replace(made, **({"heatmap": PICTURE, "plain": PLAIN} | changes))


def built(made: Order) -> dict[ResultKind, Built]:
    return {each.kind: each for each in build_results(made)}


def one(kind: ResultKind, made: Order | None = None) -> Dataset:
    return built(whole() if made is None else made)[kind].dataset


def complaints(path: Path) -> list[str]:
    done = subprocess.run(
        [need_program("dciodvfy"), str(path)], capture_output=True, check=False, timeout=60
    )
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.startswith("Error")]


# Which objects


def test_everything_that_is_wanted_comes_in_its_order_and_series() -> None:
    results = built(whole())
    assert list(results) == [
        ResultKind.REPORT,
        ResultKind.HEATMAP,
        ResultKind.PLAIN,
        ResultKind.CONTOURS,
        ResultKind.SEGMENTATION,
        ResultKind.EVIDENCE_MAP,
    ]
    numbers = [int(each.dataset.SeriesNumber) for each in results.values()]
    assert numbers == [99101, 99102, 99102, 99103, 99104, 99105]
    assert len({each.dataset.SOPInstanceUID for each in results.values()}) == 6


def test_only_what_is_wanted_comes() -> None:
    none = replace(whole(), profile=Results(heatmap="none"))
    assert list(built(none)) == [ResultKind.REPORT]
    assert list(built(replace(whole(), profile=Results()))) == [
        ResultKind.REPORT,
        ResultKind.HEATMAP,
    ]


def test_an_image_that_was_not_analyzed_gets_no_picture_of_its_anatomy() -> None:
    kinds = list(built(whole(analysis=replace(seen(), **outcome_of(NOT_ANALYZED)))))
    assert set(kinds) <= {ResultKind.REPORT, ResultKind.PAGE}


def outcome_of(analysis: Analysis) -> dict[str, object]:
    return {"outcome": analysis.outcome, "reason": analysis.reason}


def test_the_profile_names_series_and_describes_them() -> None:
    profile = ALL.model_copy(
        update={"heatmap_series_number": 700, "series_prefix": "North Hospital: "}
    )
    for each in build_results(whole(profile=profile)):
        words = each.dataset.SeriesDescription
        assert words.startswith("North Hospital: ")
        assert words.endswith("Research use only, not for diagnosis")
        assert len(words) <= 64
    assert one(ResultKind.CONTOURS, whole(profile=profile)).SeriesNumber == 701


def test_same_order_same_bytes_whatever_is_wanted() -> None:
    first, second = build_results(whole()), build_results(whole())
    assert [encode(each.dataset) for each in first] == [encode(each.dataset) for each in second]


def test_an_object_is_named_by_what_shapes_it_alone() -> None:
    wanted = built(whole())
    alone = built(whole(profile=Results()))
    assert encode(alone[ResultKind.HEATMAP].dataset) == encode(wanted[ResultKind.HEATMAP].dataset)
    other = built(whole(profile=ALL.model_copy(update={"heatmap_syntax": "rle"})))
    for kind, each in wanted.items():
        same = other[kind].dataset.SOPInstanceUID == each.dataset.SOPInstanceUID
        assert same == (kind not in {ResultKind.HEATMAP, ResultKind.PLAIN})


# The plain picture


def test_the_plain_picture_lies_beside_the_heatmap_in_one_series() -> None:
    drawn, plain = one(ResultKind.HEATMAP), one(ResultKind.PLAIN)
    assert plain.SeriesInstanceUID == drawn.SeriesInstanceUID
    assert plain.InstanceNumber == drawn.InstanceNumber + 1
    assert (reread(encode(plain)).pixel_array == PLAIN).all()
    assert "DerivationCodeSequence" in drawn
    assert "DerivationCodeSequence" not in plain


# Encodings

SYNTAXES = {
    "explicit_little_endian": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg_lossless": JPEGLosslessSV1,
    "jpeg_baseline": JPEGBaseline8Bit,
}


def encoded(syntax: str) -> bytes:
    profile = Results.model_validate({"heatmap_syntax": syntax})
    return encode(one(ResultKind.HEATMAP, whole(profile=profile)))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_picture_comes_back_from_its_encoding(syntax: str) -> None:
    file = reread(encoded(syntax))
    assert file.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    shown = pixel_array(file)
    if syntax == "jpeg_baseline":
        assert file.PhotometricInterpretation == "YBR_FULL_422"
        assert np.abs(shown.astype(int) - PICTURE).mean() < 2
    else:
        assert file.PhotometricInterpretation == "RGB"
        assert (shown == PICTURE).all()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_encoding_twice_gives_the_same_bytes(syntax: str) -> None:
    assert encoded(syntax) == encoded(syntax)


def test_lossy_compression_is_recorded_behind_the_sources_own() -> None:
    profile = Results(heatmap_syntax="jpeg_baseline")
    lossy = image(
        LossyImageCompression="01",
        LossyImageCompressionRatio="12.5",
        LossyImageCompressionMethod="ISO_10918_1",
    )
    for source, steps in ((image(), 1), (lossy, 2)):
        written = reread(encode(one(ResultKind.HEATMAP, whole(source, profile=profile))))
        assert written.LossyImageCompression == "01"
        assert np.size(written.LossyImageCompressionRatio) == steps
        assert np.size(written.LossyImageCompressionMethod) == steps or steps == 1


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    ("syntax", "program"),
    [("rle", "dcmdrle"), ("jpeg_lossless", "dcmdjpeg"), ("jpeg_baseline", "dcmdjpeg")],
)
def test_dcmtk_decodes_it_too(syntax: str, program: str, tmp_path: Path) -> None:
    path, plain = tmp_path / "in.dcm", tmp_path / "out.dcm"
    path.write_bytes(encoded(syntax))
    subprocess.run([need_program(program), str(path), str(plain)], check=True, timeout=60)
    shown = dcmread(plain).pixel_array
    if syntax == "jpeg_baseline":
        assert np.abs(shown.astype(int) - PICTURE).mean() < 2
    else:
        assert (shown == PICTURE).all()


# Contours


def test_lungs_and_peaks_are_drawn_in_layers_of_their_own() -> None:
    state = one(ResultKind.CONTOURS)
    layers = [layer.GraphicLayer for layer in state.GraphicLayerSequence]
    assert layers == ["LUNGS", "ATTENTION", "NOTICE"]
    outlines = {
        each.GraphicLayer: [np.reshape(line.GraphicData, (-1, 2)) for line in lines(each)]
        for each in state.GraphicAnnotationSequence
    }
    assert len(outlines["LUNGS"]) == 2
    assert len(outlines["ATTENTION"]) == 1
    column, row = outlines["ATTENTION"][0].mean(axis=0)
    assert abs(column - 36) < 5
    assert abs(row - 100) < 5
    drawn = Image.new("1", (COLUMNS, ROWS))
    for points in outlines["LUNGS"]:
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in points], fill=1)
    missed = np.asarray(drawn) != lungs()
    assert missed.sum() < 0.05 * lungs().sum()


def lines(annotation: Dataset) -> list[Dataset]:
    return list(annotation.get("GraphicObjectSequence") or [])


def test_the_state_says_what_it_is_and_what_was_found() -> None:
    words = said(one(ResultKind.CONTOURS))
    assert "Research use only, not for diagnosis" in words
    assert "Findings compatible with COVID-19" in words
    unsure = seen(outcome=Outcome.INCONCLUSIVE, reason=INCONCLUSIVE.reason)
    assert "INCONCLUSIVE" in said(one(ResultKind.CONTOURS, whole(analysis=unsure)))


def said(state: Dataset) -> str:
    return " ".join(
        text.UnformattedTextValue
        for each in state.GraphicAnnotationSequence
        for text in each.get("TextObjectSequence") or []
    )


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"),
    [
        ("MONOCHROME2", None, "IDENTITY"),
        ("MONOCHROME1", None, "INVERSE"),
        ("MONOCHROME1", "INVERSE", "INVERSE"),
        ("MONOCHROME2", "INVERSE", "INVERSE"),
    ],
)
def test_polarity_is_that_of_the_original(
    photometric: str, shape: str | None, expected: str
) -> None:
    source = image(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert one(ResultKind.CONTOURS, whole(source)).PresentationLUTShape == expected


def test_window_and_rescale_are_those_of_the_original() -> None:
    source = image(
        WindowCenter=["500", "900"],
        WindowWidth=["800", "100"],
        RescaleSlope="2",
        RescaleIntercept="-10",
    )
    state = one(ResultKind.CONTOURS, whole(source))
    shown = state.SoftcopyVOILUTSequence[0]
    assert (shown.WindowCenter, shown.WindowWidth) == (500, 800)
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (2, -10, "US")


@pytest.mark.parametrize("bad", [{"WindowWidth": b"wide"}, {"WindowWidth": b"0 "}, {}])
def test_without_a_usable_window_none_is_invented(bad: dict[str, bytes]) -> None:
    source = image(WindowCenter="500", **bad)
    assert "SoftcopyVOILUTSequence" not in one(ResultKind.CONTOURS, whole(source))


def table(entries: int, signed: int | None = None) -> Dataset:
    lut = Dataset()
    first = 0 if signed is None else signed
    lut.add_new("LUTDescriptor", "US" if signed is None else "SS", [entries, first, 16])
    lut.add_new("LUTData", "OW", np.arange(entries, dtype="<u2").tobytes())
    lut.ModalityLUTType = "US"
    return lut


@pytest.mark.parametrize("first", [None, -5])
def test_lookup_tables_are_repeated(first: int | None) -> None:
    lut = table(64, first)
    state = one(ResultKind.CONTOURS, whole(image(VOILUTSequence=[lut], ModalityLUTSequence=[lut])))
    written = reread(encode(state))
    for shown in (written.SoftcopyVOILUTSequence[0].VOILUTSequence[0],
                  written.ModalityLUTSequence[0]):  # fmt: skip
        assert list(shown.LUTDescriptor) == [64, first or 0, 16]
        assert shown.LUTData == np.arange(64, dtype="<u2").tobytes()


def test_a_table_of_twelve_bits_shows_the_same_grays_with_sixteen() -> None:
    lut = table(64)
    lut.LUTDescriptor = [64, 0, 12]
    state = one(ResultKind.CONTOURS, whole(image(VOILUTSequence=[lut])))
    shown = reread(encode(state)).SoftcopyVOILUTSequence[0].VOILUTSequence[0]
    assert list(shown.LUTDescriptor) == [64, 0, 16]
    grays = np.frombuffer(shown.LUTData, "<u2") / 65535
    assert np.abs(grays - np.arange(64) / 4095).max() < 1e-5


def test_there_is_no_state_where_the_display_cannot_be_repeated() -> None:
    broken = table(64)
    broken.LUTData = b"\0\0"
    assert ResultKind.CONTOURS not in built(whole(image(VOILUTSequence=[broken])))
    colored = image(PhotometricInterpretation="RGB")
    assert ResultKind.CONTOURS not in built(whole(colored))
    assert ResultKind.CONTOURS not in built(whole(analysis=seen(lungs=None)))
    assert ResultKind.CONTOURS not in built(whole(analysis=seen(lungs=np.zeros_like(lungs()))))


@pytest.mark.dcmtk
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dcmtk_shows_the_original_through_the_state_as_without_it(
    photometric: str, tmp_path: Path
) -> None:
    stored = np.where(lungs(), 60, 190).astype("<u2") * 16 + np.arange(COLUMNS, dtype="<u2")
    source = image(PhotometricInterpretation=photometric, WindowCenter="2000", WindowWidth="3000")
    for keyword, value in (("BitsAllocated", 16), ("BitsStored", 12), ("HighBit", 11),
                           ("PixelRepresentation", 0)):  # fmt: skip
        setattr(source, keyword, value)
    source.add_new("PixelData", "OW", stored.tobytes())
    (tmp_path / "source.dcm").write_bytes(encode(source))
    (tmp_path / "state.dcm").write_bytes(encode(one(ResultKind.CONTOURS, whole(source))))
    for command in (
        [need_program("dcmp2pgm"), "-p", "state.dcm", "source.dcm", "through.pgm"],
        [need_program("dcm2pnm"), "+Wi", "1", "source.dcm", "without.pgm"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    through, without = (np.asarray(Image.open(tmp_path / f"{name}.pgm")).astype(int)
                        for name in ("through", "without"))  # fmt: skip
    assert np.abs(through - without).max() <= 1
    darker = through[lungs()].mean() < through[~lungs()].mean()
    assert darker == (photometric == "MONOCHROME2")


# Segmentation


def masks(state: Dataset) -> dict[str, np.ndarray]:
    frames = reread(encode(state)).pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    return {segment.SegmentLabel: frame.astype(bool)
            for segment, frame in zip(state.SegmentSequence, frames, strict=True)}  # fmt: skip


@pytest.mark.parametrize(
    ("orientation", "at_the_left"),
    [(["L", "F"], "Right lung"), (["R", "F"], "Left lung"), (["LF", "FR"], None), (None, None)],
)
def test_sides_are_told_by_patient_orientation_alone(
    orientation: list[str] | None, at_the_left: str | None
) -> None:
    found = masks(one(ResultKind.SEGMENTATION, whole(image(PatientOrientation=orientation))))
    assert (sum(found.values()) == lungs()).all()
    if orientation is None:
        assert list(found) == ["Lung"]
    elif at_the_left is not None:
        assert list(found) == ["Right lung", "Left lung"]
        assert found[at_the_left][80, 36]
        assert not found[at_the_left][80, 86]


def test_a_lying_film_has_its_sides_above_each_other() -> None:
    turned = replace(seen(), lungs=lungs().T.copy(), explanation=None, display=None)
    source = image(PatientOrientation=["F", "R"])
    source.Rows, source.Columns = COLUMNS, ROWS
    picture = np.zeros((COLUMNS + 30, ROWS, 3), np.uint8)
    picture[5] = 9
    made = whole(source, analysis=turned, heatmap=picture, plain=picture)
    assert masks(one(ResultKind.SEGMENTATION, made))["Left lung"][36, 80]


def test_one_lung_alone_has_no_side() -> None:
    single = lungs()
    single[:, 62:] = False
    made = whole(analysis=seen(lungs=single))
    assert list(masks(one(ResultKind.SEGMENTATION, made))) == ["Lung"]


def test_a_segment_names_its_algorithm_and_leaves_the_codes_of_others_alone() -> None:
    before = codes.LUNG.to_json()
    segment = one(ResultKind.SEGMENTATION).SegmentSequence[0]
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "2026.1"
    assert codes.LUNG.to_json() == before


def test_spacing_is_told_where_the_source_tells_it() -> None:
    with_it = one(ResultKind.SEGMENTATION).SharedFunctionalGroupsSequence[0]
    assert list(with_it.PixelMeasuresSequence[0].PixelSpacing) == [1.5, 1.5]
    detector = image(ImagerPixelSpacing=["0.1", "0.1"])
    without = one(ResultKind.SEGMENTATION, whole(detector)).SharedFunctionalGroupsSequence[0]
    assert "PixelMeasuresSequence" not in without


# Evidence map


def test_the_map_holds_the_raw_values_where_the_source_places_them() -> None:
    explained = seen().explanation
    assert explained is not None
    written = reread(encode(one(ResultKind.EVIDENCE_MAP)))
    values = np.frombuffer(written.FloatPixelData, "<f4").reshape(ROWS, COLUMNS)
    assert (values == explained.heatmap).all()
    assert written.FrameOfReferenceUID == "1.2.3.9"
    measures = written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == [1.5, 1.5]
    assert "SpacingBetweenSlices" not in measures


@pytest.mark.parametrize(
    "lacking",
    [
        {"FrameOfReferenceUID": None},
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]},
        {"PixelSpacing": None},
        {"PixelSpacing": ["0", "1"]},
        {"ImagePositionPatient": b"a\\b\\c "},
    ],
)
def test_no_geometry_is_invented(lacking: dict[str, object]) -> None:
    assert ResultKind.EVIDENCE_MAP not in built(whole(image(**(IN_SPACE | lacking))))


def test_an_empty_map_is_not_sent() -> None:
    nothing = Explanation(np.zeros((ROWS, COLUMNS), np.float32), "covid19", 0.0)
    assert ResultKind.EVIDENCE_MAP not in built(whole(analysis=seen(explanation=nothing)))


# Judged by others


@pytest.mark.dciodvfy
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("source", ["in space", "plain", "bare"])
def test_dciodvfy_finds_no_error(source: str, syntax: str, tmp_path: Path) -> None:
    made = {
        "in space": image(**IN_SPACE),
        "plain": image(PixelSpacing=["0.2", "0.2"], WindowCenter="500", WindowWidth="900"),
        "bare": image(PatientOrientation=None, BodyPartExamined=None, StudyTime=None),
    }[source]
    profile = ALL.model_copy(update={"heatmap_syntax": syntax})
    for kind, each in built(whole(made, profile=profile)).items():
        path = tmp_path / f"{kind}.dcm"
        path.write_bytes(encode(each.dataset))
        assert complaints(path) == [], kind


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
