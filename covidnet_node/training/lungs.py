"""The trained segmenter on films, and the limits of what counts as two lungs that can be read.

The limits are set by validation's frontal films of adults and by nothing else: films that are no
frontal chest have no part in it, nor has the children's set, for whom the node is not.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rich.progress import track

from covidnet_node.errors import BadConfig
from covidnet_node.imaging.prepare import Square, segmenter_input
from covidnet_node.models.manifest import LungLimits
from covidnet_node.models.nets import LungNet, build_segmenter, to_device
from covidnet_node.models.segment import Outline, judge_lungs, lung_probabilities, outline_lungs
from covidnet_node.training.begun import NO_CROPS
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
    """Outline validation's adults with the trained segmenter of `runs`; leaves runs/lungs.json.

    Raises BadConfig where there are none, or where the segmenter finds no lungs in too many.
    """
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


def limits_of(outlines: Sequence[Outline], recipe: LungsRecipe) -> LungLimits:
    """As tight as they can be for the recipe's share of the outlines to pass them all.

    Each limit refuses the same number of outlines, the next one is the limit. Raises BadConfig
    if there are no outlines, or if one without lungs would pass.
    """
    none = LungLimits(
        threshold=recipe.threshold,
        least_area=0.0,
        least_lung=0.0,
        most_bridge=recipe.most_bridge,
        most_on_border=1.0,
        least_trust=0.0,
    )
    if recipe.let_through >= 1.0:
        return none
    values = np.array([(o.area, o.smaller_lung, -o.on_border, o.trust) for o in outlines])
    if not len(values):
        raise BadConfig("validation", "films", "has no frontal films of adults to set limits by")
    ranked = np.sort(values, axis=0)
    allowed = (1.0 - recipe.let_through) * len(values)
    refused = next(
        count
        for count in range(int(allowed), -1, -1)
        if (values < ranked[count]).any(axis=1).sum() <= allowed
    )
    area, lung, border, trust = (float(value) for value in ranked[refused])
    if min(area, lung, trust) <= 0.0:
        remedy = "has too many films in which the segmenter finds no two lungs: train it for longer"
        raise BadConfig("validation", "films", remedy)
    return replace(
        none, least_area=area, least_lung=lung, most_on_border=-border, least_trust=trust
    )


def load_lung_limits(runs: Path) -> LungLimits:
    """Read what fit_lung_limits left; raises BadConfig where it left nothing."""
    try:
        return _LIMITS.validate_json((runs / FILE).read_bytes())
    except OSError as error:
        raise BadConfig(str(runs / FILE), "runs", f"cannot be read: {NO_CROPS}") from error


def _segment(
    network: LungNet, display: NDArray[np.uint8], side: int
) -> tuple[Square, NDArray[np.float32]]:
    square = segmenter_input(display, side)
    return square, lung_probabilities(network, square.image[None], training_device())[0]
