"""Can COVID-19 be learned without the lungs? From silhouettes, from black lungs; and with them.

The harder question than what shipped members say of films whose lungs are gone
(evaluation/blank_lungs.py): these probes were taught on such films. Taught on the train split,
epoch picked on val, measured on test; adults only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from covidnet_node.errors import BadConfig
from covidnet_node.training.dataset import Split, balanced_weights
from covidnet_node.training.evaluation.groups import MINED
from covidnet_node.training.evaluation.intervals import Estimate, area
from covidnet_node.training.loop import training_device
from covidnet_node.training.probing.probe import Plan, Side, Teaching, ask, teach
from covidnet_node.training.probing.sights import Shown, Sight
from covidnet_node.training.probing.sources import patient_key, slug

COVID = "covid"
SIGHTS = (Sight.SILHOUETTE, Sight.BLACK, Sight.CONTRAST, Sight.CROP)


@dataclass(frozen=True, slots=True)
class CovidFigures:
    """How well one probe tells COVID-19 from the rest, on one group of the test split."""

    probe: str
    """What it was shown."""
    group: str
    films: int
    patients: int
    covid19: int
    """Films with it."""
    auc: Estimate
    teaching: Teaching


def tell_covid(shown: Shown, runs: Path, plan: Plan) -> tuple[CovidFigures, ...]:
    """Teach one probe on adults of all splits as they are shown, and measure it on test.

    Raises BadConfig if a split does not hold both answers.
    """
    place = training_device()
    learn, pick, test = (
        _side(shown, split, place) for split in (Split.TRAIN, Split.VAL, Split.TEST)
    )
    folder = runs / "probes" / f"covid-from-{slug(shown.sight)}"
    network, teaching = teach(learn, pick, 2, folder, plan)
    scores = ask(network, test.shown)[:, 1].tolist()
    films = test.shown.films
    everyone = range(len(films))
    without = [row for row in everyone if films[row].source != MINED]
    groups: list[tuple[str, Sequence[int]]] = [("all adults", everyone)]
    if 0 < len(without) < len(films):
        groups.append((f"all adults without {MINED}", without))
    return tuple(_figures(test, scores, name, rows, teaching) for name, rows in groups)


def _figures(
    test: Side, scores: Sequence[float], group: str, rows: Sequence[int], teaching: Teaching
) -> CovidFigures:
    films = [test.shown.films[row] for row in rows]
    truth = [film.label == COVID for film in films]
    patients = [patient_key(film) for film in films]
    return CovidFigures(
        probe=test.shown.sight,
        group=group,
        films=len(films),
        patients=len(set(patients)),
        covid19=sum(truth),
        auc=area([scores[row] for row in rows], truth, patients),
        teaching=teaching,
    )


def _side(shown: Shown, split: Split, place: torch.device) -> Side:
    part = shown.only([film for film in shown.films if film.split is split])
    truth = [int(film.label == COVID) for film in part.films]
    if len(set(truth)) < 2:
        raise BadConfig("manifest.csv", f"split {split}", "must hold adults with COVID-19 and not")
    return Side(
        part,
        torch.tensor(truth, device=place),
        torch.from_numpy(balanced_weights(part.films)).to(place),
    )
