"""Does self-supervised pretraining help? The same member with it and without it.

Both arms have the same seed and the same minutes of pneumonia pretraining and fine-tuning; one
starts from runs/selfsupervise-NAME, the other from nothing. Both are asked about the validation
split, never about test.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from covidnet_node.training.calibrate import outputs
from covidnet_node.training.crops import load_crops
from covidnet_node.training.dataset import Folder, Split, for_classes
from covidnet_node.training.recipe import Recipe
from covidnet_node.training.scores import FILE as SCORES
from covidnet_node.training.scores import Score, read_scores, scores_of, write_scores
from covidnet_node.training.trial import (
    Effort,
    Setup,
    alone,
    efforts,
    link,
    open_trial,
    setup_of,
    train_trial,
)

FOLDER = "ablation"


@dataclass(frozen=True, slots=True)
class AblationOrder:
    """What was asked for."""

    member: str
    minutes: float
    """Of both arms together."""
    command: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the two, and what it says of the validation films."""

    setup: Setup
    efforts: tuple[Effort, ...]
    """The self-supervision that it started from included."""
    scores: tuple[Score, ...]


def ablate(data: Folder, runs: Path, order: AblationOrder, recipe: Recipe) -> tuple[Arm, Arm]:
    """The arm with self-supervision and the one without, into runs/ablation; resumes.

    Raises BadConfig without runs/selfsupervise-NAME, or if a folder holds another trial.
    """
    taught = runs / f"selfsupervise-{order.member}"
    first, second = (
        setup_of(data, runs, order.member, recipe, (), self_supervised=given)
        for given in (True, False)
    )
    open_trial(runs, runs / FOLDER / "with", first)
    link(taught, runs / FOLDER / "with", "run `covidnet-node train selfsupervise` first")
    open_trial(runs, runs / FOLDER / "without", second)
    return (
        _arm(data, runs, "with", first, order, recipe),
        _arm(data, runs, "without", second, order, recipe),
    )


def _arm(
    data: Folder, runs: Path, name: str, setup: Setup, order: AblationOrder, recipe: Recipe
) -> Arm:
    folder = runs / FOLDER / name
    if not (folder / SCORES).exists():
        Console().rule(f"{FOLDER}: {name} self-supervision")
        train_trial(data, folder, order.member, order.minutes / 2, recipe)
        films = for_classes(data, Split.VAL)
        told = outputs(films, load_crops(runs), folder, alone(recipe, order.member))
        write_scores(scores_of(told, 1.0), folder / SCORES)
    return Arm(setup, efforts(folder, order.member), read_scores(folder / SCORES))
