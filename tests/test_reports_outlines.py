"""Presentation state, segmentation and evidence map: what they show, and where there is none."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from covidnet_node.case import Explanation, Outcome, ResultKind
from covidnet_node.reports import codes
from covidnet_node.reports.encode import encode
from tests.conftest import need_program
from tests.orders import INCONCLUSIVE, reread
from tests.pictures import (
    COLUMNS,
    IN_SPACE,
    ROWS,
    built,
    image,
    lungs,
    one,
    seen,
    whole,
)

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
