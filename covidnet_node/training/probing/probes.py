"""All probes in their order, on one runs folder: what `covidnet-node train probes` does."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from pydantic import TypeAdapter

from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import NOTICE
from covidnet_node.training.begun import CROPS, FILE, digest_of_file, hold_to
from covidnet_node.training.crops import Crops, load_crops, made_of
from covidnet_node.training.dataset import Film, Folder, Split, for_classes
from covidnet_node.training.loop import training_device
from covidnet_node.training.probing import covid
from covidnet_node.training.probing import sources as hospitals
from covidnet_node.training.probing.black_lungs import show_black_lungs
from covidnet_node.training.probing.covid import CovidFigures, tell_covid
from covidnet_node.training.probing.features import members_are_trained, tell_sources_from_features
from covidnet_node.training.probing.probe import STAGE, Plan
from covidnet_node.training.probing.sights import SIDE, Shown, Sight, show
from covidnet_node.training.probing.sources import SourceFigures, films_of, sources_of, tell_sources
from covidnet_node.training.recipe import Recipe, Stage

LEAST = 100
"""Films that a source must have of a label to be told apart: a dozen teach nothing."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do and how it was asked for."""

    minutes: float
    """Shared alike among the taught probes; cutting and linear probes come on top."""
    command: str
    at: datetime
    """UTC."""
    least: int = LEAST
    """Films of a label that a source must have."""
    stage: Stage = STAGE


@dataclass(frozen=True, slots=True)
class Probes:
    """What the probes learned from what should not matter."""

    notice: str
    command: str
    at: datetime
    data_sha256: str
    """Of manifest.csv."""
    seed: int
    side: int
    """Pixels of the squares the probes see."""
    device: str
    minutes: float
    """Allowed for all taught probes together."""
    minutes_each: float
    most_epochs: int
    members_probed: bool
    """Whether the runs folder held trained members to read features from."""
    sources: tuple[SourceFigures, ...]
    covid19: tuple[CovidFigures, ...]


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the probes of a runs folder were taught on."""

    crops_sha256: str
    black_lungs: str
    seed: int


def run_probes(data: Folder, runs: Path, order: Order, recipe: Recipe) -> Probes:
    """Teach and measure every probe into runs/probes; a run that was stopped goes on.

    Needs what `train segmenter` left; linear probes need trained members as well. Raises
    BadConfig if there are no crops, or if runs/probes was begun on others.
    """
    torch.set_num_threads(recipe.threads)
    crops = _crops(runs)
    taught_on = _Begun(digest_of_file(runs / CROPS), made_of(data, runs, recipe), recipe.seed)
    hold_to(runs / "probes" / FILE, taught_on)
    asked = {
        label: films
        for label in hospitals.LABELS_ASKED
        if len(sources_of(films := films_of(data, crops, label, order.least))) > 1
    }
    each = order.minutes / (len(asked) * len(hospitals.SIGHTS) + len(covid.SIGHTS))
    plan = Plan(each, recipe.seed, order.stage)
    sources: list[SourceFigures] = []
    trained = members_are_trained(runs, recipe)
    for films in asked.values():
        for sight in hospitals.SIGHTS:
            sources.append(tell_sources(films, crops, sight, runs, plan))
        if trained:
            sources += tell_sources_from_features(films, crops, runs, recipe)
    lungless: list[CovidFigures] = []
    for sight in covid.SIGHTS:
        lungless += tell_covid(_show(data, crops, sight, runs, recipe), runs, plan)
    return Probes(
        notice=NOTICE,
        command=order.command,
        at=order.at,
        data_sha256=data.sha256,
        seed=recipe.seed,
        side=SIDE,
        device=training_device().type,
        minutes=order.minutes,
        minutes_each=each,
        most_epochs=order.stage.epochs,
        members_probed=trained,
        sources=tuple(sources),
        covid19=tuple(lungless),
    )


def as_json(probes: Probes) -> str:
    """The figures as JSON; undefined ones are null."""
    return TypeAdapter(Probes).dump_json(probes, indent=1).decode("utf-8")


def _crops(runs: Path) -> Crops:
    try:
        return load_crops(runs)
    except FileNotFoundError as error:
        raise BadConfig(str(runs), "--runs", "holds no crops.npz: train segmenter first") from error
    except KeyError as error:
        remedy = "its crops.npz is of an older version: train segmenter again"
        raise BadConfig(str(runs), "--runs", remedy) from error


def _show(data: Folder, crops: Crops, sight: Sight, runs: Path, recipe: Recipe) -> Shown:
    """Adults of all splits; for each sight the same films."""
    cropped = set(crops.ids)
    films: tuple[Film, ...] = tuple(
        film
        for split in (Split.TRAIN, Split.VAL, Split.TEST)
        for film in for_classes(data, split)
        if film.key in cropped
    )
    if sight in (Sight.BLACK, Sight.CONTRAST):
        return show_black_lungs(data, films, runs, recipe, sight)
    return show(films, crops, sight, training_device())
