"""What a probe is shown of a film, shrunk to a small square.

`Shown.images` are as they are learned from; what may differ between two showings of one film is in
`vary`. A silhouette is drawn from the mask alone: no gray value of the film enters it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Generator, Tensor
from torch.nn import functional

from covidnet_node.training import augment
from covidnet_node.training.crops import Crops, squares
from covidnet_node.training.dataset import Film

SIDE = 80
"""Pixels: half the side of a member's crop."""

GRAY = 128
"""Of 255: what the outside of a crop is filled with."""


class Sight(StrEnum):
    """What is left of a film."""

    WHOLE = "whole film"
    CROP = "lung crop"
    STYLED = "lung crop, style varied"
    """With the style changes of the members' training, in learning and in measuring."""
    SILHOUETTE = "silhouette"
    """The grown outline of the lungs, black on mid-gray: the shape of what members may see."""
    BLACK = "black lungs"
    """The crop with its outside kept and the inside of the silhouette black."""
    CONTRAST = "black lungs, outside in full contrast"
    """The same, but on the gray scale of the outside: on that of the lungs most of it is white."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Films as a probe sees them."""

    films: tuple[Film, ...]
    sight: Sight
    images: Tensor
    """(n, 1, SIDE, SIDE) uint8"""
    inside: Tensor
    """(n, 1, SIDE, SIDE) uint8, 0 or 255: what is not outside."""

    def only(self, films: Sequence[Film]) -> "Shown":
        """Those of the given films that are here, in their order here."""
        wanted = set(films)
        rows = [row for row, film in enumerate(self.films) if film in wanted]
        return Shown(
            tuple(self.films[row] for row in rows),
            self.sight,
            self.images[rows],
            self.inside[rows],
        )


def show(films: tuple[Film, ...], crops: Crops, sight: Sight, place: torch.device) -> Shown:
    """The films that have a plausible crop, from what cut_crops kept: no outside of crops."""
    found = squares(films, crops, place, whole=sight is Sight.WHOLE)
    inside = shrink(found.masks[:, :1]) > 127
    images = shrink(found.images)
    if sight is Sight.SILHOUETTE:
        images = torch.zeros_like(images)
    return Shown(
        found.films,
        sight,
        torch.where(inside, images, GRAY).to(torch.uint8),
        inside.to(torch.uint8) * 255,
    )


def shrink(squares_: Tensor) -> Tensor:
    """(n, 1, side, side) uint8 to (n, 1, SIDE, SIDE) uint8, averaging."""
    parts = [
        functional.interpolate(part.float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        for part in torch.split(squares_, 256)
    ]
    return torch.cat(parts).round().clamp(0, 255).to(torch.uint8)


def vary(shown: Shown, rows: Tensor, generator: Generator) -> Tensor:
    """Films as they are learned from, 0 to 1: mirrored and moved a little, style only if asked.

    No more than that: a probe may use whatever tells a source, gray scale and place included.
    """
    stack = torch.cat([shown.images[rows], shown.inside[rows]], 1).float() / 255
    moved = augment.move(stack, 0.3, generator)
    inside = moved[:, 1:] > 0.5
    if shown.sight is Sight.SILHOUETTE:
        return _where(inside, torch.zeros_like(moved[:, :1]))
    if shown.sight is Sight.STYLED:
        return _rescan(moved[:, :1], inside, generator)
    return _where(inside, moved[:, :1])


def plain(shown: Shown, rows: Tensor, generator: Generator) -> Tensor:
    """Films as they are measured, 0 to 1: in place; style varied only if asked."""
    images = shown.images[rows].float() / 255
    if shown.sight is Sight.STYLED:
        return _rescan(images, shown.inside[rows] > 127, generator)
    return images


def _rescan(images: Tensor, inside: Tensor, generator: Generator) -> Tensor:
    """As the members' training does, but for the roughened outline."""
    graded = _where(inside, augment.regrade(images, generator))
    return _where(inside, augment.rescan(graded, generator))


def _where(inside: Tensor, images: Tensor) -> Tensor:
    return torch.where(inside, images, GRAY / 255)
