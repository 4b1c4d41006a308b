"""Every figure of the model card, measured on one folder with one weights folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from covidnet_node.intended_use import CLASSES, NOTICE
from covidnet_node.models.manifest import Manifest
from covidnet_node.models.networks import Networks
from covidnet_node.training.evaluation.answers import answer_all
from covidnet_node.training.evaluation.blank_lungs import ShortcutFigures, shortcut_figures
from covidnet_node.training.evaluation.calibration import Calibration, calibration
from covidnet_node.training.evaluation.classes import (
    ClassFigures,
    MemberFigures,
    answered,
    call,
    class_figures,
    member_figures,
    said,
    truths,
)
from covidnet_node.training.evaluation.doubt import (
    Foreign,
    Laterals,
    Outcomes,
    foreign,
    laterals,
    outcomes,
)
from covidnet_node.training.evaluation.exams import Exam, read_exams
from covidnet_node.training.evaluation.goals import Goal, Measures, goals
from covidnet_node.training.evaluation.groups import (
    Seen,
    by_outcome,
    by_source,
    by_view,
    main_groups,
    overall,
)
from covidnet_node.training.evaluation.heatmaps import HeatFigures, heat_figures
from covidnet_node.training.evaluation.lungs import LungFigures, lung_figures
from covidnet_node.training.evaluation.strain import Strain, steps, strain

WORST = 10
"""Failures of each kind that are named."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure."""

    data: Path
    split: str
    limit: int | None
    """At most so many frontal films, and so many laterals."""
    command: str
    """The command line, to say how the figures were made."""
    at: datetime
    """UTC."""


@dataclass(frozen=True, slots=True)
class About:
    """What was measured, on what, when and how."""

    notice: str
    at: datetime
    command: str
    weights_name: str
    weights_version: str
    weights_digest: str
    weights_notice: str
    covid19_threshold: float
    classes: tuple[str, ...]
    manifest_sha256: str
    """Of the folder's manifest.csv."""
    trained_on_this_folder: bool
    """The weights name the same manifest.csv as their training data: splits must keep apart."""
    split: str
    limit: int | None
    films: int
    laterals: int
    seconds_per_film: float
    """Median of the node's page, without what is measured beside it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A film that went wrong."""

    key: str
    source: str
    view: str
    label: str
    words: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures; its JSON is the contract of `covidnet-node evaluate --json`."""

    about: About
    goals: tuple[Goal, ...]
    outcomes: tuple[Outcomes, ...]
    classes: tuple[ClassFigures, ...]
    members: tuple[MemberFigures, ...]
    calibration: tuple[Calibration, ...]
    lungs: tuple[LungFigures, ...]
    heatmaps: tuple[HeatFigures, ...]
    shortcuts: tuple[ShortcutFigures, ...]
    foreign: tuple[Foreign, ...]
    laterals: Laterals
    strain: Strain
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures, and the films behind them for plots."""

    evaluation: Evaluation
    seen: tuple[Seen, ...]


def evaluate(
    order: Order, networks: Networks, kept: Path | None, console: Console, threads: int
) -> Measured:
    """Answer every film of the order with the node's own page and work out every figure.

    `kept` is a file in which answers are kept, to go on after a stop. Raises BadConfig for a
    folder that cannot be read, RetryLater when the device is out of memory.
    """
    torch.set_num_threads(threads)
    exams = read_exams(order.data, order.split, order.limit)
    with _progress(console) as progress:
        frontal = _see(exams.frontal, networks, kept, progress, "films")
        lateral = _see(exams.lateral, networks, kept, progress, "laterals")
        task = progress.add_task("strain", total=steps())
        strained = strain(exams.frontal, networks, lambda: progress.advance(task))
        progress.add_task("figures", total=None)
        about = _about(order, networks.manifest, exams.sha256, frontal, lateral)
        found = figures(about, frontal, lateral, networks.manifest, strained)
        return Measured(found, frontal)


def figures(
    about: About,
    seen: Sequence[Seen],
    lateral: Sequence[Seen],
    manifest: Manifest,
    strained: Strain,
) -> Evaluation:
    """Work out every figure from answered films; nothing is analyzed again."""
    threshold = manifest.ensemble.covid19_threshold
    mains, sources, views = main_groups(seen), by_source(seen), by_view(seen)
    grouped = (class_figures(g, threshold) for g in (*mains, *by_outcome(seen), *sources, *views))
    calibrated = (calibration(group) for group in (*mains, *sources, *views))
    measures = Measures(
        classes=tuple(each for each in grouped if each),
        members=member_figures(overall(seen), [member.name for member in manifest.members]),
        calibration=tuple(each for each in calibrated if each),
        lungs=lung_figures(seen),
        heatmaps=heat_figures(seen),
        shortcuts=shortcut_figures((*mains, *sources, *views)),
    )
    return Evaluation(
        about=about,
        goals=goals(measures, trained_here=about.trained_on_this_folder),
        outcomes=outcomes(seen),
        classes=measures.classes,
        members=measures.members,
        calibration=measures.calibration,
        lungs=measures.lungs,
        heatmaps=measures.heatmaps,
        shortcuts=measures.shortcuts,
        foreign=foreign(seen, threshold),
        laterals=laterals(lateral),
        strain=strained,
        failures=tuple(_failures(seen, threshold)),
    )


def as_json(evaluation: Evaluation) -> str:
    """The figures as JSON; undefined ones are null."""
    return TypeAdapter(Evaluation).dump_json(evaluation, indent=1).decode("utf-8")


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


def _see(
    exams: Sequence[Exam], networks: Networks, kept: Path | None, progress: Progress, what: str
) -> tuple[Seen, ...]:
    task: TaskID = progress.add_task(what, total=len(exams))
    answers = answer_all(exams, networks, kept, lambda: progress.advance(task))
    return tuple(Seen(exam, answer) for exam, answer in zip(exams, answers, strict=True))


def _about(
    order: Order, manifest: Manifest, sha256: str, seen: Sequence[Seen], lateral: Sequence[Seen]
) -> About:
    seconds = sorted(each.answer.seconds for each in seen)
    return About(
        notice=NOTICE,
        at=order.at,
        command=order.command,
        weights_name=manifest.name,
        weights_version=manifest.version,
        weights_digest=manifest.digest,
        weights_notice=manifest.notice,
        covid19_threshold=manifest.ensemble.covid19_threshold,
        classes=CLASSES,
        manifest_sha256=sha256,
        trained_on_this_folder=sha256 == manifest.data_sha256,
        split=order.split,
        limit=order.limit,
        films=len(seen),
        laterals=len(lateral),
        seconds_per_film=seconds[len(seconds) // 2] if seconds else 0.0,
    )


def _failures(seen: Sequence[Seen], threshold: float) -> Iterator[Failure]:
    """The surest wrong answers, and the worst outlines."""
    films = answered(overall(seen).films)
    vectors, truth = said(films), truths(films)
    called = call(vectors, threshold)
    wrong = [index for index in range(len(films)) if called[index] != truth[index]]
    wrong.sort(key=lambda index: -vectors[index, called[index]])
    for index in wrong[:WORST]:
        share = vectors[index, called[index]]
        words = (
            f"called {CLASSES[called[index]]} ({share:.2f}), {films[index].answer.outcome.value}"
        )
        yield _failure(films[index], words)
    outlined = [(each.answer.outlines.channel.dice, each) for each in seen if each.answer.outlines]
    for dice, each in sorted(outlined, key=lambda pair: pair[0])[:WORST]:
        yield _failure(each, f"Dice {dice:.3f} to its {each.exam.mask_style} outline")


def _failure(seen: Seen, words: str) -> Failure:
    exam = seen.exam
    return Failure(exam.key, exam.source, exam.view, exam.label, words)
