"""Pixels in the transfer syntax that a destination wants: as they are, RLE or JPEG.

Every encoder is named, so that what is installed beside the node cannot change a byte. RLE and
JPEG Lossless give the picture back as it was; JPEG Baseline does not, and the image says so.
"""

from io import BytesIO
from typing import Literal, cast

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from covidnet_node.reports.identity import text

Picture = NDArray[np.uint8]
Wish = Literal["explicit_little_endian", "rle", "jpeg_lossless", "jpeg_baseline"]

SYNTAXES: dict[Wish, UID] = {
    "explicit_little_endian": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg_lossless": JPEGLosslessSV1,
    "jpeg_baseline": JPEGBaseline8Bit,
}

_QUALITY = 95
"""Of the JPEG library's 100: no ringing round the letters that a reader would see."""


def set_pixels(image: Dataset, picture: Picture, wish: Wish) -> None:
    """Set the Image Pixel module (PS3.3 C.7.6.3) of an RGB picture (rows, columns, 3).

    JPEG Baseline is stored as YBR_FULL_422 and recorded as one more lossy compression
    (PS3.3 C.7.6.1.1.5). The file meta names the transfer syntax; `results.encode` obeys it.
    """
    syntax = SYNTAXES[wish]
    rows, columns, samples = picture.shape
    image.SamplesPerPixel = samples
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = rows, columns
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelRepresentation = 0
    state_syntax(image, syntax)
    data = np.ascontiguousarray(picture).tobytes()
    if syntax == ExplicitVRLittleEndian:
        image.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
        return
    frame = _encode(picture, syntax)
    if syntax == JPEGBaseline8Bit:
        image.PhotometricInterpretation = "YBR_FULL_422"
        _admit_loss(image, len(data) / len(frame))
    element = DataElement("PixelData", "OB", encapsulate([frame]))
    element.is_undefined_length = True
    image.add(element)


def state_syntax(dataset: Dataset, syntax: UID) -> None:
    """Note in which transfer syntax a data set is to be written."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax


def stated_syntax(dataset: Dataset) -> UID:
    """Transfer syntax a data set is to be written in: Explicit VR Little Endian unless noted."""
    meta: Dataset | None = getattr(dataset, "file_meta", None)
    stated = "" if meta is None else text(meta, "TransferSyntaxUID")
    return UID(stated) if stated else ExplicitVRLittleEndian


def _encode(picture: Picture, syntax: UID) -> bytes:
    if syntax == RLELossless:
        return _rle(picture)
    return _jpeg(picture) if syntax == JPEGBaseline8Bit else _jpeg_lossless(picture)


def _rle(picture: Picture) -> bytes:
    rows, columns, samples = picture.shape
    return RLELosslessEncoder.encode(
        np.ascontiguousarray(picture).tobytes(),
        # Ten times as fast as pydicom's own, and its frames are what pydicom reads back.
        encoding_plugin="gdcm",
        rows=rows,
        columns=columns,
        samples_per_pixel=samples,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="RGB",
        planar_configuration=0,
        number_of_frames=1,
    )


def _jpeg(picture: Picture) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:2")
    return buffer.getvalue()


def _jpeg_lossless(picture: Picture) -> bytes:
    """Encode as process 14, selection value 1 (PS3.5 A.4.1), without a change of color space."""
    rows, columns, samples = picture.shape
    # Only a writer gives out an image of the kind that can be changed, while it is alive.
    writer = gdcm.ImageWriter()
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetPixelFormat(gdcm.PixelFormat(samples, 8, 8, 7, 0))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.RGB)
    )
    image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(np.ascontiguousarray(picture).tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError("gdcm did not encode the picture as JPEG Lossless")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    if fragments.GetNumberOfFragments() != 1:
        raise RuntimeError("gdcm did not encode the picture as one fragment")
    # gdcm's wrapper hands bytes out as text; this is how they come back unharmed.
    buffer = cast(str, fragments.GetFragment(0).GetByteValue().GetBuffer())
    return buffer.encode("utf-8", "surrogateescape")


def _admit_loss(image: Dataset, ratio: float) -> None:
    """Record this compression behind those that the source has been through already."""
    ratios = text(image, "LossyImageCompressionRatio").split("\\")
    methods = text(image, "LossyImageCompressionMethod").split("\\")
    known = all(ratios) and all(methods) and len(ratios) == len(methods)
    image.LossyImageCompression = "01"
    # Both lists go by position, so that an earlier step without its ratio cannot be listed.
    image.LossyImageCompressionRatio = [*(ratios if known else []), f"{ratio:.2f}"]
    image.LossyImageCompressionMethod = [*(methods if known else []), "ISO_10918_1"]
