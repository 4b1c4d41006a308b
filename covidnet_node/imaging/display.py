"""The grayscale display pipeline: from stored values to what a monitor shows.

Modality LUT, then VOI LUT or window, then inversion, once and last (PS3.3 C.11, PS3.4 N.2).
The model's input and the heatmap's background both come from here, so that a reader sees what
the model saw. Broken display attributes are repaired and noted, never a reason to fail.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from covidnet_node.imaging.compressed import Stored
from covidnet_node.imaging.header import integer, items, real, reals, text
from covidnet_node.imaging.lut import read_lut

Values = NDArray[np.float64]

_LEVELS = 65536
"""Every 8- and 16-bit image has at most as many different values; others are binned to it."""
_ROBUST = (0.001, 0.999)
"""Shares of the pixels below and above which values may saturate when no window is usable."""
_LEAST_SHOWN = 0.05
"""A window that shows a smaller share of the pixels as something but black or white is broken."""
_LEAST_GRAYS = 13 / 255
"""A window that spreads the image over a smaller part of the gray scale is broken."""
_PAST = 1.0
"""How far beyond black and white a window's grays are kept, to tell what it cuts off."""
_UTMOST = 1e30
"""Larger magnitudes are no measurement and would overflow."""
_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as JPEG and Pillow have it."""


@dataclass(frozen=True, slots=True)
class Display:
    """An image as a monitor shows it."""

    image: NDArray[np.uint8]
    """(rows, columns), 0 black to 255 white."""
    notes: tuple[str, ...]
    """What was repaired or assumed, one sentence each, for the report."""


@dataclass(frozen=True, slots=True)
class _Levels:
    """The different values of an image, so that each step works on thousands, not millions."""

    values: Values
    counts: NDArray[np.int64]
    """How many pixels, padding left out, have each value."""
    index: NDArray[Any]
    """(rows, columns) into `values`."""
    padding: NDArray[np.bool_]
    """Which of `values` are padding."""


def to_display(dataset: Dataset, stored: Stored) -> Display:
    """Show stored values as a PACS would on its monitor.

    `stored` is (rows, columns), or (rows, columns, 3) RGB which becomes BT.601 luma. Takes the
    first VOI LUT, else the first window, else the image's own range; padding is black.
    PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (MONOCHROME1),
    C.11.6 (Presentation LUT Shape), C.7.5.1.1.2 (padding).
    """
    if stored.ndim == 3:
        return Display(_luma(dataset, stored), ())
    notes: list[str] = []
    levels = _levels(dataset, stored, notes)
    shown = levels.values[levels.counts > 0]
    if shown.size < 2:
        return Display(np.zeros(stored.shape, np.uint8), ("The image is a single constant value.",))
    grays = _voi(dataset, _modality(dataset, levels.values, notes), levels.counts, notes)
    if _inverted(dataset, notes):
        grays = 1.0 - grays
    table = np.clip(np.rint(grays * 255.0), 0, 255).astype(np.uint8)
    table[levels.padding] = 0
    return Display(table[levels.index], tuple(notes))


def _levels(dataset: Dataset, stored: Stored, notes: list[str]) -> _Levels:
    if np.issubdtype(stored.dtype, np.floating):
        numbers = np.nan_to_num(stored.astype(np.float64), posinf=0.0, neginf=0.0)
        stored = cast(Stored, np.clip(numbers, -_UTMOST, _UTMOST))
    low, high = stored.min(), stored.max()
    span = float(high) - float(low)
    if np.issubdtype(stored.dtype, np.integer) and span < _LEVELS:
        values: Values = np.arange(int(low), int(high) + 1, dtype=np.float64)
        # Wider than the dtype: the difference of two int16 need not fit one.
        index = np.subtract(stored, low, dtype=np.int32)
    else:
        values = np.linspace(float(low), float(high), _LEVELS, dtype=np.float64)
        # A span so small that its inverse overflows is no span.
        scale = (_LEVELS - 1) / span if span > _LEVELS * np.finfo(np.float64).tiny else 0.0
        index = np.rint((stored.astype(np.float64) - float(low)) * scale).astype(np.int32)
    counts = np.bincount(index.ravel(), minlength=len(values)).astype(np.int64)
    padding = _padding(dataset, values)
    if padding.any() and not counts[~padding].any():
        notes.append("Every pixel has the padding value; the padding value was not used.")
        padding = np.zeros_like(padding)
    return _Levels(values, np.where(padding, 0, counts), index, padding)


def _padding(dataset: Dataset, values: Values) -> NDArray[np.bool_]:
    """Which values are padding, from Pixel Padding Value and Range Limit."""
    first = integer(dataset, "PixelPaddingValue")
    if first is None:
        return np.zeros(values.shape, np.bool_)
    last = integer(dataset, "PixelPaddingRangeLimit")
    ends = sorted(_as_stored(dataset, end) for end in (first, first if last is None else last))
    return (values >= ends[0]) & (values <= ends[1])


def _as_stored(dataset: Dataset, value: int) -> int:
    """Give a padding value, whose US or SS is often wrong, the sign that the pixels have."""
    allocated = integer(dataset, "BitsAllocated") or 16
    value %= 1 << allocated
    signed = integer(dataset, "PixelRepresentation") == 1
    return value - (1 << allocated) if signed and value >> (allocated - 1) else value


def _modality(dataset: Dataset, values: Values, notes: list[str]) -> Values:
    sequence = items(dataset, "ModalityLUTSequence")
    if sequence:
        lut = read_lut(sequence[0])
        if lut is not None:
            return lut.apply(values)
        notes.append("The Modality LUT is unreadable and was not applied.")
    slope, intercept = real(dataset, "RescaleSlope"), real(dataset, "RescaleIntercept")
    if slope is None and intercept is None:
        return values
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    with np.errstate(all="ignore"):
        rescaled = values * slope + intercept
    usable = np.isfinite(rescaled).all() and np.abs(rescaled).max() < _UTMOST
    if not usable or np.ptp(rescaled) == 0:
        notes.append("Rescale Slope and Intercept are unusable and were not applied.")
        return values
    return rescaled


def _voi(dataset: Dataset, values: Values, counts: NDArray[np.int64], notes: list[str]) -> Values:
    """Values of interest on a scale of 0 to 1: VOI LUT, window, or the image's own range."""
    sequence = items(dataset, "VOILUTSequence")
    if sequence:
        grays = _voi_lut(sequence[0], values)
        if grays is not None and _shows(grays, counts):
            return grays
        notes.append("The VOI LUT is unusable and was not applied.")
    centers, widths = reals(dataset, "WindowCenter"), reals(dataset, "WindowWidth")
    if centers and widths:
        function = text(dataset, "VOILUTFunction") or "LINEAR"
        grays = _window(values, centers[0], widths[0], function)
        if grays is not None and _shows(grays, counts):
            return grays
        notes.append("The window does not show the image; the image's own range was used.")
    low, high = _robust_ends(values, counts)
    if low == high:
        notes.append("Every pixel has the same value after the Modality LUT.")
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _voi_lut(item: Dataset, values: Values) -> Values | None:
    lut = read_lut(item)
    if lut is None:
        return None
    full, peak = float((1 << lut.bits) - 1), float(lut.entries.max())
    if peak <= 0:
        return None
    # Writers state 16 bits over a table of fewer, or the reverse: the table is what they tested.
    return lut.apply(values) / (full if full / 2 < peak <= full else peak)


def _window(values: Values, center: float, width: float, function: str) -> Values | None:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, None where the window is not one."""
    least = 1.0 if function not in {"LINEAR_EXACT", "SIGMOID"} else np.finfo(np.float64).tiny
    if not (np.isfinite(center) and np.isfinite(width) and width >= least):
        return None
    with np.errstate(all="ignore"):
        if function == "SIGMOID":
            grays = 1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))
        elif function == "LINEAR_EXACT":
            grays = (values - center) / width + 0.5
        elif width == 1:
            grays = (values > center - 0.5).astype(np.float64)
        else:
            grays = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.clip(np.nan_to_num(grays), -_PAST, 1 + _PAST)


def _shows(grays: Values, counts: NDArray[np.int64]) -> bool:
    """Whether enough pixels are neither cut off black nor white, and spread over enough grays."""
    inside = (grays >= 0.0) & (grays <= 1.0)
    shown = counts[inside].sum()
    if shown < _LEAST_SHOWN * counts.sum():
        return False
    ends = _robust_ends(np.clip(grays, 0.0, 1.0), counts)
    return ends[1] - ends[0] >= _LEAST_GRAYS


def _robust_ends(values: Values, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Values below and above which only a thousandth of the pixels lies; else least and most."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(counts[order]) / counts.sum()
    low, high = (values[order[np.searchsorted(share, end)]] for end in _ROBUST)
    if low == high:
        present = values[counts > 0]
        low, high = present.min(), present.max()
    return float(low), float(high)


def _inverted(dataset: Dataset, notes: list[str]) -> bool:
    """MONOCHROME1 and INVERSE mean the same inversion, not two (PS3.3 C.11.6.1.2)."""
    first = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    shape = text(dataset, "PresentationLUTShape")
    if shape and (shape == "INVERSE") != first:
        notes.append("Presentation LUT Shape contradicts Photometric Interpretation.")
    return first or shape == "INVERSE"


def _luma(dataset: Dataset, stored: Stored) -> NDArray[np.uint8]:
    """BT.601 luma of RGB in its full range."""
    if stored.dtype == np.uint8:
        peak = 255.0
    elif text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        peak = 65535.0
    else:
        peak = float((1 << (integer(dataset, "BitsStored") or 16)) - 1)
    weights = np.array(_LUMA, np.float32) * np.float32(255.0 / peak)
    gray = stored.astype(np.float32) @ weights
    return np.clip(gray + 0.5, 0, 255).astype(np.uint8)
