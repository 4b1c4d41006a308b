"""Fit what frontal chest films look like to the segmenter: one class, learned from films alone.

No image that is anything else has a part in the fit or in its limit: training's films say what is
usual, validation's films how unusual a frontal film still may be. How many directions there are and
how films are varied was chosen among a dozen ways by what they let through and refused of
validation's outlined films as evaluation/strain.py changes them.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from covidnet_node.errors import BadConfig
from covidnet_node.imaging.prepare import segmenter_input
from covidnet_node.models.distance import Distance
from covidnet_node.models.nets import LungNet
from covidnet_node.models.segment import lungs_and_view
from covidnet_node.training import augment
from covidnet_node.training.calibrate import distance_tensors, fit_distance
from covidnet_node.training.dataset import Film, Folder, Split
from covidnet_node.training.loop import training_device
from covidnet_node.training.lungs import load_segmenter
from covidnet_node.training.recipe import Recipe

FILE = "view.safetensors"
FIFTHS = 5
_BATCH = 32


def fit_view(data: Folder, runs: Path, recipe: Recipe) -> Distance:
    """Fit on the trained segmenter of `runs`; leaves runs/view.safetensors.

    A fifth of training's films are seen covered, a fifth in dirty borders, a fifth moved and the
    others as negatives, for none of these is a reason to refuse a film; validation's are seen as
    they are. Raises BadConfig for fewer than five films of training.
    """
    torch.set_num_threads(recipe.threads)
    network, place = load_segmenter(runs, recipe), training_device()
    generator = Generator().manual_seed(recipe.seed)
    films = tuple(film for film in data.films if film.split is Split.TRAIN)
    chosen = torch.randperm(len(films), generator=generator)[: recipe.view.films].tolist()
    side = recipe.segmenter.side
    squares = _squares(data, tuple(films[index] for index in chosen), side)
    if len(squares) < FIFTHS:
        raise BadConfig("manifest.csv", "split train", f"needs {FIFTHS} frontal films or more")
    train = _views(network, vary(squares, generator), place)
    val = tuple(film for film in data.films if film.split is Split.VAL)
    judged = _views(network, _squares(data, val, side), place)
    one = torch.zeros(len(train), dtype=torch.long)
    distance = fit_distance(train, one, judged, recipe.view.directions)
    save_file(distance_tensors(distance), runs / FILE)
    return distance


def load_view(runs: Path) -> Distance:
    """Read what fit_view left."""
    return Distance(**load_file(runs / FILE))


def _squares(data: Folder, films: tuple[Film, ...], side: int) -> NDArray[np.float32]:
    return np.stack(
        [segmenter_input(data.display(film), side).image for film in track(films, "views")]
    )


def vary(squares: NDArray[np.float32], generator: Generator) -> NDArray[np.float32]:
    """A fifth covered, a fifth in borders, a fifth moved, the rest negatives, in this order.

    `squares` is (n, side, side), 0 to 1, n at least 5, and so is what is returned.
    """
    images = torch.from_numpy(squares).unsqueeze(1)
    covered, framed, moved, negative = images.tensor_split(
        [len(images) * fifths // FIFTHS for fifths in (1, 2, 3)]
    )
    varied = [
        augment.cover(covered, 0.6, generator),
        augment.border(framed, torch.zeros_like(framed), 1.0, generator)[0],
        augment.move(moved, 1.0, generator),
        1.0 - negative,
    ]
    together: NDArray[np.float32] = torch.cat(varied).squeeze(1).numpy()
    return together


def _views(network: LungNet, squares: NDArray[np.float32], place: torch.device) -> Tensor:
    starts = range(0, len(squares), _BATCH)
    return torch.cat(
        [lungs_and_view(network, squares[at : at + _BATCH], place)[1] for at in starts]
    )
