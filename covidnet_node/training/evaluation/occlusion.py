"""Insertion and deletion: whether the heatmap points at what the answer hangs on.

Petsiuk et al. 2018 (RISE): pixels are taken away, hottest first, and the probability of the
explained class is followed; a good map makes it fall early (small deletion area). Then they are
brought back, hottest first; a good map makes it rise early (large insertion area). What is taken
away becomes mid-gray, as everything outside the lungs already is. A random map of the same grain
is followed beside it: an area means something only by comparison.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covidnet_node.imaging.prepare import Crop, resize
from covidnet_node.models.classify import classify
from covidnet_node.models.networks import Networks

STEPS = 10
GRAIN = 16
"""Pixels of the crop per cell of the networks' last maps, and so of the random map."""
GONE = 0.5


@dataclass(frozen=True, slots=True)
class Occlusion:
    """Areas under the curves of the explained class's probability, 0 to 1."""

    insertion: float
    deletion: float
    random_insertion: float
    random_deletion: float


def occlude(
    networks: Networks, crop: Crop, heat: NDArray[np.float32], target: str
) -> Occlusion | None:
    """Follow the probability of `target` over the lung crop; None if the map is empty.

    `heat` is (side, side), over the crop.
    """
    if not heat.any():
        return None
    maps = (heat, _random_map(crop))
    # Cheap: both ends are the same for all four curves.
    pictures = [crop.image, _blank(crop)]
    for values in maps:
        pictures += _between(crop, values)
    answers = classify(networks, pictures)
    said = np.array([answer.probabilities.of(target) for answer in answers])
    intact, blank = said[0], said[1]
    curves = said[2:].reshape(len(maps), 2, STEPS - 1)
    areas = curves.sum(axis=-1) / STEPS + (intact + blank) / (2 * STEPS)
    (deletion, insertion), (random_deletion, random_insertion) = areas.tolist()
    return Occlusion(insertion, deletion, random_insertion, random_deletion)


def _between(crop: Crop, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The steps between intact and blank: first deletions, then insertions."""
    inside = np.flatnonzero(crop.inside)
    order = inside[np.argsort(-values.ravel()[inside], kind="stable")]
    cuts = [order[: round(len(order) * step / STEPS)] for step in range(1, STEPS)]
    deleted, inserted = [], []
    for cut in cuts:
        without, only = crop.image.copy(), _blank(crop)
        without.ravel()[cut] = GONE
        only.ravel()[cut] = crop.image.ravel()[cut]
        deleted.append(without)
        inserted.append(only)
    return deleted + inserted


def _blank(crop: Crop) -> NDArray[np.float32]:
    return np.full_like(crop.image, GONE)


def _random_map(crop: Crop) -> NDArray[np.float32]:
    """The same for the same film."""
    digest = hashlib.sha256(crop.image.tobytes()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    cells = max(crop.image.shape[0] // GRAIN, 2)
    return resize(generator.random((cells, cells), dtype=np.float32), crop.inside.shape)
