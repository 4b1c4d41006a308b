"""Compare an outline of the lungs with a reference, and what a folder's outlines say in all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, slots=True)
class Overlap:
    """How well one outline covers its reference."""

    dice: float
    iou: float
    boundary: float | None
    """Mean distance between the two edges, both ways, in percent of the film's diagonal (a folder
    of pictures has no millimeters). None if one of the outlines is empty."""
    boundary_95: float | None
    """The distance that 95 % of both edges keep to, in percent of the diagonal."""


def overlap(found: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Overlap:
    """Compare two outlines of one shape (rows, columns); two empty ones agree."""
    both = int((found & reference).sum())
    total = int(found.sum()) + int(reference.sum())
    if total == 0:
        return Overlap(1.0, 1.0, None, None)
    dice, iou = 2 * both / total, both / (total - both)
    if not found.any() or not reference.any():
        return Overlap(dice, iou, None, None)
    apart = _edge_distances(found, reference) * (100 / float(np.hypot(*found.shape)))
    return Overlap(dice, iou, float(apart.mean()), float(np.quantile(apart, 0.95)))


def _edge_distances(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixels from every edge pixel of each outline to the nearest edge pixel of the other."""
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (one, two)]
    ways = [
        ndimage.distance_transform_edt(~there)[here] for here, there in (edges, reversed(edges))
    ]
    joined: NDArray[np.float64] = np.concatenate(ways)
    return joined
