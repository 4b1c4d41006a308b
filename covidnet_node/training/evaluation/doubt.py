"""What was not concluded and why; foreign diseases; laterals."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from covidnet_node.case import Outcome, Reason
from covidnet_node.intended_use import CLASSES
from covidnet_node.training.dataset import CHILDREN
from covidnet_node.training.evaluation.classes import call, said
from covidnet_node.training.evaluation.exams import OTHER
from covidnet_node.training.evaluation.groups import (
    Group,
    Seen,
    by_source,
    by_view,
    overall,
    patients,
)
from covidnet_node.training.evaluation.intervals import Estimate, area, share_estimate


@dataclass(frozen=True, slots=True)
class Count:
    """How many films were answered so, and why."""

    outcome: str
    reason: str
    detail: str
    """The node's words, where they are a remark and not figures of one film."""
    films: int


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the films of a group were answered."""

    group: str
    films: int
    analyzed: Estimate
    inconclusive: Estimate
    not_analyzed: Estimate
    why: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class Foreign:
    """Films of no class of ours (tuberculosis, ARDS), or of children: noticed or not."""

    group: str
    films: int
    against: str
    """The films in distribution that they are compared with."""
    against_films: int
    flagged: Estimate
    """Share answered without a conclusion: inconclusive or not analyzed."""
    flagged_distance: Estimate
    """Share that was flagged as out of distribution."""
    against_flagged: Estimate
    """Share of the compared films without a conclusion: false alarms."""
    auc: Estimate
    """Of the out-of-distribution score, foreign against the compared films."""
    called: tuple[tuple[str, int], ...]
    """What the reports with a conclusion said of them."""


@dataclass(frozen=True, slots=True)
class Laterals:
    """Laterals must never get probabilities."""

    films: int
    without_probabilities: Estimate
    answered: tuple[str, ...]
    """Those that got probabilities, with the outcome: failures."""


def outcomes(seen: Sequence[Seen]) -> tuple[Outcomes, ...]:
    """All films, adults, then by source and by view."""
    groups = (Group("all films", tuple(seen)), overall(seen), *by_source(seen), *by_view(seen))
    return tuple(_outcomes(group) for group in groups if group.films)


def foreign(seen: Sequence[Seen], threshold: float) -> tuple[Foreign, ...]:
    """Label `other`, as a whole and within each source; the children of the pretraining set.

    `threshold` is the shipped one of COVID-19.
    """
    adults = overall(seen).films
    ours = tuple(each for each in adults if each.exam.truth is not None)
    strange = tuple(each for each in adults if each.exam.label == OTHER)
    children = tuple(each for each in seen if each.exam.source == CHILDREN)
    pairs = [(Group("other disease", strange), Group("three classes, adults", ours))]
    for group in by_source(strange):
        same = tuple(e for e in ours if e.exam.source == group.films[0].exam.source)
        pairs.append(
            (Group(f"other disease, {group.name}", group.films), Group("same source", same))
        )
    pairs.append((Group("children", children), Group("three classes, adults", ours)))
    return tuple(_foreign(group, against, threshold) for group, against in pairs if group.films)


def laterals(seen: Sequence[Seen]) -> Laterals:
    """Share answered without probabilities."""
    spoke = tuple(
        f"{each.exam.key}, {each.answer.outcome.value}"
        for each in seen
        if each.answer.said is not None
    )
    silent = [each.answer.said is None for each in seen]
    return Laterals(len(seen), share_estimate(silent, patients(seen)), spoke)


def _outcomes(group: Group) -> Outcomes:
    names = patients(group.films)
    analyzed, inconclusive, not_analyzed = (
        share_estimate([each.answer.outcome is outcome for each in group.films], names)
        for outcome in (Outcome.ANALYZED, Outcome.INCONCLUSIVE, Outcome.NOT_ANALYZED)
    )
    why = Counter(_why(each) for each in group.films)
    counts = (Count(*words, films=films) for words, films in why.most_common())
    shares = (analyzed, inconclusive, not_analyzed)
    return Outcomes(group.name, len(group.films), *shares, tuple(counts))


def _why(seen: Seen) -> tuple[str, str, str]:
    answer = seen.answer
    remark = answer.detail if answer.outcome is Outcome.NOT_ANALYZED else ""
    return answer.outcome.value, answer.reason, remark


def _foreign(group: Group, against: Group, threshold: float) -> Foreign:
    measured = [
        (each, each.answer.distance, where is group)
        for where in (group, against)
        for each in where.films
        if each.answer.distance is not None
    ]
    return Foreign(
        group=group.name,
        films=len(group.films),
        against=against.name,
        against_films=len(against.films),
        flagged=_share(group.films, (Outcome.INCONCLUSIVE, Outcome.NOT_ANALYZED)),
        flagged_distance=share_estimate(
            [e.answer.reason == Reason.OUT_OF_DISTRIBUTION.value for e in group.films],
            patients(group.films),
        ),
        against_flagged=_share(against.films, (Outcome.INCONCLUSIVE, Outcome.NOT_ANALYZED)),
        auc=area(
            [distance for _, distance, _ in measured],
            [strange for _, _, strange in measured],
            patients([each for each, _, _ in measured]),
        ),
        called=_called(group.films, threshold),
    )


def _called(films: Sequence[Seen], threshold: float) -> tuple[tuple[str, int], ...]:
    concluded = [each for each in films if each.answer.outcome is Outcome.ANALYZED]
    named = Counter(CLASSES[index] for index in call(said(concluded), threshold))
    return tuple(named.most_common())


def _share(films: Sequence[Seen], wanted: Iterable[Outcome]) -> Estimate:
    among = frozenset(wanted)
    return share_estimate([e.answer.outcome in among for e in films], patients(films))
