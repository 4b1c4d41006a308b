"""Which films a figure is about: all adults, each source, each view, concluded or not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from covidnet_node.case import Outcome
from covidnet_node.training.dataset import CHILDREN
from covidnet_node.training.evaluation.answers import Answer
from covidnet_node.training.evaluation.exams import Exam

MINED = "nih"
"""The source whose labels are mined from report text, many of them wrong."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A film and what the node said of it."""

    exam: Exam
    answer: Answer


@dataclass(frozen=True, slots=True)
class Group:
    """Films that share a figure."""

    name: str
    films: tuple[Seen, ...]


def overall(seen: Iterable[Seen]) -> Group:
    """All but the children, who are outside intended use."""
    return Group("all adults", tuple(each for each in seen if each.exam.source != CHILDREN))


def by_source(seen: Sequence[Seen]) -> tuple[Group, ...]:
    """One group a source, children included."""
    return _by(seen, "source", lambda each: each.exam.source)


def by_view(seen: Iterable[Seen]) -> tuple[Group, ...]:
    """One group a view, adults only."""
    return _by(overall(seen).films, "view", lambda each: each.exam.view)


def main_groups(seen: Sequence[Seen]) -> tuple[Group, ...]:
    """All adults, with and without text-mined labels."""
    everyone = overall(seen)
    rest = tuple(each for each in everyone.films if each.exam.source != MINED)
    if len(rest) in (0, len(everyone.films)):
        return (everyone,)
    return everyone, Group(f"all adults without {MINED}", rest)


def by_outcome(seen: Sequence[Seen]) -> tuple[Group, ...]:
    """Adults whose answer was a conclusion, and those for whom there was none."""
    adults = overall(seen).films
    return tuple(
        Group(f"{outcome.value} only", films)
        for outcome in (Outcome.ANALYZED, Outcome.INCONCLUSIVE)
        if (films := tuple(each for each in adults if each.answer.outcome is outcome))
    )


def patients(films: Iterable[Seen]) -> list[str]:
    """One name a film."""
    return [each.exam.patient for each in films]


def _by(seen: Sequence[Seen], what: str, of: Callable[[Seen], str]) -> tuple[Group, ...]:
    names = sorted({of(each) for each in seen})
    return tuple(
        Group(f"{what} {name}", tuple(each for each in seen if of(each) == name)) for name in names
    )
