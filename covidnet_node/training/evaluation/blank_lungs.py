"""The shortcut tests as areas: what the members still tell apart when the lungs are gone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from covidnet_node.intended_use import CLASSES
from covidnet_node.training.evaluation.classes import PerClass, answered, truths
from covidnet_node.training.evaluation.groups import Group, Seen, patients
from covidnet_node.training.evaluation.intervals import area
from covidnet_node.training.evaluation.shortcuts import WithoutLungs


@dataclass(frozen=True, slots=True)
class ShortcutFigures:
    """One test on one group."""

    group: str
    test: str
    """intact, black lungs, gray lungs or silhouette."""
    films: int
    auc: PerClass
    """Each class against the rest; 0.5 is ignorance, on either side of it is a shortcut."""


_TESTS: tuple[tuple[str, Callable[[WithoutLungs], tuple[float, ...]]], ...] = (
    ("black lungs", lambda said: said.black),
    ("gray lungs", lambda said: said.gray),
    ("silhouette", lambda said: said.silhouette),
)


def shortcut_figures(groups: Sequence[Group]) -> tuple[ShortcutFigures, ...]:
    """Every test on every group that has two classes, the intact film first."""
    found: list[ShortcutFigures] = []
    for group in groups:
        films = tuple(each for each in answered(group.films) if each.answer.without_lungs)
        if len(set(truths(films).tolist())) < 2:
            continue
        found.append(_figures(group.name, "intact", films, [_intact(each) for each in films]))
        for test, of in _TESTS:
            vectors = [of(each.answer.without_lungs) for each in films if each.answer.without_lungs]
            found.append(_figures(group.name, test, films, vectors))
    return tuple(found)


def _intact(seen: Seen) -> tuple[float, ...]:
    return seen.answer.said or ()


def _figures(
    group: str, test: str, films: Sequence[Seen], vectors: Sequence[tuple[float, ...]]
) -> ShortcutFigures:
    truth, scores = truths(films), np.array(vectors)
    areas = [
        area(scores[:, index].tolist(), (truth == index).tolist(), patients(films))
        for index in range(len(CLASSES))
    ]
    return ShortcutFigures(group, test, len(films), PerClass(*areas))
