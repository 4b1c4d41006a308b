"""Cut the crops once more with their outside left in and the lungs blacked out.

crops.npz holds no outside, so every film is segmented again with the runs folder's segmenter, and
blanked exactly as evaluation/shortcuts.py blanks it for the shipped members: outline, box and gray
scale of the intact film, the grown outline black.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from covidnet_node.imaging.prepare import crop_lungs, mask_to_source, segmenter_input
from covidnet_node.models.nets import build_segmenter, to_device
from covidnet_node.models.segment import judge_lungs, lung_probabilities
from covidnet_node.training.dataset import Film, Folder
from covidnet_node.training.evaluation.shortcuts import blanked
from covidnet_node.training.probing.sights import SIDE, Shown, Sight, shrink
from covidnet_node.training.recipe import Recipe


def show_black_lungs(
    data: Folder, films: Sequence[Film], runs: Path, recipe: Recipe, place: torch.device
) -> Shown:
    """The films whose lungs are plausible; kept by source in runs/probes, so that it resumes."""
    folder = runs / "probes"
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, NDArray[np.uint8]] = {}
    for source in sorted({film.source for film in films}):
        path = folder / f"black-lungs-{source}.npz"
        if not path.exists():
            _cut([film for film in films if film.source == source], data, runs, recipe, path)
        with np.load(path) as saved:
            kept.update(zip(saved["ids"].tolist(), saved["black"], strict=True))
    found = tuple(film for film in films if _key(film) in kept)
    stack = np.stack([kept[_key(film)] for film in found])
    images = torch.from_numpy(stack).unsqueeze(1).to(place)
    return Shown(found, Sight.BLACK, images, torch.full_like(images, 255))


def _cut(films: Sequence[Film], data: Folder, runs: Path, recipe: Recipe, path: Path) -> None:
    segmenter = _load_segmenter(runs, recipe)
    ids: list[str] = []
    stack: list[NDArray[np.uint8]] = []
    for film in track(films, f"black lungs of {films[0].source}"):
        black = _black(data.display(film), segmenter, recipe)
        if black is not None:
            ids.append(_key(film))
            stack.append(black)
    squares = np.stack(stack) if stack else np.zeros((0, SIDE, SIDE), np.uint8)
    fresh = path.with_suffix(".new.npz")
    np.savez(fresh, ids=np.array(ids, dtype=str), black=squares)
    fresh.replace(path)


def _black(
    display: NDArray[np.uint8], segmenter: nn.Module, recipe: Recipe
) -> NDArray[np.uint8] | None:
    """(SIDE, SIDE), or None where the lungs are implausible."""
    square = segmenter_input(display, recipe.segmenter.side)
    probabilities = lung_probabilities(segmenter, square[None], torch.device("cpu"))[0]
    found = judge_lungs(probabilities, recipe.lungs)
    if not found.plausible:
        return None
    lungs = mask_to_source(found.mask, display.shape)
    black, _, _ = blanked(display, lungs, crop_lungs(display, lungs, recipe.crop), recipe.crop)
    levels = torch.from_numpy(np.round(black * 255).astype(np.uint8))
    small: NDArray[np.uint8] = shrink(levels[None, None])[0, 0].numpy()
    return small


def _load_segmenter(runs: Path, recipe: Recipe) -> nn.Module:
    """On the CPU, as cut_crops has it: the same films are plausible."""
    network = build_segmenter(recipe.segmenter.architecture)
    network.load_state_dict(torch.load(runs / "segmenter" / "best.pt", weights_only=True))
    return to_device(network, torch.device("cpu"))


def _key(film: Film) -> str:
    return f"{film.source}/{film.id}"
