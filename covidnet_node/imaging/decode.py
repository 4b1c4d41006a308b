"""From a file to stored pixel values, whatever the transfer syntax.

Never spends memory on a header's word alone, never returns half a picture, and never lets a
library's exception out: what cannot be read is `NotAnalyzed`. A decoder that crashes takes the
worker process with it, which the service survives.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from pydicom import Dataset, FileDataset, uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import data_element_offset_to_value
from pydicom.fileutil import read_undefined_length_value
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.tag import BaseTag, SequenceDelimiterTag

from covidnet_node.bounded_reading import read_elements
from covidnet_node.case import Reason
from covidnet_node.errors import NotAnalyzed, RetryLater
from covidnet_node.imaging.compressed import (
    OPTIONS,
    PLUGINS,
    Stored,
    decompress,
    silent_libraries,
    undecodable,
)
from covidnet_node.imaging.digest import IDENTITY_KEYWORDS
from covidnet_node.imaging.header import BROKEN_HEADER, integer, quiet, text

MAXIMUM_SAMPLES = 50_000_000
"""Rows x columns x samples; the largest radiographs have half of it."""
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

_DEFER = 64 * 1024
"""Values above this stay on disk. None is wanted but the pixels and lookup tables."""
_TABLES = frozenset({0x00283000, 0x00283010, *range(0x00281201, 0x00281205)})
"""Modality LUT and VOI LUT Sequence, and palettes (2 x 65536 bytes each)."""
_LONGEST_TABLE = 1024 * 1024
_PIECE = 1024 * 1024
_UNDEFINED = 0xFFFFFFFF
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and plain Pixel Data."""

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
_IDENTITY = ("SpecificCharacterSet", "Rows", "Columns", *IDENTITY_KEYWORDS)


def read_source(path: Path) -> Dataset:
    """Read a DICOM file's header and leave its pixels on disk until they are asked for.

    Files without preamble or file meta (ACR-NEMA style) are read when their first bytes look
    like a data set. The file must stay where it is while the data set is in use.
    Raises NotAnalyzed(UNDECODABLE), or RetryLater as `decode` does. PS3.10 section 7.
    """
    return _read_source(path, None)


def read_identity(path: Path) -> Dataset:
    """Read only of whom and what an image is, where its header is too large to be read whole.

    What the listener could read of a header costs no more here. Raises as `read_source`.
    """
    wanted = [tag for keyword in _IDENTITY if (tag := tag_for_keyword(keyword))]
    return _read_source(path, [BaseTag(tag) for tag in wanted])


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
        raise undecodable(f"the pixel data cannot be decoded ({type(error).__name__})") from error


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


def _read_source(path: Path, wanted: list[BaseTag | int] | None) -> Dataset:
    try:
        with _own_troubles(), quiet():
            dataset = _read(path, wanted)
            _name_the_syntax(dataset)
    except DECODING_FAILURES as error:
        raise undecodable(f"not readable as DICOM ({type(error).__name__})") from error
    return dataset


def _read(path: Path, wanted: list[BaseTag | int] | None) -> Dataset:
    with path.open("rb") as file:
        start = file.read(132)
        preamble = start[:128] if start[128:] == b"DICM" else None
        if preamble is None and not _looks_like_a_data_set(start):
            raise undecodable("neither a DICOM file nor a bare data set")
        file.seek(132 if preamble is not None else 0)
        meta = _file_meta(file)
        syntax = meta.get("TransferSyntaxUID")
        deflated = syntax == uid.DeflatedExplicitVRLittleEndian
        source = _inflate(file) if deflated else file
        implicit, little = _encoding(source, syntax)
        pixels = _Pixels()
        body = read_elements(
            source,
            implicit=implicit,
            little=little,
            stop=pixels.at,
            defer_size=_DEFER,
            wanted=wanted,
        )
        if (found := pixels.element(source.tell(), little=little)) is not None:
            body[found.tag] = found
    implicit, little = (bool(each) for each in body.original_encoding)
    origin = source if deflated else str(path)
    whole = FileDataset(origin, body, preamble, meta, implicit, little)
    whole.set_original_encoding(implicit, little, body.original_character_set)
    _leave_out_long_values(whole)
    return whole


class _Pixels:
    """Notes the pixel data that end the header, and leaves them where they are."""

    def __init__(self) -> None:
        self._found: tuple[BaseTag, str | None, int] | None = None

    def at(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Stop here? At the pixels, and at whatever comes behind their place."""
        if int(tag) in _PIXEL_TAGS:
            self._found = tag, vr, length
        return int(tag) in _PIXEL_TAGS or int(tag) > max(_PIXEL_TAGS)

    def element(self, start: int, *, little: bool) -> RawDataElement | None:
        """The pixels' element, which begins at `start`, to be read when it is asked for."""
        if self._found is None:
            return None
        tag, vr, length = self._found
        place = start + data_element_offset_to_value(vr is None, vr)
        value = b"" if length == 0 else None
        return RawDataElement(tag, vr, length, value, place, vr is None, little)


def _file_meta(file: BinaryIO) -> FileMetaDataset:
    """File meta (PS3.10 7.1), which ends where it says: a data set could hold more of group 2."""
    start = file.tell()
    end: int | None = None

    def behind(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tag.group != 2 or (end is not None and file.tell() > end)

    first = file.read(12)
    if first[:8] == b"\x02\0\0\0UL\x04\0":
        end = start + 12 + int(struct.unpack("<L", first[8:])[0])
    file.seek(start)
    return FileMetaDataset(
        read_elements(file, implicit=False, little=True, stop=behind, defer_size=_DEFER)
    )


def _encoding(source: BinaryIO, syntax: str | None) -> tuple[bool, bool]:
    """Implicit VR? Little endian? Without a transfer syntax as the first element looks."""
    if syntax is not None:
        implicit = syntax == uid.ImplicitVRLittleEndian
        return implicit, syntax != uid.ExplicitVRBigEndian
    start = source.tell()
    first = source.read(6)
    source.seek(start)
    explicit = first[4:].isalpha() and first[4:].isupper()
    return not explicit, not (explicit and first[:1] == b"\0")


def _leave_out_long_values(dataset: FileDataset) -> None:
    """Take out what is too long to be of use: read when touched, it would cost its length."""
    for tag in list(dataset.keys()):
        element: object = dataset.get_item(tag, keep_deferred=True)
        if not isinstance(element, RawDataElement) or element.value is not None:
            continue
        table = int(tag) in _TABLES and element.length <= _LONGEST_TABLE
        if element.length > 0 and not table and int(tag) not in _PIXEL_TAGS:
            del dataset[tag]


def _looks_like_a_data_set(start: bytes) -> bool:
    """Begins with a low element of group 0002 or 0008, in either byte order."""
    if len(start) < 16:
        return False
    pairs = struct.unpack_from("<HH", start), struct.unpack_from(">HH", start)
    return any(group in {2, 8} and element <= 0x0100 for group, element in pairs)


def _inflate(file: BinaryIO) -> BytesIO:
    """Inflate a data set (PS3.5 A.5) up to a limit, and as far as it is sound.

    What is cut off, or was never whole, is missed when the pixels are decoded.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    whole = BytesIO()
    with suppress(zlib.error):
        while whole.tell() < MAXIMUM_BYTES and not inflater.eof:
            piece = inflater.unconsumed_tail or file.read(_PIECE)
            if not piece:
                break
            whole.write(inflater.decompress(piece, min(_PIECE, MAXIMUM_BYTES - whole.tell())))
    whole.seek(0)
    return whole


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
    if syntax not in _NATIVE and syntax not in PLUGINS:
        raise undecodable("the transfer syntax is not one that is decoded here")
    keyword = _check_header(dataset)
    _load_pixels(dataset, keyword)
    if syntax in _NATIVE:
        values = _native(dataset)
        precision = None
    else:
        with silent_libraries():
            values, precision = decompress(dataset, syntax)
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
            raise undecodable("Number of Frames is not a number")
        if frames > 1:
            raise NotAnalyzed(Reason.MULTI_FRAME, f"{frames} frames")
    keyword = next((word for word in _PIXELS if word in dataset), None)
    if keyword is None:
        raise undecodable("there are no pixels")
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    samples = integer(dataset, "SamplesPerPixel") or 1
    if rows <= 0 or columns <= 0:
        raise undecodable("Rows or Columns is missing or zero")
    if rows * columns * samples > MAXIMUM_SAMPLES:
        raise undecodable(f"{columns} x {rows} x {samples} samples are more than can be read")
    _check_samples(dataset, keyword, samples)
    if _pixel_length(dataset, keyword) > MAXIMUM_BYTES:
        raise undecodable("the pixel data are larger than can be read")
    return keyword


def _pixel_length(dataset: Dataset, keyword: str) -> int:
    """Bytes of the pixel data; of undefined length, at most what the file has left."""
    raw: object = dataset.get_item(keyword, keep_deferred=True)
    if not isinstance(raw, RawDataElement) or raw.value is not None:
        return 0  # it is in memory already
    name = getattr(dataset, "filename", None)
    return Path(name).stat().st_size if raw.length == _UNDEFINED and name else raw.length


def _load_pixels(dataset: Dataset, keyword: str) -> None:
    """Fetch the pixels that `read_source` left in the file."""
    raw: object = dataset.get_item(keyword, keep_deferred=True)
    if not isinstance(raw, RawDataElement) or raw.value is not None:
        return
    with ExitStack() as stack:
        name = getattr(dataset, "filename", None)
        source = (
            cast(BinaryIO, getattr(dataset, "buffer", None))
            if name is None
            else stack.enter_context(Path(name).open("rb"))
        )
        source.seek(raw.value_tell)
        if raw.length == _UNDEFINED:
            value = read_undefined_length_value(source, raw.is_little_endian, SequenceDelimiterTag)
        else:
            value = source.read(raw.length)
    dataset[raw.tag] = raw._replace(value=value)


def _check_samples(dataset: Dataset, keyword: str, samples: int) -> None:
    """Photometric Interpretation and bits must be ones whose pixels have a known meaning."""
    photometric = text(dataset, "PhotometricInterpretation")
    known = _MONOCHROME | {"PALETTE COLOR"} if samples == 1 else _COLOR
    if samples not in {1, 3} or photometric not in known:
        raise undecodable(
            f"{samples} samples per pixel of a photometric interpretation unknown here"
        )
    if keyword != "PixelData":
        return
    allocated = integer(dataset, "BitsAllocated") or 0
    stored, high = integer(dataset, "BitsStored") or 0, integer(dataset, "HighBit")
    if allocated not in ({8, 16, 32} if samples == 1 else {8, 16}):
        raise undecodable(f"{allocated} bits allocated are not supported")
    if high is None or not 0 < stored <= high + 1 <= allocated:
        raise undecodable("Bits Allocated, Bits Stored and High Bit contradict each other")


def _native(dataset: Dataset) -> Stored:
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    values, _ = decoder.as_array(dataset, index=0, **OPTIONS)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


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
