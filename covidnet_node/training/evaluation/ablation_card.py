"""The self-supervision ablation: paired figures, and its block of the model card."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from covidnet_node.intended_use import CLASSES
from covidnet_node.training.ablation import AblationOrder, Arm, ablate
from covidnet_node.training.dataset import Folder
from covidnet_node.training.evaluation.card import Block
from covidnet_node.training.evaluation.classes import ClassRankings
from covidnet_node.training.evaluation.intervals import (
    DRAWS,
    Estimate,
    Weights,
    estimates,
)
from covidnet_node.training.evaluation.tables import table
from covidnet_node.training.recipe import Recipe
from covidnet_node.training.scores import truths, vectors
from covidnet_node.training.trial import PRETRAIN_SHARE, Effort, Setup, told

ABLATION = Block("ablation", "covidnet-node train ablation --card")


@dataclass(frozen=True, slots=True)
class Areas:
    """Area of each class against the others, and their mean."""

    covid19: Estimate
    pneumonia: Estimate
    normal: Estimate
    macro: Estimate


@dataclass(frozen=True, slots=True)
class Ablation:
    """The same member with and without self-supervised pretraining."""

    at: datetime
    command: str
    setup: Setup
    """Of the arm with it; the other differs in that alone."""
    films: int
    """Of the validation split, with plausible lungs."""
    patients: int
    per_class: tuple[int, ...]
    efforts_with: tuple[Effort, ...]
    efforts_without: tuple[Effort, ...]
    auc_with: Areas
    auc_without: Areas
    gain: Areas
    """With minus without, on the same draws of patients."""
    helps: str
    """Of the mean: `yes` or `no, it harms` if the interval excludes 0, else `not shown`."""


def measure_ablation(data: Folder, runs: Path, order: AblationOrder, recipe: Recipe) -> Ablation:
    """Train what is not yet trained, and compare; raises BadConfig as ablate does."""
    given, bare = ablate(data, runs, order, recipe)
    found = estimates(_figures(given, bare), [score.patient for score in given.scores])
    gain = Areas(*found[8:12])
    return Ablation(
        at=order.at,
        command=order.command,
        setup=given.setup,
        films=len(given.scores),
        patients=len({score.patient for score in given.scores}),
        per_class=tuple(np.bincount(truths(given.scores), minlength=len(CLASSES)).tolist()),
        efforts_with=given.efforts,
        efforts_without=bare.efforts,
        auc_with=Areas(*found[0:4]),
        auc_without=Areas(*found[4:8]),
        gain=gain,
        helps=_helps(gain.macro),
    )


def as_json(ablation: Ablation) -> str:
    """The figures as JSON; undefined ones are null."""
    return TypeAdapter(Ablation).dump_json(ablation, indent=1).decode("utf-8")


def lines(ablation: Ablation) -> Iterator[str]:
    """How it was measured, and the table."""
    setup = ablation.setup
    yield f"- measured {ablation.at:%Y-%m-%d %H:%M} UTC by `{ablation.command}`"
    yield f"- data manifest SHA-256 {setup.data_sha256}"
    yield (
        f"- member {setup.member} ({setup.architecture}, lung crops of {setup.side} px, seed "
        f"{setup.seed}), one run each, {PRETRAIN_SHARE:.0%} of its time for pneumonia against "
        "normal. Self-supervision came before and on top: the arm with it has had more time in all"
    )
    yield (
        f"- {ablation.films} films of {ablation.patients} patients of the **validation split** "
        f"({', '.join(f'{n} {name}' for n, name in zip(ablation.per_class, CLASSES, strict=True))})"
        ", which also picked each arm's epoch; not calibrated. Test films were not asked"
    )
    yield ""
    yield (
        f"In parentheses: 95 % intervals, bootstrap over patients, {DRAWS} draws; the difference "
        "is paired. They do not tell how much another seed would change."
    )
    yield ""
    columns = ("self-supervised pretraining", "epochs", *(f"AUC {name}" for name in CLASSES))
    rows = (
        ("with", told(ablation.efforts_with), *_cells(ablation.auc_with)),
        ("without", told(ablation.efforts_without), *_cells(ablation.auc_without)),
        ("difference", "", *_cells(ablation.gain)),
    )
    yield from table((*columns, "AUC macro"), rows)
    yield ""
    yield f"Does it help: **{ablation.helps}**."


def _figures(given: Arm, bare: Arm) -> Callable[[Weights], NDArray[np.float64]]:
    first, second = (
        ClassRankings(truths(each), vectors(each)) for each in (given.scores, bare.scores)
    )

    def figures(weights: Weights) -> NDArray[np.float64]:
        one, two = first.of(weights), second.of(weights)
        return np.concatenate([one, two, one - two])

    return figures


def _helps(gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return "not shown"
    if gain.low > 0:
        return "yes"
    return "no, it harms" if gain.high < 0 else "not shown"


def _cells(areas: Areas) -> tuple[str, ...]:
    return tuple(
        each.words() for each in (areas.covid19, areas.pneumonia, areas.normal, areas.macro)
    )
