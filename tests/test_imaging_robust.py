"""Imaging: whatever comes is decoded and shown, or refused with a verdict."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless

from covidnet_node.case import Reason
from covidnet_node.errors import NotAnalyzed
from covidnet_node.imaging.decode import decode, read_source
from covidnet_node.imaging.digest import identity_digest, pixel_digest
from covidnet_node.imaging.display import to_display
from covidnet_node.phantom.film import phantom_dataset


def lut(first: int, bits: int, entries: list[int]) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return Sequence([item])


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


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
@example(values=[0.0] * 5 + [2.2e-311])
@example(values=[0.0] * 5 + [1e-300])
@example(values=[-1.7e308, 1.7e308, 0.0, 1.0, 5e-324, -5e-324])
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


@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", [2, 12, 13])
def test_a_tile_part_that_ends_before_its_data_is_no_way_back(length: int) -> None:
    """Psot (ISO/IEC 15444-1 A.4.2) pointing at what has been read already was read for ever."""
    drawn = BytesIO()
    Image.fromarray(np.full((128, 128), 7, "u1")).save(drawn, "JPEG2000", no_jp2=True)
    stream = bytearray(drawn.getvalue())
    struct.pack_into(">L", stream, stream.find(b"\xff\x90") + 6, length)
    dataset = phantom_dataset(1, rows=128, columns=128)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = encapsulate([bytes(stream)])
    with pytest.raises(NotAnalyzed) as verdict:
        decode(dataset)
    assert verdict.value.reason is Reason.UNDECODABLE
