"""How well groups are told that their models never saw: each film scored by a stranger to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from covidnet_node.intended_use import CLASSES
from covidnet_node.training.dataset import Folder, Split, belongs
from covidnet_node.training.evaluation.classes import PerClass
from covidnet_node.training.evaluation.goals import LEAST_AUC, Goal, judge
from covidnet_node.training.evaluation.groups import MINED
from covidnet_node.training.evaluation.intervals import (
    Estimate,
    Weights,
    area,
    estimates,
    ratio,
    share_estimate,
)
from covidnet_node.training.leave_out import LeaveOutOrder, LeftOut, Missing, Result, leave_out
from covidnet_node.training.recipe import Recipe
from covidnet_node.training.scores import Score, truths, vectors
from covidnet_node.training.trial import Effort, Setup, efforts, setup_of

POOLED = "all left-out films"


@dataclass(frozen=True, slots=True)
class Scope:
    """All that is said of some of the films."""

    name: str
    films: int
    patients: int
    per_class: tuple[int, ...]
    """Films of each class, in the order of intended_use.CLASSES."""
    auc: PerClass
    """Each class against the others that are there; undefined for one class alone."""
    accuracy: Estimate
    """Of the most probable of three classes."""
    balanced_accuracy: Estimate
    """Mean recall of the classes that are there."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows: truth. Columns: most probable, in the order of intended_use.CLASSES."""


@dataclass(frozen=True, slots=True)
class Run:
    """One group's run, and how many of its films could be scored."""

    group: str
    result: Result
    scored: int


@dataclass(frozen=True, slots=True)
class LeaveOut:
    """Every figure, and how it came about."""

    at: datetime
    command: str
    minutes: float
    """That all runs together have been trained, as their learning curves tell."""
    setup: Setup
    """Of every run, but for what each leaves out."""
    outlined: tuple[str, ...]
    """Sources of which the segmenter has seen outlines."""
    never_out: tuple[str, ...]
    """Sources of no group: they teach every run and are not scored."""
    own: tuple[Effort, ...]
    """How long the runs folder's own member was trained, to compare; empty if it was not."""
    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]
    scopes: tuple[Scope, ...]
    """The pooled one first; none if every group is missing."""
    goal: Goal


def measure_left_out(data: Folder, runs: Path, order: LeaveOutOrder, recipe: Recipe) -> LeaveOut:
    """Train what is not yet trained, and measure; raises BadConfig as leave_out does."""
    found, missing = leave_out(data, runs, order, recipe)
    scopes = scopes_of(found)
    held = tuple(part for group in recipe.groups for part in group.holds)
    pooled = scopes[0].auc.covid19 if scopes else Estimate(None, None, None)
    reached = "unknown" if missing else judge(pooled, lambda value: value >= LEAST_AUC)
    return LeaveOut(
        at=order.at,
        command=order.command,
        minutes=sum(each.minutes for group in found for each in group.result.efforts),
        setup=setup_of(data, runs, order.member, recipe, (), self_supervised=order.self_supervised),
        outlined=tuple(
            sorted(
                {film.source for film in data.films if film.has_mask and film.split is Split.TRAIN}
            )
        ),
        never_out=tuple(sorted({film.source for film in data.films if not belongs(film, held)})),
        own=efforts(runs, order.member),
        runs=tuple(Run(each.group.name, each.result, len(each.scores)) for each in found),
        missing=missing,
        scopes=scopes,
        goal=Goal(f"AUC of COVID-19, {POOLED}", pooled, f"at least {LEAST_AUC:.2f}", reached),
    )


def as_json(figures: LeaveOut) -> str:
    """The figures as JSON; undefined ones are null."""
    return TypeAdapter(LeaveOut).dump_json(figures, indent=1).decode("utf-8")


def scopes_of(found: Sequence[LeftOut]) -> tuple[Scope, ...]:
    """All films, those without mined labels, each group, each source."""
    everything = [score for each in found for score in each.scores]
    if not everything:
        return ()
    parts = [(POOLED, everything)]
    rest = [score for score in everything if score.source != MINED]
    if 0 < len(rest) < len(everything):
        parts.append((f"{POOLED} without {MINED}", rest))
    parts += [(f"group {each.group.name}", list(each.scores)) for each in found]
    parts += [
        (f"source {name}", [score for score in everything if score.source == name])
        for name in sorted({score.source for score in everything})
    ]
    return tuple(scope(name, scores) for name, scores in parts)


def scope(name: str, scores: Sequence[Score]) -> Scope:
    """The figures of some films, at least one."""
    truth, said = truths(scores), vectors(scores)
    patients = [score.patient for score in scores]
    called = said.argmax(axis=1)
    areas = [
        area(said[:, index].tolist(), (truth == index).tolist(), patients)
        for index in range(len(CLASSES))
    ]
    (balanced,) = estimates(lambda weights: _mean_recall(truth, called, weights), patients)
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(table, (truth, called), 1)
    return Scope(
        name=name,
        films=len(scores),
        patients=len(set(patients)),
        per_class=tuple(table.sum(axis=1).tolist()),
        auc=PerClass(*areas),
        accuracy=share_estimate((truth == called).tolist(), patients),
        balanced_accuracy=balanced,
        confusion=tuple(tuple(row) for row in table.tolist()),
    )


def _mean_recall(
    truth: NDArray[np.int64], called: NDArray[np.int64], weights: Weights
) -> NDArray[np.float64]:
    """(1,): over the classes that are there."""
    right = (truth == called).astype(np.float64)
    recalls = [
        ratio(float(right[truth == kind] @ weights[truth == kind]), weights[truth == kind].sum())
        for kind in np.unique(truth)
    ]
    return np.array([np.mean(recalls)])
