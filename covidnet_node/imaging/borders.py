"""Where in the image the film is: even borders are no part of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COARSE = 384
"""Pixels a side in which borders are looked for: their ends are found to a quarter of a percent."""
_CONSTANT = 1.5
"""Gray levels of 255 by which what is meant to be one gray may waver."""
_EVEN = 0.03
"""Of the film's contrast, the same where a border is noisy: compression, a scanner."""
_EVEN_SHARE = 0.9
"""Of a line, that must be even."""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels [top, bottom) and [left, right) of the source image."""

    top: int
    left: int
    bottom: int
    right: int


def within_borders(display: NDArray[np.uint8]) -> Box:
    """The box that is left when even borders are cut away from all four sides.

    Collimators, digitizers and screenshots leave such borders, black, white or gray, one within
    the other. A row or column is even if nine tenths of it keep to its median: letters in a border
    do not hold it up. How closely, the contrast of the film itself says, so that a pale film is not
    taken for its border's noise. What is burnt out white goes over into the film without an edge,
    and stays. Where less than a fifth of a side would be left, nothing is cut.
    """
    rows, columns = display.shape
    coarse = (min(columns, _COARSE), min(rows, _COARSE))
    small = np.asarray(Image.fromarray(display).resize(coarse, Image.Resampling.BOX), np.float32)
    height, width = small.shape
    before, left = Box(0, 0, 0, 0), _trim(small, Box(0, 0, height, width), _CONSTANT)
    while left != before and left.bottom > left.top and left.right > left.left:
        before, left = left, _trim(small, left, _wavering(small, left))
    down, across = rows / height, columns / width
    box = Box(
        round(left.top * down),
        round(left.left * across),
        round(left.bottom * down),
        round(left.right * across),
    )
    if 5 * (box.bottom - box.top) < rows or 5 * (box.right - box.left) < columns:
        return Box(0, 0, rows, columns)
    return box


def _wavering(small: NDArray[np.float32], box: Box) -> float:
    """How far an even line may waver: a share of the contrast in the middle of the box."""
    down, across = (box.bottom - box.top) // 4, (box.right - box.left) // 4
    middle = small[box.top + down : box.bottom - down, box.left + across : box.right - across]
    low, high = np.percentile(middle, (1.0, 99.0))
    return max(_EVEN * float(high - low), _CONSTANT)


def _trim(small: NDArray[np.float32], box: Box, level: float) -> Box:
    """Rows first, then columns; an empty box if all are even."""
    within = small[box.top : box.bottom, box.left : box.right]
    top, bottom = _uneven(within, level)
    left, right = _uneven(within[top:bottom].T, level)
    return Box(box.top + top, box.left + left, box.top + bottom, box.left + right)


def _uneven(lines: NDArray[np.float32], level: float) -> tuple[int, int]:
    """From the first to behind the last line that belongs to the film; (0, 0) if none does."""
    if not lines.size:
        return 0, 0
    middle = np.median(lines, axis=1)
    even = (np.abs(lines - middle[:, None]) <= level).mean(axis=1) >= _EVEN_SHARE
    if even.all():
        return 0, 0
    bright = middle > lines[int(np.argmin(even)) : len(even) - int(np.argmin(even[::-1]))].mean()
    first = _start(lines, even, bright, level)
    return first, len(lines) - _start(lines[::-1], even[::-1], bright[::-1], level)


def _start(
    lines: NDArray[np.float32], even: NDArray[np.bool_], bright: NDArray[np.bool_], level: float
) -> int:
    """The innermost line with only even ones before it, and behind an edge if these are bright.

    At an edge, half of a line differs clearly from the next but one before it.
    """
    for first in range(int(np.argmin(even)), 0, -1):
        beside = lines[min(first + 1, len(lines) - 1)]
        step = np.abs(beside - np.median(lines[first - 1])) > 3 * level
        if not bright[first - 1] or step.mean() >= 0.5:
            return first
    return 0
