"""Whether probabilities mean what they say: calibration error and reliability (Guo et al. 2017)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covidnet_node.training.evaluation.classes import COVID19, answered, said, truths
from covidnet_node.training.evaluation.groups import Group, patients
from covidnet_node.training.evaluation.intervals import Estimate, Weights, estimates, mean_estimate

BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """Films whose top probability lies in one bin of equal width."""

    low: float
    high: float
    films: int
    confidence: float | None
    """Mean probability of the most probable class; None in an empty bin."""
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far stated and true shares are apart in one group."""

    group: str
    films: int
    error: Estimate
    """Expected calibration error of the most probable class, 15 bins. Biased upwards in small
    groups, where bins hold few films; the interval is freed of what the draws add to that."""
    error_covid19: Estimate
    """The same of the probability of COVID-19 alone."""
    brier: Estimate
    """Mean squared distance from the truth over all classes, 0 to 2."""
    bins: tuple[Bin, ...]


def calibration(group: Group) -> Calibration | None:
    """Over answered films; None without any."""
    films = answered(group.films)
    if not films:
        return None
    truth, vectors = truths(films), said(films)
    top, right = vectors.max(axis=1), (vectors.argmax(axis=1) == truth).astype(np.float64)
    covid, positive = vectors[:, COVID19], (truth == COVID19).astype(np.float64)
    squares = ((vectors - np.eye(vectors.shape[1])[truth]) ** 2).sum(axis=1)

    def errors(weights: Weights) -> NDArray[np.float64]:
        return np.array(
            [calibration_error(top, right, weights), calibration_error(covid, positive, weights)]
        )

    error, error_covid19 = estimates(errors, patients(films), biased=True)
    brier = mean_estimate(squares.tolist(), patients(films))
    bins = _bins(top, right)
    return Calibration(group.name, len(films), error, error_covid19, brier, bins)


def calibration_error(
    stated: NDArray[np.float64], came_true: NDArray[np.float64], weights: Weights
) -> float:
    """Mean gap between stated and true share over 15 bins, each by its weight, 0 to 1."""
    gaps = np.bincount(_places(stated), weights * (stated - came_true), BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def _bins(stated: NDArray[np.float64], came_true: NDArray[np.float64]) -> tuple[Bin, ...]:
    places = _places(stated)
    found = []
    for index in range(BINS):
        here = places == index
        count = int(here.sum())
        confidence = float(stated[here].mean()) if count else None
        accuracy = float(came_true[here].mean()) if count else None
        found.append(Bin(index / BINS, (index + 1) / BINS, count, confidence, accuracy))
    return tuple(found)


def _places(stated: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each probability; 1.0 belongs to the last."""
    return np.minimum((stated * BINS).astype(np.int64), BINS - 1)
