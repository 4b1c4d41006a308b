"""Cut the crops once more with their outside left in and the lungs blacked out.

crops.npz holds no outside, so every film is segmented again with the runs folder's segmenter, and
blanked exactly as evaluation/shortcuts.py blanks it for the shipped members: outline, box and gray
scale of the intact film, the grown outline black. On the lungs' gray scale most of the outside is
clipped to white, which hides much of it from a probe; so it is kept a second time on its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from covidnet_node.imaging.prepare import Crop, crop_lungs, resize
from covidnet_node.training.crops import made_of
from covidnet_node.training.dataset import Film, Folder
from covidnet_node.training.evaluation.shortcuts import blanked
from covidnet_node.training.loop import training_device
from covidnet_node.training.lungs import find_lungs, load_lung_limits, load_segmenter
from covidnet_node.training.probing.sights import SIDE, Shown, Sight, shrink
from covidnet_node.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class _Cut:
    """One source's films without their lungs."""

    ids: tuple[str, ...]
    black: NDArray[np.uint8]
    """(n, SIDE, SIDE): on the gray scale of the lungs."""
    contrast: NDArray[np.uint8]
    """(n, SIDE, SIDE): on that of the outside."""


def show_black_lungs(
    data: Folder, films: Sequence[Film], runs: Path, recipe: Recipe, sight: Sight
) -> Shown:
    """The films whose lungs are plausible; kept by source in runs/probes, so that it resumes.

    What was cut with another segmenter, or prepared in another way, is cut anew.
    """
    folder, place = runs / "probes", training_device()
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, NDArray[np.uint8]] = {}
    digest = made_of(data, runs, recipe)
    for source in sorted({film.source for film in films}):
        path = folder / f"black-lungs-{source}-{digest[:12]}.npz"
        if not path.exists():
            _cut([film for film in films if film.source == source], data, runs, recipe, path)
        cut = _load(path)
        squares = cut.contrast if sight is Sight.CONTRAST else cut.black
        kept.update(zip(cut.ids, squares, strict=True))
    found = tuple(film for film in films if film.key in kept)
    stack = np.stack([kept[film.key] for film in found])
    images = torch.from_numpy(stack).unsqueeze(1).to(place)
    return Shown(found, sight, images, torch.full_like(images, 255))


def _cut(films: Sequence[Film], data: Folder, runs: Path, recipe: Recipe, path: Path) -> None:
    segmenter, limits = load_segmenter(runs, recipe), load_lung_limits(runs)
    ids: list[str] = []
    stack: list[NDArray[np.uint8]] = [np.zeros((0, 2, SIDE, SIDE), np.uint8)]
    for film in track(films, f"black lungs of {films[0].source}"):
        display = data.display(film)
        lungs = find_lungs(segmenter, display, recipe.segmenter.side, limits)
        if lungs is not None:
            ids.append(film.key)
            stack.append(_both(display, lungs, recipe))
    squares = np.concatenate(stack)
    fresh = path.with_suffix(".new.npz")
    np.savez(fresh, ids=np.array(ids, dtype=str), black=squares[:, 0], contrast=squares[:, 1])
    fresh.replace(path)


def _load(path: Path) -> _Cut:
    with np.load(path) as saved:
        return _Cut(tuple(map(str, saved["ids"])), saved["black"], saved["contrast"])


def _both(
    display: NDArray[np.uint8], lungs: NDArray[np.bool_], recipe: Recipe
) -> NDArray[np.uint8]:
    """(1, 2, SIDE, SIDE): both gray scales."""
    crop = crop_lungs(display, lungs, recipe.crop)
    black, _, _ = blanked(display, lungs, crop, recipe.crop)
    levels = np.stack([black, outside_in_contrast(display, crop)])
    stack = torch.from_numpy(np.round(levels * 255).astype(np.uint8))
    small: NDArray[np.uint8] = shrink(stack[:, None]).transpose(0, 1).numpy()
    return small


def outside_in_contrast(display: NDArray[np.uint8], crop: Crop) -> NDArray[np.float32]:
    """The crop's box, (side, side), its outside stretched to 0 to 1 and its inside black."""
    box = crop.box
    part = display[box.top : box.bottom, box.left : box.right].astype(np.float32)
    if crop.inverted:
        part = 255.0 - part
    gray = resize(part, crop.inside.shape)
    outside = gray[~crop.inside] if not crop.inside.all() else gray
    low, high = np.percentile(outside, (1.0, 99.0))
    stretched = np.clip((gray - low) / max(high - low, 1.0), 0.0, 1.0)
    return np.where(crop.inside, 0.0, stretched).astype(np.float32)
