"""Imaging: the display pipeline step by step, digests and pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from covidnet_node.errors import NotAnalyzed
from covidnet_node.imaging.decode import decode, read_source
from covidnet_node.imaging.digest import identity_digest, pixel_digest
from covidnet_node.imaging.display import to_display
from covidnet_node.imaging.picture import open_picture
from covidnet_node.phantom.film import phantom_dataset

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def lut(first: int, bits: int, entries: list[int]) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return Sequence([item])


def shown(stored: NDArray[Any], **attributes: Any) -> NDArray[np.uint8]:
    display = to_display(header(**attributes), stored)
    assert display.notes == ()
    return display.image


def saved(dataset: Dataset, folder: Path) -> Path:
    path = folder / "image.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


# The display pipeline, one step at a time


def test_window_linear_follows_the_formula_of_the_standard():
    image = shown(RAMP, WindowCenter="2048", WindowWidth="1024")
    x = RAMP.astype(float)
    expected = np.clip(((x - 2047.5) / 1023 + 0.5) * 255, 0, 255)
    assert np.abs(image - expected).max() <= 0.5


def test_window_linear_exact_and_sigmoid():
    x = RAMP.astype(float)
    window = {"WindowCenter": "1000", "WindowWidth": "2000"}
    exact = shown(RAMP, **window, VOILUTFunction="LINEAR_EXACT")
    assert np.abs(exact - np.clip(x / 2000 * 255, 0, 255)).max() <= 0.5
    sigmoid = shown(RAMP, **window, VOILUTFunction="SIGMOID")
    assert np.abs(sigmoid - 255 / (1 + np.exp(-4 * (x - 1000) / 2000))).max() <= 0.5


def test_window_is_in_units_after_rescale():
    plain = shown(RAMP, WindowCenter="2048", WindowWidth="1024")
    moved = shown(
        RAMP, RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="3095.5", WindowWidth="2047"
    )
    assert np.abs(plain.astype(int) - moved).max() <= 1


def test_negative_slope_turns_the_picture_over():
    image = shown(RAMP, RescaleSlope="-1", RescaleIntercept="0")
    assert image[0, 0] == 255
    assert image[-1, -1] == 0


def test_modality_lut_comes_before_the_voi_lut():
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    image = shown(
        stored,
        ModalityLUTSequence=lut(0, 16, [30, 20, 10, 0]),
        VOILUTSequence=lut(0, 8, [i * 8 for i in range(31)]),
    )
    assert image.tolist() == [[240, 160, 80, 0]]


def test_values_beyond_a_lut_take_its_ends():
    stored = np.array([[0, 100, 101, 102, 4000]], np.uint16)
    image = shown(stored, VOILUTSequence=lut(100, 8, [10, 128, 255]))
    assert image.tolist() == [[10, 10, 128, 255, 255]]


def test_the_first_of_several_windows_is_shown():
    one = shown(RAMP, WindowCenter="2048", WindowWidth="1024")
    several = shown(RAMP, WindowCenter=["2048", "100"], WindowWidth=["1024", "50"])
    assert np.array_equal(one, several)


def test_without_a_window_the_image_spans_the_scale():
    image = shown(RAMP)
    assert (image.min(), image.max()) == (0, 255)


def test_a_few_wild_pixels_do_not_flatten_the_image():
    stored = np.tile(RAMP // 16, (20, 20))
    stored[0, :5] = 4095
    assert np.median(shown(stored)) > 100


@pytest.mark.parametrize("window", [{}, {"WindowCenter": "2048", "WindowWidth": "4096"}])
def test_monochrome1_is_the_inverse_of_monochrome2(window):
    plain = shown(RAMP, **window)
    inverse = shown(RAMP, PhotometricInterpretation="MONOCHROME1", **window)
    assert np.abs(255 - plain.astype(int) - inverse).max() <= 1


def test_monochrome1_with_shape_inverse_is_inverted_once():
    once = shown(RAMP, PhotometricInterpretation="MONOCHROME1")
    both = shown(RAMP, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(once, both)


def test_contradicting_shape_is_noted():
    display = to_display(header(PresentationLUTShape="INVERSE"), RAMP)
    assert display.image[0, 0] == 255
    assert "contradicts" in display.notes[0]


@pytest.mark.parametrize(
    ("center", "width"),
    [("2048", "0"), ("2048", "-5"), ("90000", "100"), ("2048", "5000000"), ("-3000", "400")],
)
def test_an_unusable_window_is_repaired_and_noted(center, width):
    display = to_display(header(WindowCenter=center, WindowWidth=width), RAMP)
    assert np.array_equal(display.image, shown(RAMP))
    assert "window" in display.notes[0]


def test_an_unreadable_lut_falls_back_to_the_window():
    broken = lut(0, 8, [1, 2, 3])
    broken[0].LUTDescriptor = [500, 0, 8]
    window = {"WindowCenter": "2048", "WindowWidth": "1024"}
    display = to_display(header(VOILUTSequence=broken, **window), RAMP)
    assert np.array_equal(display.image, shown(RAMP, **window))
    assert "VOI LUT" in display.notes[0]


def test_unusable_rescale_is_not_applied():
    display = to_display(header(RescaleSlope="0", RescaleIntercept="7"), RAMP)
    assert np.array_equal(display.image, shown(RAMP))
    assert "Rescale" in display.notes[0]


def test_padding_is_black_and_does_not_count():
    stored = RAMP.copy()
    stored[0, :8] = 60000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        image = shown(stored, PixelPaddingValue=60000, PhotometricInterpretation=photometric)
        assert (image[0, :8] == 0).all()
        assert image.max() == 255


def test_padding_range_of_a_signed_image_written_as_unsigned():
    stored = RAMP.astype(np.int16)
    stored[0, :8] = -2000
    image = shown(
        stored, PixelRepresentation=1, PixelPaddingValue=65536 - 2000, PixelPaddingRangeLimit=63000
    )
    assert (image[0, :8] == 0).all()
    assert np.median(image[1:]) > 100


def test_a_constant_image_is_black_with_a_note():
    display = to_display(header(), np.full((5, 7), 9, np.uint16))
    assert display.image.shape == (5, 7)
    assert not display.image.any()
    assert "constant" in display.notes[0]


def test_color_becomes_luma():
    stored = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    image = shown(stored, PhotometricInterpretation="RGB", BitsAllocated=8, BitsStored=8)
    assert image.tolist() == [[76, 150, 29, 90]]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [True, False])
def test_every_bit_depth_shows_the_same_picture(bits, photometric, window):
    size = {"rows": 96, "columns": 80}
    reference = phantom_dataset(1, bits=16, **size)
    other = phantom_dataset(1, bits=bits, photometric=photometric, window=window, **size)
    expected = to_display(reference, decode(reference)).image
    image = to_display(other, decode(other)).image
    if window:
        assert np.abs(expected.astype(int) - image).max() <= 2
    else:
        assert np.corrcoef(expected.ravel(), image.ravel())[0, 1] > 0.999


# Digests


def test_pixel_digest_knows_values_and_shape_but_not_storage():
    values = RAMP // 16
    digest = pixel_digest(values)
    for dtype in ("u1", ">u2", "<i4", ">i8"):
        assert pixel_digest(values.astype(dtype)) == digest
    assert pixel_digest(np.asfortranarray(values)) == digest
    assert pixel_digest(values.reshape(8, 32)) != digest
    changed = values.copy()
    changed[3, 3] += 1
    assert pixel_digest(changed) != digest


@pytest.mark.parametrize(
    ("name", "charsets"),
    [
        ("Müller^Änne", ["ISO_IR 100", "ISO_IR 192"]),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", [["", "ISO 2022 IR 87"], "ISO_IR 192"]),
    ],
)
def test_identity_is_the_same_in_every_character_set_that_can_write_it(name, charsets, tmp_path):
    digests = set()
    for charset in charsets:
        dataset = phantom_dataset(9, rows=8, columns=8, name=name, charset=charset)
        digests.add(identity_digest(read_source(saved(dataset, tmp_path))))
    assert len(digests) == 1


def test_identity_ignores_padding_and_empty_attributes():
    plain = phantom_dataset(9, rows=8, columns=8)
    padded = phantom_dataset(9, rows=8, columns=8)
    padded.PatientID = f" {padded.PatientID}  "
    padded.PatientName = f"{padded.PatientName}^^"
    padded.PatientComments = ""
    assert identity_digest(padded) == identity_digest(plain)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "OTHER^NAME"),
        ("PatientID", "OTHER"),
        ("PatientBirthDate", "19010101"),
        ("AccessionNumber", "OTHER"),
        ("SeriesInstanceUID", "2.25.7"),
        ("ViewPosition", "AP"),
        ("Laterality", "L"),
        ("WindowCenter", "17"),
        ("PhotometricInterpretation", "MONOCHROME1"),
        ("VOILUTSequence", lut(0, 8, [1, 2, 3])),
    ],
)
def test_identity_knows_what_shapes_a_result(keyword, value):
    plain = phantom_dataset(9, rows=8, columns=8)
    changed = phantom_dataset(9, rows=8, columns=8)
    setattr(changed, keyword, value)
    assert identity_digest(changed) != identity_digest(plain)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_identity_with_luts_and_padding_in_each_byte_order(syntax, tmp_path):
    def dataset(syntax: uid.UID) -> Dataset:
        made = phantom_dataset(9, rows=8, columns=8, transfer_syntax=syntax)
        made.VOILUTSequence = lut(0, 12, [1, 2, 300])
        made.PixelPaddingValue = 5
        if syntax == uid.ExplicitVRBigEndian:
            item = made.VOILUTSequence[0]
            item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
        return made

    other = read_source(saved(dataset(syntax), tmp_path))
    assert identity_digest(other) == identity_digest(dataset(uid.ExplicitVRLittleEndian))


# Pictures


def test_pictures_are_read_as_gray(tmp_path):
    gray = (RAMP // 16).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray((RAMP * 16).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.stack([gray] * 3, axis=-1)).save(tmp_path / "color.png")
    Image.fromarray(gray).save(tmp_path / "gray.jpg", quality=95)
    assert np.array_equal(open_picture(tmp_path / "gray.png"), gray)
    assert np.array_equal(open_picture(tmp_path / "color.png"), gray)
    for name in ("deep.png", "gray.jpg"):
        assert np.abs(open_picture(tmp_path / name).astype(int) - gray).max() <= 3


def test_a_decompression_bomb_and_other_files_are_verdicts(tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(bomb)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    half = tmp_path / "half.png"
    Image.fromarray(phantom_dataset(1, rows=64, columns=64, bits=8).pixel_array).save(half)
    half.write_bytes(half.read_bytes()[:2000])
    for path in (bomb, text, half, tmp_path / "absent.png"):
        with pytest.raises(NotAnalyzed):
            open_picture(path)
