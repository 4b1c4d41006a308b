"""From a file to stored pixel values, whatever the transfer syntax.

Never spends memory on a header's word alone, never returns half a picture, and never lets a
library's exception out: what cannot be read is `NotAnalyzed`. A decoder that crashes takes the
worker process with it, which the service survives.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut

from covidnet_node.case import Reason
from covidnet_node.errors import NotAnalyzed, RetryLater
from covidnet_node.imaging.codestream import frame_header, is_complete
from covidnet_node.imaging.header import BROKEN_HEADER, integer, quiet, text

Stored = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]

MAXIMUM_SAMPLES = 100_000_000
"""Rows x columns x samples; the largest radiographs have a fifth of it."""
MAXIMUM_BYTES = 4 * MAXIMUM_SAMPLES
"""Of encoded pixel data, and of a deflated data set once inflated."""

DECODING_FAILURES = (
    *BROKEN_HEADER,
    RuntimeError,
    SystemError,
    BufferError,
    struct.error,
    zlib.error,
)
"""What pydicom and its plugins raise on pixels they cannot decode: pydicom wraps its plugins'
exceptions in RuntimeError, gdcm's wrapper adds SystemError. A new plugin's own types go here."""

STANDARD_ERROR = 2

_DEFER = 256 * 1024
"""Values above this stay on disk: larger than any LUT (2 x 65536 bytes), smaller than pixels."""

_PLUGINS = {
    # Named, so that what is installed beside the node cannot change a pixel.
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
    uid.RLELossless: "pydicom",
}
_PROCESSES = {
    # Coding processes by their SOF marker; gdcm aborts the whole process on others.
    uid.JPEGExtended12Bit: {0xC0, 0xC1},
    uid.JPEGLossless: {0xC3},
    uid.JPEGLosslessSV1: {0xC3},
    uid.JPEGLSLossless: {0xF7},
    uid.JPEGLSNearLossless: {0xF7},
}
_OPTIONS: dict[str, Any] = {"correct_unused_bits": False, "allow_excess_frames": False}
"""pydicom's own correction does not know High Bit; see `_align`."""
_NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
_LOSSY = frozenset(
    {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000}
)
_MONOCHROME = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_source(path: Path) -> Dataset:
    """Read a DICOM file's header and leave its pixels on disk until they are asked for.

    Files without preamble or file meta (ACR-NEMA style) are read when their first bytes look
    like a data set. The file must stay where it is while the data set is in use.
    Raises NotAnalyzed(UNDECODABLE), or RetryLater as `decode` does. PS3.10 section 7.
    """
    try:
        with _own_troubles(), quiet():
            dataset = _read(path)
            _name_the_syntax(dataset)
    except DECODING_FAILURES as error:
        raise _undecodable(f"not readable as DICOM ({type(error).__name__})") from error
    return dataset


def decode(dataset: Dataset) -> Stored:
    """Stored values of a single-frame image, before any lookup table.

    (rows, columns) integers, or floating point for Float Pixel Data, for monochrome;
    (rows, columns, 3) uint8 or uint16 RGB for color, YBR and palette converted. Bits outside
    Bits Stored are masked, signs extended (PS3.5 section 8.1.1).
    Raises NotAnalyzed with UNDECODABLE, or MULTI_FRAME for several frames; RetryLater when it
    is not the image's fault: no memory, or a file that the system will not read.
    """
    try:
        with _own_troubles(), quiet():
            return _decode(dataset)
    except DECODING_FAILURES as error:
        raise _undecodable(f"the pixel data cannot be decoded ({type(error).__name__})") from error


@contextmanager
def _own_troubles() -> Iterator[None]:
    """Tell the machine's troubles from the image's: only the system's errors carry a number."""
    try:
        yield
    except MemoryError as error:
        raise RetryLater(Reason.OUT_OF_MEMORY, "no memory to decode the image") from error
    except OSError as error:
        if error.errno is None:
            raise
        raise RetryLater(Reason.CANNOT_READ, error.strerror or "") from error


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Keep what C libraries write to standard error out of the log, whose every line is JSON.

    libjpeg inside gdcm prints its warnings there and offers no other way to stop it.
    """
    try:
        kept = os.dup(STANDARD_ERROR)
    except OSError:  # it is closed: nothing can be written to it
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), STANDARD_ERROR)
        yield
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)


def _read(path: Path) -> Dataset:
    with path.open("rb") as file:
        start = file.read(132)
        has_preamble = start[128:] == b"DICM"
        if not has_preamble and not _looks_like_a_data_set(start):
            raise _undecodable("neither a DICOM file nor a bare data set")
        file.seek(132 if has_preamble else 0)
        meta = FileMetaDataset(
            read_dataset(file, False, True, stop_when=lambda tag, _vr, _size: tag >> 16 != 2)  # noqa: FBT003 - pydicom's own order: implicit, little endian
        )
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            return _inflate(file, meta, start[:128] if has_preamble else None)
    return dcmread(path, defer_size=_DEFER, force=not has_preamble)


def _looks_like_a_data_set(start: bytes) -> bool:
    """Begins with a low element of group 0002 or 0008, in either byte order."""
    if len(start) < 16:
        return False
    pairs = struct.unpack_from("<HH", start), struct.unpack_from(">HH", start)
    return any(group in {2, 8} and element <= 0x0100 for group, element in pairs)


def _inflate(file: BinaryIO, meta: FileMetaDataset, preamble: bytes | None) -> Dataset:
    """Read a deflated data set (PS3.5 A.5) without trusting how large it becomes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(file.read(MAXIMUM_BYTES), MAXIMUM_BYTES)
    if not inflater.eof:
        raise _undecodable("the deflated data set is truncated or absurdly large")
    body = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    return FileDataset(BytesIO(), body, preamble, meta, False, True)  # noqa: FBT003 - pydicom's own order: implicit, little endian


def _name_the_syntax(dataset: Dataset) -> None:
    """Write down the transfer syntax that a file without file meta was found to have."""
    if "TransferSyntaxUID" in dataset.file_meta:
        return
    found = {
        (True, True): uid.ImplicitVRLittleEndian,
        (False, True): uid.ExplicitVRLittleEndian,
        (False, False): uid.ExplicitVRBigEndian,
    }
    implicit, little = dataset.original_encoding
    if (syntax := found.get((bool(implicit), bool(little)))) is not None:
        dataset.file_meta.TransferSyntaxUID = syntax


def _decode(dataset: Dataset) -> Stored:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in _NATIVE and syntax not in _PLUGINS:
        raise _undecodable("the transfer syntax is not one that is decoded here")
    keyword = _check_header(dataset)
    if syntax in _NATIVE:
        values = _native(dataset)
        precision = None
    else:
        with _silent_libraries():
            values, precision = _compressed(dataset, syntax)
    if keyword != "PixelData":
        return values
    values = _align(values, dataset, precision, lossy=syntax in _LOSSY)
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        return np.asarray(apply_color_lut(values, dataset))
    return values


def _check_header(dataset: Dataset) -> str:
    """Refuse, before any pixel is read, what cannot be one image; answer the pixels' keyword."""
    if "NumberOfFrames" in dataset and dataset["NumberOfFrames"].value not in (None, ""):
        frames = integer(dataset, "NumberOfFrames")
        if frames is None or frames < 0:
            raise _undecodable("Number of Frames is not a number")
        if frames > 1:
            raise NotAnalyzed(Reason.MULTI_FRAME, f"{frames} frames")
    keyword = next((word for word in _PIXELS if word in dataset), None)
    if keyword is None:
        raise _undecodable("there are no pixels")
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    samples = integer(dataset, "SamplesPerPixel") or 1
    if rows <= 0 or columns <= 0:
        raise _undecodable("Rows or Columns is missing or zero")
    if rows * columns * samples > MAXIMUM_SAMPLES:
        raise _undecodable(f"{columns} x {rows} x {samples} samples are more than can be read")
    _check_samples(dataset, keyword, samples)
    raw = dataset.get_item(keyword)
    length = getattr(raw, "length", None)
    if length is not None and length != 0xFFFFFFFF and length > MAXIMUM_BYTES:
        raise _undecodable("the pixel data are larger than can be read")
    return keyword


def _check_samples(dataset: Dataset, keyword: str, samples: int) -> None:
    """Photometric Interpretation and bits must be ones whose pixels have a known meaning."""
    photometric = text(dataset, "PhotometricInterpretation")
    known = _MONOCHROME | {"PALETTE COLOR"} if samples == 1 else _COLOR
    if samples not in {1, 3} or photometric not in known:
        raise _undecodable(
            f"{samples} samples per pixel of a photometric interpretation unknown here"
        )
    if keyword != "PixelData":
        return
    allocated = integer(dataset, "BitsAllocated") or 0
    stored, high = integer(dataset, "BitsStored") or 0, integer(dataset, "HighBit")
    if allocated not in ({8, 16, 32} if samples == 1 else {8, 16}):
        raise _undecodable(f"{allocated} bits allocated are not supported")
    if high is None or not 0 < stored <= high + 1 <= allocated:
        raise _undecodable("Bits Allocated, Bits Stored and High Bit contradict each other")


def _native(dataset: Dataset) -> Stored:
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    values, _ = decoder.as_array(dataset, index=0, **_OPTIONS)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _compressed(dataset: Dataset, syntax: uid.UID) -> tuple[Stored, int | None]:
    """Decoded values and the precision that the codestream itself states (None for RLE)."""
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    precision = None
    if syntax != uid.RLELossless:
        precision = _check_codestream(dataset, stream)
    if syntax == uid.JPEGExtended12Bit and precision != 8:
        return _extended(dataset, stream), precision
    decoder = get_decoder(syntax)
    values, _ = decoder.as_array(dataset, index=0, decoding_plugin=_PLUGINS[syntax], **_OPTIONS)
    return np.ascontiguousarray(values), precision


def _check_codestream(dataset: Dataset, stream: bytes) -> int:
    """Compare the frame's own geometry with the header's; answer its bits per sample."""
    frame = frame_header(stream)
    if frame is None:
        raise _undecodable("the compressed frame has no readable header")
    stated = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    if (frame.rows, frame.columns, frame.components) != stated:
        raise _undecodable("the compressed frame and the header state different sizes")
    syntax = dataset.file_meta.TransferSyntaxUID
    if frame.process not in _PROCESSES.get(syntax, {frame.process}):
        raise _undecodable("the compressed frame is not of the stated transfer syntax")
    extended = syntax == uid.JPEGExtended12Bit
    depths = {8, 12} if extended else range(1, dataset.BitsAllocated + 1)
    if frame.precision not in depths or frame.precision > dataset.BitsAllocated:
        raise _undecodable("the compressed frame states impossible bits per sample")
    if not is_complete(stream):
        raise _undecodable("the compressed frame is truncated")
    return frame.precision


def _extended(dataset: Dataset, stream: bytes) -> NDArray[np.uint16]:
    """12-bit JPEG Extended through gdcm itself, which pydicom's plugin for it declines."""
    rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    if samples != 1:
        raise _undecodable("12-bit JPEG in color is not supported")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(str(uid.JPEGExtended12Bit))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    # gdcm hands bytes over as text with surrogates.
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, "<u2").reshape(rows, columns).astype(np.uint16)


def _align(values: Stored, dataset: Dataset, precision: int | None, *, lossy: bool) -> Stored:
    """Shift High Bit to its place, mask what lies above, extend the sign (PS3.5 8.1.1).

    `precision` is the codestream's own, None for native and RLE. A lossy codec may overshoot
    Bits Stored, and masking would wrap white round to black: such values are left alone.
    """
    bits, high, width = int(dataset.BitsStored), int(dataset.HighBit), values.itemsize * 8
    if precision is not None:
        if lossy and precision > bits:
            return values
        if precision <= bits:
            high = bits - 1
    if high >= width or bits == width:
        return values
    aligned: Stored = np.right_shift(np.left_shift(values, width - 1 - high), width - bits)
    return aligned


def _undecodable(words: str) -> NotAnalyzed:
    return NotAnalyzed(Reason.UNDECODABLE, words)
