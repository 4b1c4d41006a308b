"""Can the hospital be told? Asked within one label, so that disease is no help.

Every film of a label from sources with enough of them is divided anew, whatever its split,
because one source has no other split than train: by a hash of source and patient into one fifth
that is measured and four fifths that are learned from; of these an eighth only picks the epoch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from covidnet_node.training.crops import Crops
from covidnet_node.training.dataset import CHILDREN, Film, Folder
from covidnet_node.training.evaluation.intervals import (
    Estimate,
    Ranking,
    Weights,
    estimates,
    weighted_mean,
)
from covidnet_node.training.loop import training_device
from covidnet_node.training.probing.probe import Plan, Side, Teaching, ask, teach
from covidnet_node.training.probing.sights import Shown, Sight, show

LABELS_ASKED = ("normal", "covid")
SIGHTS = (Sight.WHOLE, Sight.CROP, Sight.STYLED, Sight.SILHOUETTE)
FIFTHS, EIGHTHS = 5, 8
MEASURED = 0
"""The fifth that is measured."""


class Part(StrEnum):
    """What a film is for."""

    LEARNED = "learned"
    PICKED = "picked"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """How well one probe tells the sources of one label apart."""

    label: str
    probe: str
    """What it was shown."""
    sources: tuple[str, ...]
    learned: int
    """Films."""
    measured: int
    """Films."""
    patients: int
    """Of those measured."""
    chance: float
    """Balanced accuracy of guessing: 1 / number of sources."""
    balanced_accuracy: Estimate
    auc: Estimate
    """Mean over the sources, each against the rest; 0.5 is chance."""
    recalls: tuple[Estimate, ...]
    """Of each source."""
    teaching: Teaching | None
    """None for a linear probe, which has no epochs."""


def fifth(film: Film) -> int:
    """0 to 4, by source and patient alone."""
    return _lot(film) % FIFTHS


def part(film: Film) -> Part:
    """What a film is for; the same for all films of a patient."""
    if fifth(film) == MEASURED:
        return Part.MEASURED
    return Part.PICKED if _lot(film) // FIFTHS % EIGHTHS == 0 else Part.LEARNED


def films_of(data: Folder, crops: Crops, label: str, least: int) -> tuple[Film, ...]:
    """Films of adults of one label with a plausible crop, from sources with at least so many."""
    cropped = set(crops.ids)
    found = [
        film
        for film in data.films
        if film.label == label and film.source != CHILDREN and film.key in cropped
    ]
    sources = [film.source for film in found]
    return tuple(film for film in found if sources.count(film.source) >= least)


def sources_of(films: Sequence[Film]) -> tuple[str, ...]:
    """In alphabetical order: the order of answers everywhere here."""
    return tuple(sorted({film.source for film in films}))


def tell_sources(
    films: tuple[Film, ...], crops: Crops, sight: Sight, runs: Path, plan: Plan
) -> SourceFigures:
    """Teach one probe and measure it; `films` are of one label and of two sources or more."""
    place, names = training_device(), sources_of(films)
    shown = show(films, crops, sight, place)
    parts = {each: tuple(film for film in films if part(film) is each) for each in Part}
    learn, pick = (
        _side(shown.only(parts[each]), names, place) for each in (Part.LEARNED, Part.PICKED)
    )
    folder = runs / "probes" / f"{films[0].label}-sources-{slug(sight)}"
    network, teaching = teach(learn, pick, len(names), folder, plan)
    measured = shown.only(parts[Part.MEASURED])
    said = ask(network, measured)
    return source_figures(measured.films, said, names, sight, teaching.learned, teaching)


def source_figures(
    measured: Sequence[Film],
    said: NDArray[np.float64],
    names: tuple[str, ...],
    probe: str,
    learned: int,
    teaching: Teaching | None,
) -> SourceFigures:
    """What probabilities (n, sources) for films of one label are worth."""
    truth = truths(measured, names)
    right = (said.argmax(axis=1) == truth).astype(np.float64)
    patients = [patient_key(film) for film in measured]
    rankings = [Ranking(said[:, k], truth == k) for k in range(len(names))]

    def figures(weights: Weights) -> NDArray[np.float64]:
        recalls = [weighted_mean(right, weights * (truth == k)) for k in range(len(names))]
        areas = [ranking.area(weights) for ranking in rankings]
        return np.array([np.mean(recalls), np.mean(areas), *recalls])

    balanced, auc, *recalls = estimates(figures, patients)
    return SourceFigures(
        label=measured[0].label,
        probe=probe,
        sources=names,
        learned=learned,
        measured=len(measured),
        patients=len(set(patients)),
        chance=1 / len(names),
        balanced_accuracy=balanced,
        auc=auc,
        recalls=tuple(recalls),
        teaching=teaching,
    )


def truths(films: Sequence[Film], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Position of each film's source among the names."""
    return np.array([names.index(film.source) for film in films], dtype=np.int64)


def source_weights(truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Every source counts alike; sums to 1."""
    sizes = np.bincount(truth)
    weights: NDArray[np.float64] = 1 / sizes[truth]
    weights /= weights.sum()
    return weights


def patient_key(film: Film) -> str:
    """Patients of two sources are two, whatever they are called."""
    return f"{film.source}/{film.patient}"


def slug(sight: Sight) -> str:
    """As part of a folder's name."""
    return sight.replace(",", "").replace(" ", "-")


def _side(shown: Shown, names: tuple[str, ...], place: torch.device) -> Side:
    truth = truths(shown.films, names)
    return Side(
        shown,
        torch.from_numpy(truth).to(place),
        torch.from_numpy(source_weights(truth)).to(place),
    )


def _lot(film: Film) -> int:
    return int.from_bytes(hashlib.sha256(patient_key(film).encode()).digest()[:8], "big")
