"""What was aimed for, beside what was measured. A goal that is missed stays in the table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from covidnet_node.training.evaluation.blank_lungs import ShortcutFigures
from covidnet_node.training.evaluation.calibration import Calibration
from covidnet_node.training.evaluation.classes import ClassFigures, MemberFigures
from covidnet_node.training.evaluation.heatmaps import HeatFigures
from covidnet_node.training.evaluation.intervals import Estimate
from covidnet_node.training.evaluation.lungs import LungFigures

LEAST_DICE, LEAST_ACCURACY, LEAST_AUC, LEAST_ENERGY = 0.97, 0.93, 0.92, 0.90
MOST_ERROR = 0.05
MOST_SHORTCUT = 0.60
"""An AUC below 0.5 by as much counts the same: it tells as much, the wrong way round."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table."""

    what: str
    measured: Estimate
    aim: str
    reached: str
    """`yes`: with its whole interval; `value only`; `no`; `unknown`."""


@dataclass(frozen=True, slots=True)
class Measures:
    """The figures that goals are about."""

    classes: tuple[ClassFigures, ...]
    members: tuple[MemberFigures, ...]
    calibration: tuple[Calibration, ...]
    lungs: tuple[LungFigures, ...]
    heatmaps: tuple[HeatFigures, ...]
    shortcuts: tuple[ShortcutFigures, ...]


def goals(measures: Measures, *, trained_here: bool) -> tuple[Goal, ...]:
    """Every goal that this folder has something to say about.

    `trained_here`: the weights have learned from films of the same sources.
    """
    return (
        *_lungs(measures.lungs),
        *_accuracies(measures.classes),
        *_areas(measures.classes, trained_here=trained_here),
        *_shortcuts(measures.shortcuts),
        *_heatmaps(measures.heatmaps),
        *_members(measures.members),
        *_calibration(measures.calibration),
    )


def judge(measured: Estimate, enough: Callable[[float], bool]) -> str:
    """Whether the value, and both ends of its interval, are good enough."""
    if measured.value is None:
        return "unknown"
    if not enough(measured.value):
        return "no"
    ends = (measured.low, measured.high)
    return "yes" if all(end is not None and enough(end) for end in ends) else "value only"


def _lungs(lungs: Sequence[LungFigures]) -> Iterator[Goal]:
    for each in lungs:
        if each.group == "all films" and each.what == "channel":
            what = f"lung Dice, {each.convention}"
            yield _at_least(what, each.dice, LEAST_DICE)


def _accuracies(classes: Sequence[ClassFigures]) -> Iterator[Goal]:
    for each in classes:
        if each.group.startswith("all"):
            accuracy = each.accuracy_most_probable
            yield _at_least(f"three-class accuracy, {each.group}", accuracy, LEAST_ACCURACY)


def _areas(classes: Sequence[ClassFigures], *, trained_here: bool) -> Iterator[Goal]:
    """The goal is for hospitals never seen: films of known ones can miss it but not reach it."""
    for each in classes:
        found = each.auc.covid19
        if found.value is None or not each.group.startswith(("all", "source")):
            continue
        reached = judge(found, lambda area: area >= LEAST_AUC)
        reached = "unknown" if trained_here and reached != "no" else reached
        aim = f"at least {LEAST_AUC:.2f} in hospitals never seen"
        yield Goal(f"AUC of COVID-19, {each.group}", found, aim, reached)


def _shortcuts(shortcuts: Sequence[ShortcutFigures]) -> Iterator[Goal]:
    for each in shortcuts:
        if each.group.startswith("all") and each.test in ("black lungs", "silhouette"):
            what, found = f"AUC of COVID-19, {each.test}, {each.group}", each.auc.covid19
            reached = judge(found, lambda area: 1 - MOST_SHORTCUT <= area <= MOST_SHORTCUT)
            aim = f"{1 - MOST_SHORTCUT:.2f} to {MOST_SHORTCUT:.2f}"
            yield Goal(what, found, aim, reached)


def _heatmaps(heatmaps: Sequence[HeatFigures]) -> Iterator[Goal]:
    for each in heatmaps:
        if each.group.startswith("reference"):
            area = each.area_reference_of_crop.words()
            what = f"heatmap energy in lungs, {each.group} (lungs are {area} of the crop)"
            yield _at_least(what, each.energy_reference, LEAST_ENERGY)


def _members(members: Sequence[MemberFigures]) -> Iterator[Goal]:
    """Not below a member by more than the paired interval: the interval reaches zero."""
    for each in members:
        gain = each.gain_macro
        if gain.high is not None:
            reached = "yes" if gain.high >= 0 else "no"
            yield Goal(
                f"ensemble minus member {each.member}, AUC macro", gain, "not below 0", reached
            )


def _calibration(calibration: Sequence[Calibration]) -> Iterator[Goal]:
    for each in calibration:
        if each.group.startswith("all"):
            reached = judge(each.error, lambda error: error <= MOST_ERROR)
            aim = f"at most {MOST_ERROR:.2f}"
            yield Goal(f"calibration error, {each.group}", each.error, aim, reached)


def _at_least(what: str, measured: Estimate, least: float) -> Goal:
    reached = judge(measured, lambda value: value >= least)
    return Goal(what, measured, f"at least {least:.2f}", reached)
