"""From a display image to what the networks see, and back again.

The node and training share this page: what is trained on is what is shipped. It knows nothing
of networks and never sees a DICOM attribute.

Both networks look at squares. The sides of an image are scaled apart from each other to get
there, not padded: public X-ray sets (Shenzhen, Radiography, Kermany) come squashed to squares
already, so that proportions tell the source and not the patient; padding would draw bars that
tell it even better. Training varies the proportions instead. Bars that a film came with are cut
away first.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from covidnet_node.case import CropRecipe
from covidnet_node.imaging.borders import Box, within_borders

_CLEARLY = 40.0
"""Gray levels of 255: white lungs of the very ill are at most as bright as the mediastinum."""


@dataclass(frozen=True, slots=True)
class Square:
    """The whole film as the segmenter sees it, with the way back to the source image."""

    image: NDArray[np.float32]
    """(side, side), 0 to 1, larger is brighter on the display."""
    box: Box
    """The film without even borders."""
    source_shape: tuple[int, int]
    """Rows and columns of the source image."""

    def from_source(self, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """An outline of the source image as it lies on the square: (side, side), 0 to 255."""
        whole = scale_mask(mask, self.source_shape).astype(np.uint8) * 255
        cut: NDArray[np.uint8] = np.round(_cut(whole, self.box, len(self.image))).astype(np.uint8)
        return cut

    def to_source(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask found on the square, of any size, laid over the source image.

        (rows, columns) of the source; nothing in its borders.
        """
        box, placed = self.box, np.zeros(self.source_shape, np.bool_)
        within = (box.bottom - box.top, box.right - box.left)
        placed[box.top : box.bottom, box.left : box.right] = scale_mask(mask, within)
        return placed


@dataclass(frozen=True, slots=True)
class Crop:
    """The lungs alone, with the way back to the source image."""

    image: NDArray[np.float32]
    """(side, side), 0 to 1, larger is brighter on the display; 0.5 where the outside was."""
    lungs: NDArray[np.bool_]
    """(side, side): the outline that was given."""
    inside: NDArray[np.bool_]
    """(side, side): the dilated lungs, all that was kept."""
    box: Box
    source_shape: tuple[int, int]
    """Rows and columns of the source image."""
    inverted: bool
    """The film was shown as its negative; `image` is put right."""

    def to_source(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lay a map of the crop over the source image: (rows, columns), 0 outside the box.

        `values` is square, of any size, and covers the crop exactly.
        """
        placed = np.zeros(self.source_shape, np.float32)
        box = self.box
        placed[box.top : box.bottom, box.left : box.right] = resize(
            values, (box.bottom - box.top, box.right - box.left)
        )
        return placed


def resize(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Scale a float image to (rows, columns); averages when shrinking, linear when growing."""
    size = (shape[1], shape[0])
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32)


def segmenter_input(display: NDArray[np.uint8], side: int) -> Square:
    """The film, without even borders, as a square of `side` pixels, contrast stretched.

    The darkest and brightest percent are clipped, so that burnt-in letters do not set the scale.
    """
    box = within_borders(display)
    small = _cut(display, box, side)
    low, high = np.percentile(small, (1.0, 99.0))
    stretched = (small - np.float32(low)) / np.float32(max(high - low, 1.0))
    image: NDArray[np.float32] = np.clip(stretched, np.float32(0), np.float32(1))
    return Square(image, box, (display.shape[0], display.shape[1]))


def scale_mask(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask scaled to (rows, columns), its edge smooth."""
    if mask.shape == shape:
        return mask
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    smooth = picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(smooth) >= 128


def crop_lungs(display: NDArray[np.uint8], lungs: NDArray[np.bool_], recipe: CropRecipe) -> Crop:
    """Cut out the lungs, remove everything else and bring them to one gray scale.

    `lungs` has the shape of `display` and at least one pixel set. Outside the dilated mask
    every pixel is 0.5: text, markers, borders, arms and collimation cannot reach the
    classifiers. Three percentiles of the gray values in the lungs are pinned to 0, 0.5 and 1, which
    removes gain, offset and gamma of the scanner and its processing. A film shown as its negative
    is turned back first.
    """
    box = lung_box(lungs, recipe.margin)
    gray = _cut(display, box, recipe.side)
    inside = _cut(lungs.astype(np.uint8) * 255, box, recipe.side) >= 128
    if not inside.any():
        inside = np.ones_like(inside)
    outline = inside
    inverted = _looks_inverted(gray, inside)
    if inverted:
        gray = 255.0 - gray
    low, middle, high = np.percentile(
        gray[inside], (recipe.low_percentile, 50.0, recipe.high_percentile)
    )
    middle = min(max(middle, low + 1e-3), high + 1e-3)
    anchors = (low, middle, max(high, middle + 1e-3))
    scaled = np.interp(gray, anchors, (0.0, 0.5, 1.0)).astype(np.float32)
    inside = dilate(inside, recipe.dilation * recipe.side)
    scaled[~inside] = 0.5
    return Crop(scaled, outline, inside, box, (display.shape[0], display.shape[1]), inverted)


def lung_box(lungs: NDArray[np.bool_], margin: float) -> Box:
    """The box around the mask, grown by `margin` of its sides and kept within the image."""
    rows = np.flatnonzero(lungs.any(axis=1))
    columns = np.flatnonzero(lungs.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    down, across = round(margin * (bottom - top)), round(margin * (right - left))
    return Box(
        max(top - down, 0),
        max(left - across, 0),
        min(bottom + down, lungs.shape[0]),
        min(right + across, lungs.shape[1]),
    )


def dilate(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Grow a mask by `radius` pixels in every direction."""
    if radius <= 0 or not mask.any():
        return mask
    grown: NDArray[np.bool_] = ndimage.distance_transform_edt(~mask) <= radius
    return grown


def _looks_inverted(gray: NDArray[np.float32], inside: NDArray[np.bool_]) -> bool:
    """Whether lungs, which hold air, are clearly brighter than what lies around and between."""
    if inside.all():
        return False
    lungs, around = np.median(gray[inside]), np.median(gray[~inside])
    return bool(lungs - around > _CLEARLY)


def _cut(image: NDArray[np.uint8], box: Box, side: int) -> NDArray[np.float32]:
    picture = Image.fromarray(image)
    small = picture.resize(
        (side, side),
        Image.Resampling.BILINEAR,
        box=(box.left, box.top, box.right, box.bottom),
    )
    return np.asarray(small, np.float32)
