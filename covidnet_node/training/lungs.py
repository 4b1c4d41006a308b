"""The trained segmenter on films, and the limits of what counts as two lungs that can be read.

The limits are set by validation's adults and by nothing else: films that are no frontal chest have
no part in it, nor have children, whom the node is not for.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rich.progress import track

from covidnet_node.imaging.prepare import Square, segmenter_input
from covidnet_node.models.manifest import LungLimits
from covidnet_node.models.nets import LungNet, build_segmenter, to_device
from covidnet_node.models.segment import Outline, judge_lungs, lung_probabilities, outline_lungs
from covidnet_node.training.dataset import CHILDREN, Folder, Split
from covidnet_node.training.loop import training_device
from covidnet_node.training.recipe import LungsRecipe, Recipe

FILE = "lungs.json"
_LIMITS = TypeAdapter(LungLimits)


def load_segmenter(runs: Path, recipe: Recipe) -> LungNet:
    """As train_segmenter left it, for inference on the first GPU if there is one."""
    network = build_segmenter(recipe.segmenter.architecture)
    network.load_state_dict(torch.load(runs / "segmenter" / "best.pt", weights_only=True))
    to_device(network, training_device())
    return network


def find_lungs(
    network: LungNet, display: NDArray[np.uint8], side: int, limits: LungLimits
) -> NDArray[np.bool_] | None:
    """The lungs in the film's geometry; None where the node would not classify it either."""
    square, both = _segment(network, display, side)
    found = judge_lungs(both, limits)
    return square.to_source(found.mask) if found.plausible else None


def fit_lung_limits(data: Folder, runs: Path, recipe: Recipe) -> LungLimits:
    """Outline validation's adults with the trained segmenter of `runs`; leaves runs/lungs.json."""
    torch.set_num_threads(recipe.threads)
    network, side = load_segmenter(runs, recipe), recipe.segmenter.side
    films = [film for film in data.films if film.split is Split.VAL and film.source != CHILDREN]
    outlines = []
    for film in track(films, "lung limits"):
        _, both = _segment(network, data.display(film), side)
        outlines.append(outline_lungs(both, recipe.lungs.threshold))
    limits = limits_of(outlines, recipe.lungs)
    (runs / FILE).write_bytes(_LIMITS.dump_json(limits, indent=1))
    return limits


def limits_of(outlines: list[Outline], recipe: LungsRecipe) -> LungLimits:
    """Each limit where the recipe's share of the outlines stays on the right side of it."""
    if recipe.let_through >= 1.0 or not outlines:
        return LungLimits(recipe.threshold, 0.0, 0.0, recipe.most_bridge, 1.0, 0.0)

    def least(values: list[float]) -> float:
        return round(float(np.quantile(values, 1.0 - recipe.let_through)), 4)

    return LungLimits(
        threshold=recipe.threshold,
        least_area=least([each.area for each in outlines]),
        least_lung=least([each.smaller_lung for each in outlines]),
        most_bridge=recipe.most_bridge,
        most_on_border=-least([-each.on_border for each in outlines]),
        least_trust=least([each.trust for each in outlines]),
    )


def load_lung_limits(runs: Path) -> LungLimits:
    """Read what fit_lung_limits left."""
    return _LIMITS.validate_json((runs / FILE).read_bytes())


def _segment(
    network: LungNet, display: NDArray[np.uint8], side: int
) -> tuple[Square, NDArray[np.float32]]:
    square = segmenter_input(display, side)
    return square, lung_probabilities(network, square.image[None], training_device())[0]
