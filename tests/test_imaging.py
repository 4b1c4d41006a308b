"""Imaging: the display pipeline step by step, digests, and pixels of every transfer syntax."""

import subprocess
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence

from covidnet_node.case import Reason
from covidnet_node.errors import NotAnalyzed
from covidnet_node.imaging.decode import decode, read_source
from covidnet_node.imaging.digest import identity_digest, pixel_digest
from covidnet_node.imaging.display import to_display
from covidnet_node.imaging.picture import open_picture
from covidnet_node.phantom import phantom_dataset
from tests.conftest import need_program

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]
LOSSLESS = [*NATIVE, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless]
LOSSY = [uid.JPEGLSNearLossless, uid.JPEG2000]
BY_GDCM = [
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
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


# Stored values


def test_bits_outside_bits_stored_are_masked_and_high_bit_is_heeded():
    dataset = phantom_dataset(2, rows=32, columns=32, bits=12)
    clean = decode(dataset)
    raw = np.frombuffer(dataset.PixelData, "<u2")
    dataset.PixelData = (raw | 0xB000).tobytes()
    assert np.array_equal(decode(dataset), clean)
    dataset.PixelData = (raw << 4 | 0x000D).astype("<u2").tobytes()
    dataset.HighBit = 15
    assert np.array_equal(decode(dataset), clean)


def test_signs_are_extended_from_bits_stored():
    dataset = phantom_dataset(2, rows=1, columns=4, bits=12)
    dataset.PixelRepresentation = 1
    dataset.PixelData = np.array([0, 1, 0xFFF, 0x7800], "<u2").tobytes()
    assert decode(dataset).tolist() == [[0, 1, -1, -2048]]


def color(photometric: str, data: bytes) -> Dataset:
    dataset = phantom_dataset(2, rows=2, columns=2, bits=8)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = data
    return dataset


def test_ybr_and_palette_become_rgb():
    ybr = decode(color("YBR_FULL", bytes([76, 85, 255] * 4)))
    assert ybr.shape == (2, 2, 3)
    assert np.abs(ybr.astype(int) - [254, 0, 0]).max() <= 2
    palette = phantom_dataset(2, rows=2, columns=2, bits=8)
    palette.PhotometricInterpretation = "PALETTE COLOR"
    for name, value in (("Red", 0), ("Green", 200), ("Blue", 100)):
        palette.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
        palette.add_new(f"{name}PaletteColorLookupTableData", "OW", bytes([value]) * 256)
    assert decode(palette).tolist() == [[[0, 200, 100]] * 2] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"Rows": 20000, "Columns": 20000},
        {"Rows": 0},
        {"BitsAllocated": 12},
        {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
        {"BitsStored": 20},
        {"HighBit": 3},
        {"SamplesPerPixel": 3},
        {"SamplesPerPixel": 4, "PhotometricInterpretation": "CMYK"},
        {"PhotometricInterpretation": "HSV"},
        {"Rows": 40},
        {"PixelData": b""},
    ],
)
def test_a_lying_header_is_a_verdict(change):
    dataset = phantom_dataset(3, rows=32, columns=32)
    for keyword, value in change.items():
        setattr(dataset, keyword, value)
    with pytest.raises(NotAnalyzed) as raised:
        decode(dataset)
    assert raised.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("keyword", ["PixelData", "Rows", "BitsStored", "PixelRepresentation"])
def test_a_missing_attribute_is_a_verdict(keyword):
    dataset = phantom_dataset(3, rows=32, columns=32)
    del dataset[keyword]
    with pytest.raises(NotAnalyzed):
        decode(dataset)


def test_several_frames_are_their_own_verdict():
    dataset = phantom_dataset(3, rows=32, columns=32)
    dataset.NumberOfFrames = 2
    with pytest.raises(NotAnalyzed) as raised:
        decode(dataset)
    assert raised.value.reason is Reason.MULTI_FRAME


# Transfer syntaxes


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_lossless_syntaxes_give_the_same_image_and_digests(syntax, tmp_path):
    plain = phantom_dataset(4, rows=64, columns=50)
    other = read_source(
        saved(phantom_dataset(4, rows=64, columns=50, transfer_syntax=syntax), tmp_path)
    )
    stored = decode(other)
    assert pixel_digest(stored) == pixel_digest(decode(plain))
    assert identity_digest(other) == identity_digest(plain)
    expected = to_display(plain, decode(plain)).image
    assert np.array_equal(to_display(other, stored).image, expected)


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda syntax: syntax.keyword)
def test_lossy_syntaxes_give_nearly_the_same_image(syntax, tmp_path):
    plain = phantom_dataset(4, rows=64, columns=50)
    other = read_source(
        saved(phantom_dataset(4, rows=64, columns=50, transfer_syntax=syntax), tmp_path)
    )
    difference = decode(other).astype(int) - decode(plain)
    assert 0 < np.abs(difference).mean() < 40


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", BY_GDCM, ids=lambda syntax: syntax.keyword)
def test_another_encoder_bit_depths_and_signs(syntax, signed, bits, tmp_path):
    dataset = phantom_dataset(5, rows=48, columns=40, bits=bits, window=False)
    if signed:
        dataset.PixelRepresentation = 1
        width = dataset.BitsAllocated
        raw = np.frombuffer(dataset.PixelData, f"<i{width // 8}")
        extended = np.right_shift(np.left_shift(raw, width - bits), width - bits)
        dataset.PixelData = extended.tobytes()
    source = saved(dataset, tmp_path)
    target = tmp_path / "compressed.dcm"
    recode(source, target, syntax)
    other = read_source(target)
    assert other.file_meta.TransferSyntaxUID == syntax
    assert pixel_digest(decode(other)) == pixel_digest(decode(dataset))


def recode(source: Path, target: Path, syntax: uid.UID) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    ("option", "syntax", "bits", "likeness"),
    [
        ("+eb", uid.JPEGBaseline8Bit, 8, 0.995),
        ("+ee", uid.JPEGExtended12Bit, 12, 0.995),
        ("+el", uid.JPEGLossless, 12, 1),
        ("+e1", uid.JPEGLosslessSV1, 16, 1),
    ],
)
def test_jpeg_as_dcmtk_writes_it(option, syntax, bits, likeness, tmp_path):
    dataset = phantom_dataset(6, rows=64, columns=50, bits=bits)
    source, target = saved(dataset, tmp_path), tmp_path / "jpeg.dcm"
    subprocess.run(
        [need_program("dcmcjpeg"), option, "+un", str(source), str(target)],
        check=True,
        capture_output=True,
    )
    other = read_source(target)
    assert other.file_meta.TransferSyntaxUID == syntax
    stored, expected = decode(other), decode(dataset)
    # dcmcjpeg spreads the values of lossy images over the full range.
    assert np.corrcoef(stored.ravel(), expected.ravel())[0, 1] >= likeness - 1e-9
    assert np.array_equal(stored, expected) == (likeness == 1)


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("share", [0.98, 0.6, 0.3, 0.01])
def test_truncated_files_are_verdicts(syntax, share, tmp_path):
    path = saved(phantom_dataset(7, rows=64, columns=50, transfer_syntax=syntax), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(NotAnalyzed):
        decode(read_source(path))


@pytest.mark.parametrize(
    "syntax",
    [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000, uid.JPEGBaseline8Bit],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
def test_truncated_frames_are_verdicts(syntax, share):
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    dataset = phantom_dataset(7, rows=64, columns=50, bits=bits, transfer_syntax=syntax)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: int(len(frame) * share)]])
    with pytest.raises(NotAnalyzed):
        decode(dataset)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGBaseline8Bit])
def test_a_frame_larger_than_its_header_is_refused_unread(syntax):
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    small, large = (
        phantom_dataset(7, rows=side, columns=side, bits=bits, transfer_syntax=syntax)
        for side in (32, 64)
    )
    small.PixelData = large.PixelData
    with pytest.raises(NotAnalyzed, match="different sizes"):
        decode(small)


@pytest.mark.parametrize(
    ("marker", "offset", "value"),
    [(0xC3, 4, 29), (0xC3, 1, 0xC9), (0xC3, 9, 2), (0xC4, 6, 200), (0xC4, 1, 0x01), (0xDA, 4, 3)],
)
def test_a_frame_that_would_crash_its_decoder_is_refused_unread(marker, offset, value, tmp_path):
    target = tmp_path / "jpeg.dcm"
    recode(saved(phantom_dataset(7, rows=32, columns=32), tmp_path), target, uid.JPEGLosslessSV1)
    dataset = read_source(target)
    frame = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    frame[frame.index(bytes([0xFF, marker])) + offset] = value
    dataset.PixelData = encapsulate([bytes(frame)])
    with pytest.raises(NotAnalyzed, match="compressed frame"):
        decode(dataset)


def test_a_deflated_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("covidnet_node.imaging.decode.MAXIMUM_BYTES", 1000)
    syntax = uid.DeflatedExplicitVRLittleEndian
    path = saved(phantom_dataset(7, rows=64, columns=64, transfer_syntax=syntax), tmp_path)
    with pytest.raises(NotAnalyzed, match="deflated"):
        read_source(path)


def test_a_bare_data_set_without_preamble_is_read(tmp_path):
    dataset = phantom_dataset(8, rows=32, columns=32)
    path = tmp_path / "bare.dcm"
    whole = saved(dataset, tmp_path).read_bytes()
    meta = dcmread(tmp_path / "image.dcm").file_meta
    path.write_bytes(whole[132 + 12 + meta.FileMetaInformationGroupLength :])
    assert pixel_digest(decode(read_source(path))) == pixel_digest(decode(dataset))


@pytest.mark.parametrize("content", [b"", b"not DICOM, however long it is", b"\0" * 500])
def test_other_files_are_verdicts(content, tmp_path):
    path = tmp_path / "other.dcm"
    path.write_bytes(content)
    with pytest.raises(NotAnalyzed):
        decode(read_source(path))


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


# Anything at all


numbers = st.sampled_from(["0", "1", "-1", "1e-9", "3e300", "-7e12", "0.5", "2048", "-1024"])


@given(
    allocated=st.sampled_from([8, 16, 32]),
    stored=st.integers(1, 32),
    high=st.integers(0, 31),
    signed=st.booleans(),
    attributes=st.fixed_dictionaries(
        {},
        optional={
            "WindowCenter": numbers,
            "WindowWidth": numbers,
            "RescaleSlope": numbers,
            "RescaleIntercept": numbers,
            "VOILUTFunction": st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "OTHER"]),
            "PixelPaddingValue": st.integers(0, 65535),
            "PixelPaddingRangeLimit": st.integers(0, 65535),
            "PresentationLUTShape": st.sampled_from(["IDENTITY", "INVERSE"]),
            "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
        },
    ),
    lut_sizes=st.tuples(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 20)),
    pixels=st.binary(min_size=0, max_size=48),
)
def test_no_header_makes_it_raise_anything_but_a_verdict(
    allocated, stored, high, signed, attributes, lut_sizes, pixels
):
    dataset = phantom_dataset(1, rows=3, columns=4)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, high
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = pixels + pixels[: len(pixels) % 2]
    dataset.VOILUTSequence = lut(0, 8, [1, 5, 9])
    dataset.VOILUTSequence[0].LUTDescriptor = list(lut_sizes)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    assert len(identity_digest(dataset)) == 64
    try:
        values = decode(dataset)
    except NotAnalyzed:
        return
    display = to_display(dataset, values)
    assert display.image.dtype == np.uint8
    assert display.image.shape == (3, 4)
    assert len(pixel_digest(values)) == 64


@given(
    values=st.lists(
        st.floats(width=64, allow_nan=True, allow_infinity=True), min_size=6, max_size=6
    )
)
def test_floating_point_pixels_are_shown(values):
    image = to_display(header(), np.array(values).reshape(2, 3)).image
    assert image.shape == (2, 3)


@given(cut=st.integers(0, 3000), position=st.integers(0, 2500), value=st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused(cut, position, value, tmp_path_factory):
    whole = bytearray(damaged_source(tmp_path_factory))
    whole[position % len(whole)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(whole[: len(whole) - cut // 10])
    try:
        dataset = read_source(path)
        identity_digest(dataset)
        assert to_display(dataset, decode(dataset)).image.dtype == np.uint8
    except NotAnalyzed:
        pass


def damaged_source(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.getbasetemp() / "whole.dcm"
    if not path.exists():
        dataset = phantom_dataset(1, rows=20, columns=20, modality="DX", photometric="MONOCHROME1")
        dataset.VOILUTSequence = lut(0, 12, list(range(64)))
        dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes()


# Real files


@pytest.mark.shared
def test_every_real_file_is_decoded_or_a_verdict(shared):
    outcomes = {}
    for path in sorted((shared / "dicom").glob("*.dcm")):
        try:
            dataset = read_source(path)
            stored = decode(dataset)
            display = to_display(dataset, stored)
            assert display.image.shape == stored.shape[:2]
            outcomes[path.stem] = "decoded"
        except NotAnalyzed as verdict:
            outcomes[path.stem] = verdict.reason
        else:
            assert len(identity_digest(dataset)) == 64
    for name, outcome in outcomes.items():
        if name.startswith(("broken", "seg", "sr", "rtplan")):
            assert outcome is Reason.UNDECODABLE, name
        elif "frame" in name:
            assert outcome is Reason.MULTI_FRAME, name
        elif name != "cr_chest_japanese_names_32px":
            assert outcome == "decoded", name


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "cr_chest_mono1_10bit_nopreamble",
        "cr_chest_pa_mono1_15bit_j2k",
        "rsna_cr_chest_ap_8bit_jpeg",
        "dai_normal_118",
        "ct_chest_scout_like_jpeg_lossless",
    ],
)
def test_real_chests_show_dark_lungs_in_a_bright_body(name, shared):
    dataset = read_source(shared / "dicom" / f"{name}.dcm")
    image = to_display(dataset, decode(dataset)).image
    rows, columns = image.shape
    band = image[int(rows * 0.3) : int(rows * 0.5)]
    middle = band[:, int(columns * 0.46) : int(columns * 0.54)].mean()
    right = band[:, int(columns * 0.22) : int(columns * 0.36)].mean()
    left = band[:, int(columns * 0.66) : int(columns * 0.78)].mean()
    assert right < middle - 15
    assert left < middle - 15
