"""Encapsulated pixels: the frame is compared with the header before a decoder sees it.

Which library decodes what is fixed here, so that what is installed beside the node cannot change
a pixel. Decoders spend memory on a frame's own word: one that contradicts the header, or asks for
more structure than it has bytes for, is refused unread.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from covidnet_node.case import Reason
from covidnet_node.errors import NotAnalyzed
from covidnet_node.imaging.codestream import frame_header, is_complete

Stored = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]

STANDARD_ERROR = 2

_OUR_RLE = "bounded"
PLUGINS = {
    # Named, so that what is installed beside the node cannot change a pixel.
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
    uid.RLELossless: _OUR_RLE,
}
_PROCESSES = {
    # Coding processes by their SOF marker; gdcm aborts the whole process on others, and
    # a progressive JPEG may ask for any number of passes.
    uid.JPEGBaseline8Bit: {0xC0, 0xC1},
    uid.JPEGExtended12Bit: {0xC0, 0xC1},
    uid.JPEGLossless: {0xC3},
    uid.JPEGLosslessSV1: {0xC3},
    uid.JPEGLSLossless: {0xF7},
    uid.JPEGLSNearLossless: {0xF7},
}
OPTIONS: dict[str, Any] = {"correct_unused_bits": False, "allow_excess_frames": False}
"""pydicom's own correction does not know High Bit; see `decode`."""

_ITEM = b"\xfe\xff\x00\xe0"
_MOST_FRAGMENTS = 10_000


@contextmanager
def silent_libraries() -> Iterator[None]:
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


def decompress(dataset: Dataset, syntax: uid.UID) -> tuple[Stored, int | None]:
    """Decoded values and the precision that the codestream itself states (None for RLE)."""
    whole = dataset.PixelData
    if whole.count(_ITEM) > _MOST_FRAGMENTS:
        raise undecodable("the compressed frame is in absurdly many fragments")
    stream = get_frame(whole, 0, number_of_frames=1)
    precision = None
    if syntax != uid.RLELossless:
        precision = _check_codestream(dataset, stream)
    if syntax == uid.JPEGExtended12Bit and precision != 8:
        return _extended(dataset, stream), precision
    decoder = get_decoder(syntax)
    if syntax == uid.RLELossless and _OUR_RLE not in decoder.available_plugins:
        decoder.add_plugin(_OUR_RLE, ("covidnet_node.imaging.rle", "decode_frame"))
    values, _ = decoder.as_array(dataset, index=0, decoding_plugin=PLUGINS[syntax], **OPTIONS)
    return np.ascontiguousarray(values), precision


def _check_codestream(dataset: Dataset, stream: bytes) -> int:
    """Compare the frame's own geometry with the header's; answer its bits per sample."""
    frame = frame_header(stream)
    if frame is None:
        raise undecodable("the compressed frame has no readable header")
    stated = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    if (frame.rows, frame.columns, frame.components) != stated:
        raise undecodable("the compressed frame and the header state different sizes")
    syntax = dataset.file_meta.TransferSyntaxUID
    if frame.process not in _PROCESSES.get(syntax, {frame.process}):
        raise undecodable("the compressed frame is not of the stated transfer syntax")
    extended = syntax == uid.JPEGExtended12Bit
    depths = {8, 12} if extended else range(1, dataset.BitsAllocated + 1)
    if frame.precision not in depths or frame.precision > dataset.BitsAllocated:
        raise undecodable("the compressed frame states impossible bits per sample")
    if not is_complete(stream):
        raise undecodable("the compressed frame is truncated")
    return frame.precision


def _extended(dataset: Dataset, stream: bytes) -> NDArray[np.uint16]:
    """12-bit JPEG Extended through gdcm itself, which pydicom's plugin for it declines."""
    rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    if samples != 1:
        raise undecodable("12-bit JPEG in color is not supported")
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


def undecodable(words: str) -> NotAnalyzed:
    """The verdict on pixels that cannot be read, and why."""
    return NotAnalyzed(Reason.UNDECODABLE, words)
