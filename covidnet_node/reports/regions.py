"""Where the heatmap peaks: at most three outlines, in the pixels of the source.

A region is what rises above half of the map's maximum inside the lungs; places outside are not
outlined, as they are not colored. No model is asked here, and nothing but numbers comes out.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covidnet_node.case import Analysis, Outcome
from covidnet_node.intended_use import UNLIKELY

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

PEAK_SHARE = 0.5
"""Of the maximum inside the lungs: what lies at or above it belongs to a region."""
MOST_REGIONS = 3
MOST_POINTS = 60

_LONGEST_SIDE = 512
"""Regions are found on a grid of at most this size; a heatmap holds no finer detail."""
_SMALLEST = 0.004
"""Share of the lungs' area below which a region is a speck."""
_SLIGHT = 0.1
"""Share of the map, as a part of the largest region's, below which a peak is no main one."""
_SPECK = 0.02
"""Share of the mask's area below which a piece of it is no lung."""
_TRIANGLE = 4
"""Points of the simplest closed outline, the first counted twice."""


class Side(StrEnum):
    """Half of the image, as it is stored: nothing is said of the patient."""

    LEFT = "left"
    RIGHT = "right"


class Zone(StrEnum):
    """Third of the lung's height, from the top of the image."""

    UPPER = "upper"
    MIDDLE = "middle"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Region:
    """One peak of the heatmap."""

    outline: Points
    """(points, 2) column and row; 0, 0 is the top left corner of the top left pixel (PS3.3
    C.18.6.1.2). The last point is the first."""
    share: float
    """Of the sum of the whole map, 0 to 1."""
    peak: float
    """Largest value of the map within, 0 to 1."""
    side: Side
    zone: Zone


@dataclass(frozen=True, slots=True)
class _Grid:
    """The map seen on every `step`-th pixel."""

    heat: NDArray[np.float64]
    lungs: Mask
    step: int
    shape: tuple[int, int]
    """Rows and columns of the source."""


def patient_side(side: Side, orientation: str) -> Side | None:
    r"""Tell which side of the patient lies on that side of the image, None where nobody says.

    `orientation` is Patient Orientation (0020,0020): in `L\F` the right of the image is the
    patient's left, and down is towards the feet. Of an image that is not upright nothing is told.
    """
    across, _, down = orientation.partition("\\")
    if not down.startswith("F") or not across.startswith(("L", "R")):
        return None
    right_of_image = Side.LEFT if across.startswith("L") else Side.RIGHT
    left_of_image = Side.RIGHT if across.startswith("L") else Side.LEFT
    return right_of_image if side is Side.RIGHT else left_of_image


def pointed_at(analysis: Analysis, rows: int | None, columns: int | None) -> tuple[Region, ...]:
    """Find the peaks worth pointing at, strongest first.

    None where the class explained is "normal" or unlikely, where nothing was concluded from the
    image, or where the map is not of the size of the image (`rows`, `columns` of the source).
    """
    explained = analysis.explanation
    if analysis.outcome is Outcome.NOT_ANALYZED or explained is None or analysis.lungs is None:
        return ()
    if explained.target == "normal" or analysis.probabilities is None:
        return ()
    sizes = {explained.heatmap.shape, analysis.lungs.shape, (rows, columns)}
    if len(sizes) > 1 or analysis.probabilities.of(explained.target) <= UNLIKELY:
        return ()
    return find_regions(explained.heatmap, analysis.lungs)


def find_regions(heatmap: NDArray[np.float32], lungs: Mask) -> tuple[Region, ...]:
    """Outline the map's main peaks inside the lungs, the largest share of the map first.

    Both (rows, columns) of one geometry; the map 0 to 1. Empty where the map or the lungs are.
    """
    grid = _look(heatmap, lungs)
    whole = float(grid.heat.sum())
    inside = np.where(grid.lungs, grid.heat, 0.0)
    highest = float(inside.max(initial=0.0))
    if highest <= 0:
        return ()
    labels, found = ndimage.label(inside >= PEAK_SHARE * highest)
    areas = ndimage.sum_labels(np.ones_like(inside), labels, np.arange(1, found + 1))
    shares = ndimage.sum_labels(inside, labels, np.arange(1, found + 1)) / whole
    main = (areas >= _SMALLEST * grid.lungs.sum()) & (shares >= _SLIGHT * shares.max())
    order = [number for number in np.argsort(-shares, kind="stable") if main[number]]
    return tuple(
        _region(grid, labels == number + 1, float(shares[number]))
        for number in order[:MOST_REGIONS]
    )


def outline_lungs(lungs: Mask) -> tuple[Points, ...]:
    """Outline each lung that is more than a speck, the larger first; points as in `Region`."""
    step = max(1, -(-max(lungs.shape, default=0) // _LONGEST_SIDE))
    cells = lungs[step // 2 :: step, step // 2 :: step]
    labels, found = ndimage.label(cells)
    areas = ndimage.sum_labels(cells, labels, np.arange(1, found + 1))
    order = [number for number in np.argsort(-areas, kind="stable")
             if areas[number] >= _SPECK * areas.sum()]  # fmt: skip
    grid = _Grid(cells.astype(np.float64), cells, step, (lungs.shape[0], lungs.shape[1]))
    return tuple(_outline(grid, labels == number + 1) for number in order)


def _look(heatmap: NDArray[np.float32], lungs: Mask) -> _Grid:
    step = max(1, -(-max(heatmap.shape, default=0) // _LONGEST_SIDE))
    # The middle of each cell stands for the cell.
    middle = (slice(step // 2, None, step), slice(step // 2, None, step))
    heat = np.nan_to_num(heatmap[middle].astype(np.float64)).clip(0, 1)
    return _Grid(heat, lungs[middle], step, (heatmap.shape[0], heatmap.shape[1]))


def _region(grid: _Grid, cells: Mask, share: float) -> Region:
    side, zone = _place(grid, cells)
    highest = float(grid.heat[cells].max())
    return Region(_outline(grid, cells), min(share, 1.0), highest, side, zone)


def _outline(grid: _Grid, cells: Mask) -> Points:
    corners = _simplify(_trace(ndimage.binary_fill_holes(cells))) * grid.step
    rows, columns = grid.shape
    return np.clip(corners[:, ::-1], 0, (columns, rows))


def _place(grid: _Grid, cells: Mask) -> tuple[Side, Zone]:
    """Say by the region's middle in which lung and which third of its height it lies."""
    row, column = (float(axis.mean()) for axis in np.nonzero(cells))
    border = _between(grid.lungs)
    side = Side.LEFT if column < border else Side.RIGHT
    columns = np.arange(grid.lungs.shape[1])
    half = grid.lungs & (columns < border if side is Side.LEFT else columns >= border)
    heights = np.nonzero((half if half.any() else grid.lungs).any(axis=1))[0]
    top, bottom = float(heights[0]), float(heights[-1]) + 1
    third = int(3 * (row - top) / (bottom - top))
    return side, tuple(Zone)[min(max(third, 0), 2)]


def _between(lungs: Mask) -> float:
    """Column between the two lungs; of the image where there are not two."""
    labels, found = ndimage.label(lungs)
    areas = ndimage.sum_labels(lungs, labels, np.arange(1, found + 1))
    largest = np.argsort(-areas, kind="stable")[:2]
    if len(largest) < 2 or areas[largest[1]] < 0.1 * areas[largest[0]]:
        return float(lungs.shape[1]) / 2
    left, right = (float(np.nonzero(labels == number + 1)[1].mean()) for number in largest)
    return (left + right) / 2


def _trace(cells: Mask) -> Points:
    """Walk round a region without holes on the corners of its cells: (points, 2) row, column.

    Each corner is left by exactly one edge, because the region is connected by cell sides and
    has no holes, so it cannot touch itself at a corner.
    """
    padded = np.pad(cells, 1)
    core = padded[1:-1, 1:-1]
    steps: dict[tuple[int, int], tuple[int, int]] = {}
    for neighbor, start, end in (
        (padded[:-2, 1:-1], (0, 0), (0, 1)),
        (padded[1:-1, 2:], (0, 1), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (1, 0)),
        (padded[1:-1, :-2], (1, 0), (0, 0)),
    ):
        for row, column in np.argwhere(core & ~neighbor).tolist():
            steps[(row + start[0], column + start[1])] = (row + end[0], column + end[1])
    first = min(steps)
    walk = [first]
    while (after := steps[walk[-1]]) != first:
        walk.append(after)
    return np.array([*walk, first], dtype=np.float64)


def _simplify(walk: Points) -> Points:
    """Drop points, the least telling first, until few enough are left; stays closed."""
    # Cut in two at the point farthest from the start: neither of the two can be lost.
    far = int(np.argmax(((walk - walk[0]) ** 2).sum(axis=1)))
    tolerance = 0.75
    while True:
        there, back = _thin(walk[: far + 1], tolerance), _thin(walk[far:], tolerance)
        thin = np.concatenate([there, back[1:]])
        if len(thin) < _TRIANGLE:
            return _box(walk)
        if len(thin) <= MOST_POINTS:
            return thin
        tolerance *= 1.4


def _box(walk: Points) -> Points:
    low, high = walk.min(axis=0), walk.max(axis=0)
    corners = [low, (low[0], high[1]), high, (high[0], low[1]), low]
    return np.array(corners, dtype=np.float64)


def _thin(line: Points, tolerance: float) -> Points:
    """Ramer, Douglas and Peucker: keep the points that a straight line would miss."""
    if len(line) < 3:
        return line
    chord = line[-1] - line[0]
    length = float(np.hypot(*chord))
    offset = line[1:-1] - line[0]
    away = np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0]) / max(length, 1e-9)
    worst = int(np.argmax(away))
    if away[worst] <= tolerance:
        return line[[0, -1]]
    head = _thin(line[: worst + 2], tolerance)
    return np.concatenate([head, _thin(line[worst + 1 :], tolerance)[1:]])
