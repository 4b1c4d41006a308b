"""How well the three classes are told apart: areas, accuracies, confusion.

Films without an answer cannot have an AUC; they are counted beside it, and one accuracy counts
them as wrong. Inconclusive films count with their probabilities.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covidnet_node.case import Outcome
from covidnet_node.intended_use import CLASSES
from covidnet_node.models.classify import probabilities
from covidnet_node.training.evaluation.groups import Group, Seen, patients
from covidnet_node.training.evaluation.intervals import (
    Estimate,
    Ranking,
    Weights,
    estimates,
    mean_estimate,
    ratio,
    share_estimate,
)

COVID19 = CLASSES.index("covid19")
Vectors = NDArray[np.float64]
Figures = Callable[[Weights], NDArray[np.float64]]
_NOTHING = (Estimate(None, None, None),) * 14


@dataclass(frozen=True, slots=True)
class PerClass:
    """One figure for each of intended_use.CLASSES."""

    covid19: Estimate
    pneumonia: Estimate
    normal: Estimate


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """All that is said of the classes in one group of films."""

    group: str
    films: int
    """With a label of the three classes."""
    patients: int
    per_class: tuple[int, ...]
    """Films of each class, in the order of intended_use.CLASSES."""
    unanswered: int
    """Not analyzed: no probabilities."""
    inconclusive: int
    auc: PerClass
    """Each class against the other two, over answered films."""
    auc_macro: Estimate
    """Mean of the three; undefined unless the group has all three classes."""
    accuracy: Estimate
    """Of the class that the report calls (Probabilities.called at the shipped threshold)."""
    accuracy_unanswered_wrong: Estimate
    """The same with every film without answer counted as wrong."""
    accuracy_most_probable: Estimate
    """Of the most probable class; a film without answer is wrong."""
    balanced_accuracy: Estimate
    """Mean recall of the classes that are there."""
    f1: PerClass
    f1_macro: Estimate
    """Mean over the classes that are there."""
    recall: PerClass
    sensitivity: Estimate
    """COVID-19 at the shipped threshold, over answered films, inconclusive ones as called."""
    sensitivity_concluded: Estimate
    """Of all COVID-19 films, those that the node concludes to be COVID-19."""
    specificity: Estimate
    confusion: tuple[tuple[int, ...], ...]
    """Rows: truth. Columns: called, in the order of intended_use.CLASSES, then no answer."""


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """One member alone, and what the ensemble gains over it on the same draws of patients."""

    member: str
    auc_covid19: Estimate
    auc_macro: Estimate
    gain_covid19: Estimate
    """Ensemble minus member."""
    gain_macro: Estimate


def labelled(films: Iterable[Seen]) -> tuple[Seen, ...]:
    """Films of the three classes; `other` and `unknown` are never taken for normal."""
    return tuple(each for each in films if each.exam.truth is not None)


def answered(films: Iterable[Seen]) -> tuple[Seen, ...]:
    """Labelled films with probabilities, inconclusive ones included."""
    return tuple(each for each in labelled(films) if each.answer.said is not None)


def truths(films: Sequence[Seen]) -> NDArray[np.int64]:
    """(n,): positions in intended_use.CLASSES."""
    return np.array([each.exam.truth for each in films], np.int64)


def said(films: Sequence[Seen]) -> Vectors:
    """(n, 3): the ensemble's probabilities of answered films."""
    return np.array([each.answer.said for each in films], np.float64).reshape(-1, len(CLASSES))


def class_figures(group: Group, threshold: float) -> ClassFigures | None:
    """All figures of a group at the shipped COVID-19 threshold; None without a labelled film."""
    films, told = labelled(group.films), answered(group.films)
    if not films:
        return None
    truth, vectors = truths(told), said(told)
    called = call(vectors, threshold)
    found = estimates(_figures(truth, vectors, called), patients(told)) if told else _NOTHING
    outcomes = [each.answer.outcome for each in films]
    return ClassFigures(
        group=group.name,
        films=len(films),
        patients=len(set(patients(films))),
        per_class=tuple(np.bincount(truths(films), minlength=len(CLASSES)).tolist()),
        unanswered=len(films) - len(told),
        inconclusive=outcomes.count(Outcome.INCONCLUSIVE),
        auc=PerClass(*found[0:3]),
        auc_macro=found[3],
        f1=PerClass(*found[4:7]),
        f1_macro=found[7],
        recall=PerClass(*found[8:11]),
        balanced_accuracy=found[11],
        accuracy=found[12],
        sensitivity=found[8],
        specificity=found[13],
        accuracy_unanswered_wrong=_right(films, _given(told, called)),
        accuracy_most_probable=_right(films, _given(told, vectors.argmax(axis=1))),
        sensitivity_concluded=_concluded(films, _given(told, called)),
        confusion=_confusion(films, truth, called),
    )


def member_figures(group: Group, names: Sequence[str]) -> tuple[MemberFigures, ...]:
    """Every member against the ensemble, paired; nothing without all three classes."""
    told = answered(group.films)
    truth = truths(told)
    if set(truth.tolist()) != set(range(len(CLASSES))):
        return ()
    ensemble = ClassRankings(truth, said(told))
    found = []
    for index, name in enumerate(names):
        alone = ClassRankings(truth, np.array([each.answer.members[index] for each in told]))
        found.append(MemberFigures(name, *estimates(_against(ensemble, alone), patients(told))))
    return tuple(found)


def call(vectors: Vectors, threshold: float) -> NDArray[np.int64]:
    """(n,): the class that the node's report calls, by the node's own rule."""
    return np.array(
        [CLASSES.index(probabilities(each).called(threshold)) for each in vectors], np.int64
    )


class ClassRankings:
    """Area of each class against the rest, for many weightings."""

    def __init__(self, truth: NDArray[np.int64], vectors: Vectors) -> None:
        self._rankings = [
            Ranking(vectors[:, index], truth == index) for index in range(len(CLASSES))
        ]

    def of(self, weights: Weights) -> NDArray[np.float64]:
        """The three areas and their mean."""
        areas = [ranking.area(weights) for ranking in self._rankings]
        return np.array([*areas, np.mean(areas)])


def from_confusion(
    table: NDArray[np.float64], there: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 and recall of each class, (3,) both; NaN for classes that are not `there`.

    `table` is (3, 3): rows are truth, columns what was called; entries may be weights.
    """
    hit, true, called = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        f1, recall = 2 * hit / (true + called), hit / true
    return np.where(there, f1, np.nan), np.where(there, recall, np.nan)


def specificity(table: NDArray[np.float64]) -> float:
    """Of films without COVID-19, the share that is not called COVID-19; NaN if there are none."""
    others = np.delete(table, COVID19, axis=0)
    return 1.0 - ratio(float(others[:, COVID19].sum()), float(others.sum()))


def _against(ensemble: ClassRankings, alone: ClassRankings) -> Figures:
    def figures(weights: Weights) -> NDArray[np.float64]:
        together, single = (areas.of(weights)[[COVID19, -1]] for areas in (ensemble, alone))
        return np.concatenate([single, together - single])

    return figures


def _given(told: Sequence[Seen], classes: NDArray[np.int64]) -> dict[str, int]:
    """By key; a film without an answer has no class."""
    return dict(zip((each.answer.key for each in told), classes.tolist(), strict=True))


def _right(films: Sequence[Seen], given: Mapping[str, int]) -> Estimate:
    """Share of all films that have been given their class; those without an answer have not."""
    right = [float(given.get(each.answer.key) == each.exam.truth) for each in films]
    return mean_estimate(right, patients(films))


def _concluded(films: Sequence[Seen], given: Mapping[str, int]) -> Estimate:
    """Share of the COVID-19 films on which the node concludes so."""
    ill = [each for each in films if each.exam.truth == COVID19]
    return share_estimate(
        [
            each.answer.outcome is Outcome.ANALYZED and given.get(each.answer.key) == COVID19
            for each in ill
        ],
        patients(ill),
    )


def _figures(truth: NDArray[np.int64], vectors: Vectors, called: NDArray[np.int64]) -> Figures:
    """Areas and macro, F1 and macro, recalls and balanced, accuracy, specificity."""
    areas, kinds = ClassRankings(truth, vectors), len(CLASSES)
    cell = truth * kinds + called
    there = np.bincount(truth, minlength=kinds) > 0

    def figures(weights: Weights) -> NDArray[np.float64]:
        table = _table(cell, weights)
        f1, recall = from_confusion(table, there)
        return np.array(
            [
                *areas.of(weights),
                *f1,
                f1[there].mean(),
                *recall,
                recall[there].mean(),
                table.trace() / weights.sum(),
                specificity(table),
            ]
        )

    return figures


def _table(cells: NDArray[np.int64], weights: Weights) -> NDArray[np.float64]:
    kinds = len(CLASSES)
    counted: NDArray[np.float64] = np.bincount(cells, weights, kinds**2).astype(np.float64)
    return counted.reshape(kinds, kinds)


def _confusion(
    films: Sequence[Seen], truth: NDArray[np.int64], called: NDArray[np.int64]
) -> tuple[tuple[int, ...], ...]:
    kinds = len(CLASSES)
    table = np.bincount(truth * kinds + called, minlength=kinds**2).reshape(kinds, kinds)
    silent = np.bincount(truths(films), minlength=kinds) - table.sum(axis=1)
    return tuple(tuple(row) for row in np.column_stack([table, silent]).tolist())
