"""PNG and JPEG files as display images, for `analyze FILE` and training without DICOM."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from covidnet_node.case import Reason
from covidnet_node.errors import NotAnalyzed
from covidnet_node.imaging.decode import MAXIMUM_SAMPLES
from covidnet_node.imaging.header import quiet

_UNREADABLE = (
    # What Pillow raises on broken files; its decompression bomb errors are handled by size.
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    MemoryError,
    OverflowError,
)
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "F"})
"""Pillow's modes of more than 8 bits."""


def open_picture(path: Path) -> NDArray[np.uint8]:
    """Read a PNG or JPEG file as the gray image that a screen would show.

    (rows, columns), 0 black to 255 white; color by ITU-R BT.601 luma, transparency over black,
    16-bit gray scaled from 0 to 65535. Raises NotAnalyzed(UNDECODABLE), for a decompression
    bomb before it goes off.
    """
    try:
        with quiet(), Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height * len(image.getbands()) > MAXIMUM_SAMPLES:
                raise NotAnalyzed(Reason.UNDECODABLE, "the picture is larger than can be read")
            return _gray(image)
    except _UNREADABLE as error:
        raise NotAnalyzed(
            Reason.UNDECODABLE, f"not readable as PNG or JPEG ({type(error).__name__})"
        ) from error


def _gray(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in _DEEP:
        deep = np.asarray(image).astype(np.float64)
        return np.clip(deep * (255 / 65535) + 0.5, 0, 255).astype(np.uint8)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.array(image.convert("L"))
