"""Leave a group of films out, train without it, and ask what was learned about that group.

Groups are sources that share hospitals or copies (recipe.toml, [[group]]). Nothing of a group
enters its run: not self-supervision, not pretraining, not fine-tuning, not the validation that
picks the epoch and the temperature. Only the lungs are cut out for all groups alike, by the runs
folder's segmenter, which may have seen outlines of a group's films.

A class that the remaining validation films lack could not be looked after by them: every tenth
training patient of that class is lent to validation. Test films are never lent.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from covidnet_node.training.calibrate import fit_temperature, outputs
from covidnet_node.training.crops import Crops, load_crops
from covidnet_node.training.dataset import (
    CHILDREN,
    LABELS,
    Film,
    Folder,
    Split,
    belongs,
    for_classes,
    for_pretraining,
)
from covidnet_node.training.recipe import GroupRecipe, Recipe
from covidnet_node.training.scores import FILE as SCORES
from covidnet_node.training.scores import Score, read_scores, scores_of, write_scores
from covidnet_node.training.selfsupervise import selfsupervise_member
from covidnet_node.training.trial import (
    Effort,
    Setup,
    alone,
    efforts,
    open_trial,
    setup_of,
    train_trial,
)

FOLDER = "leave-out"
RESULT = "result.json"
LENT = 10
"""Every so many-th training patient of a class that validation lacks is lent to it."""
SELFSUPERVISE_SHARE = 0.2
"""Of a group's minutes, if asked for."""


@dataclass(frozen=True, slots=True)
class LeaveOutOrder:
    """What was asked for."""

    member: str
    minutes: float
    """Shared alike by the groups that have films."""
    self_supervised: bool
    """Restore masked films first, without the group: it takes part of the same minutes."""
    command: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Result:
    """How a group's run went; its scores stand beside it."""

    setup: Setup
    efforts: tuple[Effort, ...]
    training: tuple[int, ...]
    """Films fine-tuned on, in the order of intended_use.CLASSES."""
    validation: tuple[int, ...]
    """Those of them that were lent included."""
    lent: int
    """Films lent to validation."""
    temperature: float
    films: int
    """Frontal adult films of the group with a label of the three classes."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A group and what was said of it by a member that never saw it."""

    group: GroupRecipe
    result: Result
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """A group of which nothing can be said."""

    group: str
    why: str


def leave_out(
    data: Folder, runs: Path, order: LeaveOutOrder, recipe: Recipe
) -> tuple[tuple[LeftOut, ...], tuple[Missing, ...]]:
    """One run a group, into runs/leave-out/GROUP; a group with scores.csv is done.

    Raises BadConfig if the lungs have not been cut out, or a folder holds another trial.
    """
    found: list[LeftOut] = []
    missing = {group.name: _why_missing(data, group) for group in recipe.groups}
    present = [group for group in recipe.groups if not missing[group.name]]
    for group in present:
        folder = runs / FOLDER / group.name
        setup = setup_of(
            data, runs, order.member, recipe, group.holds, self_supervised=order.self_supervised
        )
        open_trial(runs, folder, setup)
        if not (folder / SCORES).exists():
            Console().rule(f"{FOLDER} {group.name}")
            missing[group.name] = _nothing_to_do(data, group, load_crops(runs))
            if missing[group.name]:
                continue
            _train(data, group, folder, order, order.minutes / len(present), recipe)
            _score(data, group, folder, setup, recipe)
        result = TypeAdapter(Result).validate_json((folder / RESULT).read_bytes())
        found.append(LeftOut(group, result, read_scores(folder / SCORES)))
    return tuple(found), tuple(Missing(name, why) for name, why in missing.items() if why)


def remaining(data: Folder, holds: tuple[str, ...]) -> Folder:
    """The folder without any film of a group, in any split; validation has every class it can.

    Films of other sources go too if their patient is in the group: they may be copies.
    """
    group = {film.patient for film in data.films if belongs(film, holds)}
    films = [f for f in data.films if not belongs(f, holds) and f.patient not in group]
    lenders = {patient for label in LABELS for patient in _lenders(films, label)}
    return replace(
        data,
        films=tuple(
            replace(film, split=Split.VAL)
            if film.split is Split.TRAIN and film.patient in lenders
            else film
            for film in films
        ),
    )


def to_be_scored(data: Folder, holds: tuple[str, ...]) -> tuple[Film, ...]:
    """The group's frontal adult films with a label of the three classes, of every split."""
    splits = (Split.TRAIN, Split.VAL, Split.TEST)
    films = (film for split in splits for film in for_classes(data, split))
    return tuple(film for film in films if belongs(film, holds))


def _lenders(films: Iterable[Film], label: str) -> list[str]:
    adults = [film for film in films if film.label == label and film.source != CHILDREN]
    if any(film.split is Split.VAL for film in adults):
        return []
    patients = sorted({film.patient for film in adults if film.split is Split.TRAIN})
    return patients[::LENT] if len(patients) > 1 else []


def _why_missing(data: Folder, group: GroupRecipe) -> str:
    """Empty if there is something to score."""
    return "" if to_be_scored(data, group.holds) else "the data folder has no film of it"


def _nothing_to_do(data: Folder, group: GroupRecipe, crops: Crops) -> str:
    """Empty if the group has lungs to score, and films with lungs remain to learn from."""
    rest = remaining(data, group.holds)
    if not _with_lungs(to_be_scored(data, group.holds), crops):
        return "no film of it has plausible lungs"
    learned = (for_pretraining(rest, Split.TRAIN), for_classes(rest, Split.TRAIN))
    picking = for_classes(rest, Split.VAL)
    if not all(_with_lungs(films, crops) for films in (*learned, picking)):
        return "without it there is nothing to learn from"
    return ""


def _train(
    data: Folder,
    group: GroupRecipe,
    folder: Path,
    order: LeaveOutOrder,
    minutes: float,
    recipe: Recipe,
) -> None:
    rest, name = remaining(data, group.holds), order.member
    if order.self_supervised:
        selfsupervise_member(rest, folder, name, SELFSUPERVISE_SHARE * minutes, recipe)
        minutes *= 1 - SELFSUPERVISE_SHARE
    train_trial(rest, folder, name, minutes, recipe)


def _score(data: Folder, group: GroupRecipe, folder: Path, setup: Setup, recipe: Recipe) -> None:
    """Fit the temperature on what remains, then ask about the group; scores.csv comes last."""
    rest, single = remaining(data, group.holds), alone(recipe, setup.member)
    crops = load_crops(folder)
    temperature = fit_temperature(outputs(for_classes(rest, Split.VAL), crops, folder, single))
    films = to_be_scored(data, group.holds)
    splits = {film.key: film.split for film in data.films}
    result = Result(
        setup=setup,
        efforts=efforts(folder, setup.member),
        training=_per_class(_with_lungs(for_classes(rest, Split.TRAIN), crops)),
        validation=_per_class(_with_lungs(for_classes(rest, Split.VAL), crops)),
        lent=sum(film.split is not splits[film.key] for film in rest.films),
        temperature=temperature,
        films=len(films),
    )
    (folder / RESULT).write_bytes(TypeAdapter(Result).dump_json(result, indent=1))
    scores = scores_of(outputs(films, crops, folder, single), temperature)
    write_scores(scores, folder / SCORES)


def _with_lungs(films: tuple[Film, ...], crops: Crops) -> tuple[Film, ...]:
    known = set(crops.ids)
    return tuple(film for film in films if film.key in known)


def _per_class(films: tuple[Film, ...]) -> tuple[int, ...]:
    labels = [film.label for film in films]
    return tuple(labels.count(label) for label in LABELS)
