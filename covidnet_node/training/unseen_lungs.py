"""How well lungs are outlined in a hospital whose films the segmenter never saw.

The data has one source per outline convention, so a whole source cannot be left out and still be
measured in its own convention. One hospital of Cohen's collection can: its films are left out of
training and validation, a segmenter of the shipped recipe is trained on the rest, and measured on
them. It is trained for this test alone and never shipped.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from covidnet_node.errors import BadConfig
from covidnet_node.imaging.prepare import scale_mask, segmenter_input
from covidnet_node.models.segment import lung_probabilities
from covidnet_node.training.dataset import Film, Folder, Split, with_masks
from covidnet_node.training.evaluation.card import Block
from covidnet_node.training.evaluation.intervals import Estimate, mean_estimate
from covidnet_node.training.evaluation.outlines import Overlap, overlap
from covidnet_node.training.loop import epochs_done, training_device
from covidnet_node.training.lungs import load_segmenter
from covidnet_node.training.recipe import Recipe
from covidnet_node.training.segmenter import CHANNEL, train_segmenter

BLOCK = Block("unseen lungs", "covidnet-node train unseen-lungs --card")
FOLDER = "unseen-lungs"


@dataclass(frozen=True, slots=True)
class UnseenOrder:
    """How long to train, and how the figures were made."""

    minutes: float
    command: str
    at: datetime
    """UTC."""


@dataclass(frozen=True, slots=True)
class UnseenLungs:
    """Outlines of films from a place that training never saw."""

    place: str
    convention: str
    films: int
    patients: int
    trained_on: int
    """Films with an outline that were left."""
    epochs: int
    dice: Estimate
    iou: Estimate
    boundary: Estimate
    """Mean distance of the edges, percent of the film's diagonal."""
    worst_dice: float


def measure_unseen_lungs(
    data: Folder, runs: Path, order: UnseenOrder, recipe: Recipe
) -> tuple[UnseenLungs, ...]:
    """Train without the recipe's `unseen_place` into runs/unseen-lungs; measure on it alone.

    One result per outline convention of its films. Resumable. Raises BadConfig if no film with
    an outline comes from there.
    """
    place = recipe.segmenter.unseen_place
    kept = tuple(film for film in data.films if place not in film.place)
    unseen = [film for film in data.films if place in film.place and film.has_mask]
    if not unseen:
        raise BadConfig("recipe.toml", "segmenter.unseen_place", f"no outlined film from {place!r}")
    # A folder for each place: a network that has seen the one must never be asked about the other.
    folder = runs / FOLDER / hashlib.sha256(place.encode()).hexdigest()[:12]
    rest = replace(data, films=kept)
    train_segmenter(rest, folder, order.minutes, recipe)
    overlaps = _overlaps(data, unseen, folder, recipe)
    trained_on = len(with_masks(rest, Split.TRAIN))
    epochs = epochs_done(folder / "segmenter")
    return tuple(
        _figures(place, style, overlaps, trained_on, epochs)
        for style in sorted({film.mask_style for film in unseen})
    )


def unseen_lines(found: Sequence[UnseenLungs], order: UnseenOrder) -> Iterator[str]:
    """The card's block, in Markdown."""
    for each in found:
        yield (
            f"- {each.films} films of {each.patients} patients from {each.place}, "
            f"{each.convention}: Dice {each.dice.words()}, worst {each.worst_dice:.3f}; IoU "
            f"{each.iou.words()}; edges apart by {each.boundary.words()} percent of the diagonal."
        )
        yield (
            f"- Trained on {each.trained_on} outlined films of other places, {each.epochs} epochs; "
            "the goal for a source never seen is 0.96."
        )
    yield f"- measured {order.at:%Y-%m-%d %H:%M} UTC by `{order.command}`"


def as_json(found: Sequence[UnseenLungs]) -> str:
    """The figures as JSON."""
    return TypeAdapter(Sequence[UnseenLungs]).dump_json(found, indent=1).decode("utf-8")


def _overlaps(
    data: Folder, films: list[Film], folder: Path, recipe: Recipe
) -> list[tuple[Film, Overlap]]:
    network, place = load_segmenter(folder, recipe), training_device()
    found = []
    for film in films:
        square = segmenter_input(data.display(film), recipe.segmenter.side)
        both = lung_probabilities(network, square.image[None], place)[0]
        rough = both[CHANNEL[film.mask_style]] >= recipe.lungs.threshold
        true = scale_mask(data.mask(film), square.source_shape)
        found.append((film, overlap(square.to_source(rough), true)))
    return found


def _figures(
    place: str, style: str, overlaps: list[tuple[Film, Overlap]], trained_on: int, epochs: int
) -> UnseenLungs:
    mine = [(film, each) for film, each in overlaps if film.mask_style == style]
    names = [film.patient for film, _ in mine]
    edged = [(film.patient, each.boundary) for film, each in mine if each.boundary is not None]
    return UnseenLungs(
        place=place,
        convention=style,
        films=len(mine),
        patients=len(set(names)),
        trained_on=trained_on,
        epochs=epochs,
        dice=mean_estimate([each.dice for _, each in mine], names),
        iou=mean_estimate([each.iou for _, each in mine], names),
        boundary=mean_estimate([apart for _, apart in edged], [name for name, _ in edged]),
        worst_dice=min(each.dice for _, each in mine),
    )
