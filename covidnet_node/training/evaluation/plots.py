"""Pictures of the figures, as PNG files beside the report.

The only page that draws with matplotlib; nothing else waits for it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from covidnet_node.intended_use import CLASSES
from covidnet_node.training.evaluation.classes import answered, said, truths
from covidnet_node.training.evaluation.evaluation import Evaluation, Measured
from covidnet_node.training.evaluation.groups import overall
from covidnet_node.training.evaluation.intervals import Estimate


def draw_plots(measured: Measured, folder: Path) -> tuple[str, ...]:
    """Write the plots that the data allows; the file names, in reading order."""
    drawings: tuple[tuple[str, Callable[[Axes, Measured], bool]], ...] = (
        ("roc.png", _roc),
        ("sources.png", _sources),
        ("confusion.png", _confusion),
        ("reliability.png", _reliability),
        ("outlines.png", _outlines),
        ("energy.png", _energy),
        ("shortcuts.png", _shortcuts),
    )
    names = []
    for name, draw in drawings:
        figure = Figure(figsize=(6, 4.5), layout="constrained")
        if draw(figure.subplots(), measured):
            figure.savefig(folder / name, dpi=110)
            names.append(name)
    return tuple(names)


def _roc(axes: Axes, measured: Measured) -> bool:
    films = answered(overall(measured.seen).films)
    truth, vectors = truths(films), said(films)
    drawn = False
    for index, name in enumerate(CLASSES):
        positive = truth == index
        if 0 < int(positive.sum()) < len(truth):
            axes.plot(*_curve(vectors[:, index], positive), label=f"{name} against the rest")
            drawn = True
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8, label="chance")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC, all adults")
    axes.legend()
    return drawn


def _curve(
    scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[last] / positive.sum()
    alarms = np.cumsum(~positive[order])[last] / (~positive).sum()
    return np.insert(alarms, 0, 0.0), np.insert(hits, 0, 0.0)


def _sources(axes: Axes, measured: Measured) -> bool:
    rows = [
        (each.group, estimate)
        for each in measured.evaluation.classes
        for estimate in (each.accuracy,)
        if estimate.value is not None
    ]
    _bars(axes, rows)
    axes.set(xlabel="accuracy of three classes, as the report calls them", xlim=(0, 1))
    return bool(rows)


def _confusion(axes: Axes, measured: Measured) -> bool:
    if not measured.evaluation.classes:
        return False
    first = measured.evaluation.classes[0]
    table = np.array(first.confusion)
    axes.imshow(
        table / np.maximum(table.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1
    )
    for (row, column), count in np.ndenumerate(table):
        axes.text(column, row, str(count), ha="center", va="center")
    axes.set_xticks(range(len(CLASSES) + 1), [*CLASSES, "no answer"])
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="called", ylabel="label", title=first.group)
    return True


def _reliability(axes: Axes, measured: Measured) -> bool:
    if not measured.evaluation.calibration:
        return False
    first = measured.evaluation.calibration[0]
    filled = [each for each in first.bins if each.films]
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    axes.scatter(
        [each.confidence or 0.0 for each in filled],
        [each.accuracy or 0.0 for each in filled],
        s=[8 + 4 * each.films for each in filled],
        alpha=0.6,
    )
    axes.set(
        xlabel="stated probability of the most probable class",
        ylabel="how often it was right",
        xlim=(0, 1),
        ylim=(0, 1),
        title=f"Reliability, {first.group} (dots by number of films)",
    )
    return True


def _outlines(axes: Axes, measured: Measured) -> bool:
    found: dict[str, list[float]] = {}
    for each in measured.seen:
        if each.answer.outlines:
            name = f"{each.exam.source}\n{each.exam.mask_style}"
            found.setdefault(name, []).append(each.answer.outlines.channel.dice)
    if not found:
        return False
    axes.boxplot(list(found.values()))
    axes.set_xticks(range(1, len(found) + 1), list(found))
    axes.set(ylabel="Dice", title="Outline of the reference's convention, per film")
    return True


def _energy(axes: Axes, measured: Measured) -> bool:
    points = [
        (heat.reference_area_of_crop or 0.0, heat.reference)
        for each in measured.seen
        if (heat := each.answer.heat) and heat.reference is not None
    ]
    if not points:
        return False
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    areas, energies = zip(*points, strict=True)
    axes.scatter(areas, energies, s=12, alpha=0.6)
    axes.set(
        xlabel="share of the crop that is lung (reference)",
        ylabel="share of the raw heatmap in it",
        xlim=(0, 1),
        ylim=(0, 1),
        title="A map without aim lies on the line",
    )
    return True


def _shortcuts(axes: Axes, measured: Measured) -> bool:
    rows = _shortcut_rows(measured.evaluation)
    _bars(axes, rows)
    axes.axvline(0.5, color="gray", linewidth=0.8)
    axes.set(xlabel="AUC of COVID-19 against the rest", xlim=(0, 1))
    return bool(rows)


def _shortcut_rows(evaluation: Evaluation) -> list[tuple[str, Estimate]]:
    return [
        (f"{each.group}: {each.test}", each.auc.covid19)
        for each in evaluation.shortcuts
        if each.auc.covid19.value is not None and each.group.startswith("all")
    ]


def _bars(axes: Axes, rows: list[tuple[str, Estimate]]) -> None:
    """One bar a row with its interval, first on top."""
    for place, (_, estimate) in enumerate(rows):
        axes.barh(place, estimate.value or 0.0, color="tab:blue", alpha=0.6)
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [place, place], color="black")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.invert_yaxis()
