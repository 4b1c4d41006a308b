"""Train one member aside, in a folder of its own: to answer a question, never to be shipped.

A trial shares the lung crops of its runs folder. One that was stopped goes on, but only as what
it was begun as.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from covidnet_node.errors import BadConfig
from covidnet_node.training.begun import CROPS, NO_CROPS, digest_of_file, digest_of_numbers, hold_to
from covidnet_node.training.classifier import pretrain_member, train_member
from covidnet_node.training.dataset import Folder
from covidnet_node.training.recipe import Recipe

FILE = "trial.json"
PRETRAIN_SHARE = 0.2
"""Of a trial's minutes; fine-tuning has the rest."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a trial is."""

    member: str
    architecture: str
    side: int
    """Pixels of the lung crops."""
    seed: int
    data_sha256: str
    left_out: tuple[str, ...]
    """`source` or `source:label`; empty if every source is learned from."""
    self_supervised: bool
    crops_sha256: str
    """Of the runs folder's lung crops."""
    stages_sha256: str
    """Of the recipe's numbers for self-supervision, pretraining and fine-tuning."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one stage was trained."""

    stage: str
    epochs: int
    minutes: float


def setup_of(
    data: Folder,
    runs: Path,
    name: str,
    recipe: Recipe,
    left_out: tuple[str, ...],
    *,
    self_supervised: bool,
) -> Setup:
    """The setup that a recipe means; raises BadConfig for an unknown member, or without crops."""
    stages = (recipe.selfsupervise, recipe.pretrain, recipe.classifier, recipe.crop)
    return Setup(
        member=name,
        architecture=recipe.member(name).architecture,
        side=recipe.crop.side,
        seed=recipe.seed,
        data_sha256=data.sha256,
        left_out=left_out,
        self_supervised=self_supervised,
        crops_sha256=digest_of_file(runs / CROPS),
        stages_sha256=digest_of_numbers(*(astuple(each) for each in stages)),
    )


def open_trial(runs: Path, folder: Path, setup: Setup) -> None:
    """Make the trial's folder, or check that the one there is the same trial; raises BadConfig."""
    folder.mkdir(parents=True, exist_ok=True)
    link(runs / CROPS, folder, NO_CROPS)
    hold_to(folder / FILE, setup)


def train_trial(data: Folder, folder: Path, name: str, minutes: float, recipe: Recipe) -> None:
    """Pneumonia first, then the three classes, into folder/pretrain-NAME and folder/member-NAME."""
    pretrain_member(data, folder, name, PRETRAIN_SHARE * minutes, recipe)
    train_member(data, folder, name, (1 - PRETRAIN_SHARE) * minutes, recipe)


def efforts(folder: Path, name: str) -> tuple[Effort, ...]:
    """What the learning curves of the member's stages tell, in their order."""
    return tuple(_efforts(folder, name))


def told(stages: tuple[Effort, ...]) -> str:
    """Efforts in words, for tables."""
    return ", ".join(f"{each.stage} {each.epochs} ({each.minutes:.1f} min)" for each in stages)


def alone(recipe: Recipe, name: str) -> Recipe:
    """The recipe with one member only."""
    return replace(recipe, members=(recipe.member(name),))


def link(there: Path, folder: Path, remedy: str) -> None:
    """Use a file or folder of the runs folder in a trial's; raises BadConfig if it is not there."""
    if not there.exists():
        raise BadConfig(str(there), "runs", f"is missing: {remedy}")
    here = folder / there.name
    if not here.exists():
        here.unlink(missing_ok=True)
        here.symlink_to(os.path.relpath(there, folder))


def _efforts(folder: Path, name: str) -> Iterator[Effort]:
    for stage in ("selfsupervise", "pretrain", "member"):
        curve = folder / f"{stage}-{name}" / "curve.csv"
        if curve.exists():
            with curve.open(newline="", encoding="utf-8") as file:
                last = list(csv.DictReader(file))[-1]
            yield Effort(stage, int(last["epoch"]), float(last["seconds"]) / 60)
