"""Cut the lungs out of every film once, with the trained segmenter, as the node would.

Films whose lungs are implausible are left out: the node would not classify them either.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from covidnet_node.imaging.prepare import crop_lungs, segmenter_input
from covidnet_node.training.begun import (
    CROPS,
    PREPARATION,
    digest_of_file,
    digest_of_numbers,
)
from covidnet_node.training.dataset import Film, Folder, Split
from covidnet_node.training.lungs import find_lungs, load_lung_limits, load_segmenter
from covidnet_node.training.recipe import Recipe

MADE_OF = "crops-made-of.txt"
STACKS = ("lungs", "inside", "outline", "whole")


@dataclass(frozen=True, slots=True)
class Crops:
    """All prepared films, in the order of `ids`."""

    ids: tuple[str, ...]
    """`source/id`"""
    lungs: NDArray[np.uint8]
    """(n, side, side): lung crops, everything outside at mid-gray."""
    inside: NDArray[np.bool_]
    """(n, side, side): what is not outside: the outline, grown."""
    outline: NDArray[np.bool_]
    """(n, side, side): the lungs themselves."""
    whole: NDArray[np.uint8]
    """(n, side, side): the uncropped films."""


@dataclass(frozen=True, slots=True)
class Squares:
    """Some of them as a member learns from them."""

    films: tuple[Film, ...]
    images: Tensor
    """(n, 1, side, side) uint8"""
    masks: Tensor
    """(n, 2, side, side) uint8, 0 or 255: what may be looked at, and what is lung."""


def cut_crops(data: Folder, runs: Path, recipe: Recipe) -> Crops:
    """Segment and crop every frontal film into runs/crops.npz, unless that is what is there.

    It is not done again where nothing has changed: another device would change single pixels, and
    the stages after it would take the crops for others.
    """
    torch.set_num_threads(recipe.threads)
    source = made_of(data, runs, recipe)
    note = runs / MADE_OF
    if (runs / CROPS).exists() and note.exists() and note.read_text() == source:
        return load_crops(runs)
    network, limits = load_segmenter(runs, recipe), load_lung_limits(runs)
    side = recipe.crop.side
    ids: list[str] = []
    stacks: dict[str, list[NDArray[Any]]] = {name: [] for name in STACKS}
    for film in track([f for f in data.films if f.split is not Split.NONE], "crops"):
        display = data.display(film)
        lungs = find_lungs(network, display, recipe.segmenter.side, limits)
        if lungs is None:
            continue
        crop = crop_lungs(display, lungs, recipe.crop)
        ids.append(film.key)
        stacks["lungs"].append(np.round(crop.image * 255).astype(np.uint8))
        stacks["inside"].append(crop.inside)
        stacks["outline"].append(crop.lungs)
        whole = segmenter_input(display, side).image
        stacks["whole"].append(np.round(whole * 255).astype(np.uint8))
    crops = Crops(tuple(ids), **{name: np.stack(stack) for name, stack in stacks.items()})
    note.unlink(missing_ok=True)
    fresh = runs / f"new-{CROPS}"
    np.savez(fresh, ids=np.array(ids), **{name: getattr(crops, name) for name in STACKS})
    fresh.replace(runs / CROPS)
    note.write_text(source)
    return crops


def load_crops(runs: Path) -> Crops:
    """Read what cut_crops wrote."""
    with np.load(runs / CROPS) as saved:
        ids = tuple(str(name) for name in saved["ids"])
        return Crops(ids, **{name: saved[name] for name in STACKS})


def made_of(data: Folder, runs: Path, recipe: Recipe) -> str:
    """Digest of all that a film's outline and crop depend on."""
    network = digest_of_file(runs / "segmenter" / "best.pt")
    numbers = (PREPARATION, data.sha256, network, load_lung_limits(runs), recipe.crop)
    return digest_of_numbers(*numbers, recipe.segmenter.side)


def squares(films: tuple[Film, ...], crops: Crops, place: torch.device, *, whole: bool) -> Squares:
    """The films that have a plausible crop: uncropped, where all is inside, or the lung crops."""
    rows = {name: row for row, name in enumerate(crops.ids)}
    kept = tuple(film for film in films if film.key in rows)
    chosen = [rows[film.key] for film in kept]
    masks: NDArray[np.bool_] = np.stack([crops.inside[chosen], crops.outline[chosen]], axis=1)
    if whole:
        masks = np.ones_like(masks)
    pictures = (crops.whole if whole else crops.lungs)[chosen]
    return Squares(
        kept,
        torch.from_numpy(pictures).unsqueeze(1).to(place),
        torch.from_numpy(masks.astype(np.uint8) * 255).to(place),
    )


def prepared(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Saved crops as the networks take them: 0 to 1."""
    return np.divide(pictures, 255, dtype=np.float32)
