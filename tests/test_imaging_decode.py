"""Imaging: stored values out of every transfer syntax, whole, lying or cut short."""

import subprocess
from io import BytesIO
from pathlib import Path

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from covidnet_node.case import Reason
from covidnet_node.errors import NotAnalyzed, RetryLater
from covidnet_node.imaging.decode import decode, read_source
from covidnet_node.imaging.digest import identity_digest, pixel_digest
from covidnet_node.imaging.display import to_display
from covidnet_node.phantom.film import phantom_dataset
from tests.conftest import need_program

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


def saved(dataset: Dataset, folder: Path) -> Path:
    path = folder / "image.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


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


@pytest.mark.parametrize(
    "style",
    [{"precinct_size": (64, 64)}, {"precinct_size": (256, 256), "codeblock_size": (16, 16)},
     {"tile_size": (64, 64)}, {"tile_size": (64, 64), "precinct_size": (32, 32)},
     {"num_resolutions": 1, "precinct_size": (32, 32)}],
    ids=str,
)  # fmt: skip
def test_small_parts_in_a_sensible_number_are_read(style):
    """Precincts that halve with the resolution, as encoders choose them, end at a few pixels."""
    dataset = phantom_dataset(
        3, rows=200, columns=150, bits=8, transfer_syntax=uid.JPEG2000Lossless
    )
    expected = decode(dataset)
    stream = BytesIO()
    Image.fromarray(expected.astype(np.uint8)).save(stream, "JPEG2000", no_jp2=True, **style)
    dataset.PixelData = encapsulate([stream.getvalue()])
    assert np.array_equal(decode(dataset), expected)


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


def test_of_a_deflated_bomb_only_the_beginning_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("covidnet_node.imaging.decode.MAXIMUM_BYTES", 3000)
    syntax = uid.DeflatedExplicitVRLittleEndian
    path = saved(phantom_dataset(7, rows=64, columns=64, transfer_syntax=syntax), tmp_path)
    dataset = read_source(path)
    assert dataset.PatientName == "PHANTOM^NORMAL"
    with pytest.raises(NotAnalyzed, match="pixel data"):
        decode(dataset)


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


def test_a_file_that_is_gone_is_not_the_images_fault(tmp_path: Path) -> None:
    with pytest.raises(RetryLater):
        read_source(tmp_path / "absent.dcm")
