"""Phantoms: synthetic films that look like chests and are valid DICOM objects."""

import subprocess

import numpy as np
import pytest
from pydicom import dcmread, uid
from scipy.ndimage import label

from covidnet_node.imaging.decode import decode, read_source
from covidnet_node.imaging.display import to_display
from covidnet_node.phantom.film import draw_phantom, phantom_dataset
from tests.conftest import need_program

SEEDS = [0, 1, 2, 17, 4711]
SIDE = {"rows": 192, "columns": 176}


@pytest.mark.parametrize("seed", SEEDS)
def test_it_has_two_lungs_of_plausible_size(seed):
    phantom = draw_phantom(seed, **SIDE)
    fields, count = label(phantom.lungs)
    sizes = np.bincount(fields.ravel())[1:]
    assert count == 2
    assert 0.2 < phantom.lungs.mean() < 0.45
    assert sizes.min() > 0.5 * sizes.max()


@pytest.mark.parametrize("seed", SEEDS)
def test_lungs_are_dark_the_middle_bright_and_the_corners_black(seed):
    phantom = draw_phantom(seed, **SIDE)
    image = phantom.image / 65535
    lungs = image[phantom.lungs].mean()
    middle = image[60:180, 84:92].mean()
    assert 0.2 < lungs < middle - 0.25
    assert image[:8, :8].mean() < 0.12


@pytest.mark.parametrize("seed", SEEDS)
def test_opacities_brighten_the_lungs_where_they_should(seed):
    clear = draw_phantom(seed, **SIDE)
    diffuse = draw_phantom(seed, "diffuse", **SIDE)
    lobar = draw_phantom(seed, "lobar", **SIDE)
    assert np.array_equal(clear.lungs, diffuse.lungs)
    halves = [np.s_[:, :88], np.s_[:, 88:]]

    def gain(phantom, half):
        rise = phantom.image.astype(float) - clear.image
        return rise[half][clear.lungs[half]].mean() / 65535

    assert min(gain(diffuse, half) for half in halves) > 0.01
    sides = sorted(gain(lobar, half) for half in halves)
    assert abs(sides[0]) < 0.01
    assert sides[1] > 0.05


def test_the_seed_decides_everything():
    first, again, other = (draw_phantom(seed, **SIDE) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert phantom_dataset(3, **SIDE) == phantom_dataset(3, **SIDE)
    one, two = phantom_dataset(3, **SIDE), phantom_dataset(4, **SIDE)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID"):
        assert one[keyword] != two[keyword]


def test_identity_is_obviously_synthetic_and_can_be_set():
    plain = phantom_dataset(1, **SIDE)
    assert plain.PatientName == "PHANTOM^NORMAL"
    assert plain.PatientID == "CNN-PHANTOM-0001"
    assert uid.UID(plain.SOPInstanceUID).is_valid
    given = phantom_dataset(
        1, **SIDE, study_uid="2.25.1", series_uid="2.25.2", sop_uid="2.25.3", age=None, view="LL"
    )
    assert (given.StudyInstanceUID, given.SeriesInstanceUID) == ("2.25.1", "2.25.2")
    assert given.SOPInstanceUID == given.file_meta.MediaStorageSOPInstanceUID == "2.25.3"
    assert "PatientAge" not in given
    assert given.PatientBirthDate == ""
    assert given.ViewPosition == "LL"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Änne"),
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_survive_their_character_set(charset, name, tmp_path):
    path = tmp_path / "named.dcm"
    phantom_dataset(1, **SIDE, charset=charset, name=name).save_as(path, enforce_file_format=True)
    assert str(dcmread(path).PatientName) == name


def test_the_dataset_shows_the_drawing():
    phantom = draw_phantom(5, **SIDE)
    dataset = phantom_dataset(5, **SIDE, photometric="MONOCHROME1", bits=14)
    image = to_display(dataset, decode(dataset)).image
    assert np.abs(image - phantom.image / 257).max() <= 2


@pytest.mark.parametrize("bits", [7, 17])
def test_impossible_depths_are_refused(bits):
    with pytest.raises(ValueError, match="8 to 16"):
        phantom_dataset(1, **SIDE, bits=bits)


def test_a_syntax_it_cannot_write_is_refused():
    with pytest.raises(ValueError, match="not written"):
        phantom_dataset(1, **SIDE, transfer_syntax=uid.JPEGBaseline8Bit, bits=12)


@pytest.mark.dciodvfy
@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        (uid.ImplicitVRLittleEndian, 16),
        (uid.ExplicitVRLittleEndian, 12),
        (uid.ExplicitVRBigEndian, 10),
        (uid.RLELossless, 14),
        (uid.JPEGBaseline8Bit, 8),
        (uid.JPEGLSNearLossless, 15),
        (uid.JPEG2000, 12),
    ],
    ids=lambda value: getattr(value, "keyword", value),
)
@pytest.mark.parametrize("modality", ["CR", "DX"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dciodvfy_finds_no_error(modality, photometric, syntax, bits, tmp_path):
    path = tmp_path / "phantom.dcm"
    dataset = phantom_dataset(
        6,
        "diffuse",
        **SIDE,
        modality=modality,
        photometric=photometric,
        bits=bits,
        transfer_syntax=syntax,
    )
    dataset.save_as(path, enforce_file_format=True)
    check = subprocess.run(
        [need_program("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    said = check.stdout + check.stderr
    assert "Error" not in said, said
    expected = "CRImage" if modality == "CR" else "DXImageForPresentation"
    assert expected in said
    assert read_source(path).Modality == modality
