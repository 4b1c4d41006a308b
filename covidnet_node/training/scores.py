"""What a model says of films that it never learned from, one line a film."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from covidnet_node.training.calibrate import Outputs
from covidnet_node.training.dataset import LABELS

FILE = "scores.csv"


@dataclass(frozen=True, slots=True)
class Score:
    """Probabilities of one film."""

    source: str
    id: str
    patient: str
    label: str
    view: str
    split: str
    covid19: float
    pneumonia: float
    normal: float


def scores_of(told: Outputs, temperature: float) -> tuple[Score, ...]:
    """The first member's probabilities of every film."""
    said = torch.softmax(told.logits[0].double() / temperature, dim=-1).tolist()
    return tuple(
        Score(film.source, film.id, film.patient, film.label, film.view, film.split.value, *each)
        for film, each in zip(told.films, said, strict=True)
    )


def truths(scores: Sequence[Score]) -> NDArray[np.int64]:
    """(n,): positions in intended_use.CLASSES."""
    return np.array([LABELS[score.label] for score in scores], np.int64)


def vectors(scores: Sequence[Score]) -> NDArray[np.float64]:
    """(n, 3): probabilities in the order of intended_use.CLASSES."""
    rows = [(score.covid19, score.pneumonia, score.normal) for score in scores]
    return np.array(rows, np.float64).reshape(-1, len(LABELS))


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Written beside and renamed: a file that is there is whole."""
    fresh = path.with_suffix(".new")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Score))
        for score in scores:
            said = (f"{value:.6f}" for value in (score.covid19, score.pneumonia, score.normal))
            writer.writerow(
                (score.source, score.id, score.patient, score.label, score.view, score.split, *said)
            )
    fresh.replace(path)


def read_scores(path: Path) -> tuple[Score, ...]:
    """Read what write_scores wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(
            Score(
                source=row["source"],
                id=row["id"],
                patient=row["patient"],
                label=row["label"],
                view=row["view"],
                split=row["split"],
                covid19=float(row["covid19"]),
                pneumonia=float(row["pneumonia"]),
                normal=float(row["normal"]),
            )
            for row in csv.DictReader(file)
        )
