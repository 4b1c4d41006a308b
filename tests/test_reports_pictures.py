"""Pictures beside the report: which come, in which series and which encoding, valid for others."""

import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from covidnet_node.case import Analysis, ResultKind
from covidnet_node.config import Results
from covidnet_node.reports import gate
from covidnet_node.reports.encode import encode
from covidnet_node.reports.results import build_results
from tests.conftest import need_program
from tests.orders import NOT_ANALYZED, reread
from tests.pictures import (
    ALL,
    IN_SPACE,
    PICTURE,
    PLAIN,
    SYNTAXES,
    built,
    complaints,
    encoded,
    image,
    lungs,
    one,
    seen,
    whole,
)

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


# Headers as they come. The lungs are made up; where they lie does not matter here.


@pytest.mark.shared
@pytest.mark.dciodvfy
@pytest.mark.parametrize("syntax", ["explicit_little_endian", "jpeg_baseline"])
def test_real_headers_get_no_error_from_us(syntax: str, shared: Path, tmp_path: Path) -> None:
    profile = ALL.model_copy(update={"heatmap_syntax": syntax, "character_set": "utf8"})
    checked = 0
    for path in (each for name in ("cr_chest", "rsna", "dai")
                 for each in sorted((shared / "dicom").glob(f"{name}_*.dcm"))):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = dcmread(path, stop_before_pixels=True, force=True)
        theirs = set(complaints(path))
        rows, columns = int(source.Rows), int(source.Columns)
        mask = np.asarray(Image.fromarray(lungs()).resize((columns, rows)))
        picture = np.zeros((rows, columns, 3), np.uint8)
        picture[0] = 1
        made = whole(source, analysis=seen(lungs=mask), heatmap=picture, plain=picture)
        for kind, each in built(replace(made, profile=profile)).items():
            gate.check(each.dataset, source, profile)
            file = tmp_path / f"{path.stem}.{kind}.dcm"
            file.write_bytes(encode(each.dataset))
            assert set(complaints(file)) <= theirs, path.name
            checked += 1
    assert checked >= 20
