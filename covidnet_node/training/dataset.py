"""A folder of chest X-rays with a manifest, as training and evaluation read it.

The splits are the manifest's and by patient; nothing here ever moves a film between them.
"""

import csv
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from covidnet_node.errors import BadConfig


class Split(StrEnum):
    """On which side a patient is. NONE is never trained on (laterals)."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    NONE = "none"


CHILDREN = "kermany"
"""The source whose patients are one to five years old: it would teach age as pneumonia."""

LABELS = {"covid": 0, "pneumonia": 1, "normal": 2}
"""Manifest label to position in intended_use.CLASSES. `other` (tuberculosis, ARDS) and
`unknown` have none: they are never taken for normal."""


CROPS_BY_HAND = {
    "radiography/COVID-1541": "cohen/gr1_lrg-a",
    "radiography/COVID-1544": "cohen/gr1_lrg-b",
    "radiography/COVID-827": "covidcxnet/287",
    "radiography/COVID-852": "covidcxnet/297",
}
"""Films that the manifest knows twice, cut by hand, and the one that is kept. Found among all pairs
of lung crops (correlation above 0.93 at 40 px, then looked at); a digest does not find them."""


@dataclass(frozen=True, slots=True)
class Film:
    """One row of manifest.csv."""

    id: str
    source: str
    patient: str
    label: str
    view: str
    split: Split
    has_mask: bool
    mask_style: str
    """`lung-field`, `lung+heart` or empty."""
    place: str
    """Where it was taken, as far as the manifest's finding_detail says; mostly empty."""

    @property
    def key(self) -> str:
        """Source and id: unique in a folder."""
        return f"{self.source}/{self.id}"


@dataclass(frozen=True, slots=True)
class Folder:
    """A data folder: images/<source>/<id>.jpg, masks/<source>/<id>.png, manifest.csv."""

    path: Path
    films: tuple[Film, ...]
    sha256: str
    """Of manifest.csv, which holds the digest of every original."""

    def display(self, film: Film) -> NDArray[np.uint8]:
        """The image as a reader sees it: uint8 (rows, columns)."""
        with Image.open(self.path / "images" / film.source / f"{film.id}.jpg") as picture:
            return np.asarray(picture.convert("L"))

    def mask(self, film: Film) -> NDArray[np.bool_]:
        """The reference outline in the geometry of the image, in the film's own mask style."""
        with Image.open(self.path / "masks" / film.source / f"{film.id}.png") as picture:
            return np.asarray(picture.convert("L")) >= 128


def open_folder(path: Path) -> Folder:
    """Read manifest.csv; raises BadConfig naming the file and what is missing."""
    file = path / "manifest.csv"
    try:
        text = file.read_bytes()
        rows = csv.DictReader(text.decode("utf-8").splitlines())
        films = tuple(_film(row) for row in rows)
    except OSError as error:
        raise BadConfig(str(file), "file", f"cannot be read: {error}") from error
    except (KeyError, ValueError) as error:
        raise BadConfig(str(file), str(error), "is not as --data describes it") from error
    return Folder(path, _once(films), hashlib.sha256(text).hexdigest())


def with_masks(folder: Folder, split: Split) -> tuple[Film, ...]:
    """What the segmenter learns from, or is measured on."""
    return tuple(film for film in folder.films if film.split is split and film.has_mask)


def for_selfsupervision(folder: Folder) -> tuple[Film, ...]:
    """Every training film whatever its label, known or not; nothing of any other split."""
    return tuple(film for film in folder.films if film.split is Split.TRAIN)


def for_pretraining(folder: Folder, split: Split) -> tuple[Film, ...]:
    """Pneumonia of any cause against normal, children included."""
    return tuple(
        film
        for film in folder.films
        if film.split is split and film.label in {"pneumonia", "normal"}
    )


def for_classes(folder: Folder, split: Split) -> tuple[Film, ...]:
    """COVID-19, pneumonia, normal: adults only, known labels only."""
    return tuple(
        film
        for film in folder.films
        if film.split is split and film.label in LABELS and film.source != CHILDREN
    )


def belongs(film: Film, holds: tuple[str, ...]) -> bool:
    """Whether a film is of one of the given sources (`source`) or parts (`source:label`)."""
    return film.source in holds or f"{film.source}:{film.label}" in holds


def balanced_weights(films: tuple[Film, ...]) -> NDArray[np.float64]:
    """How often to draw each film: every label alike, and within a label sources by root of size.

    Alike they cannot be: twelve films would be shown a hundred times.
    """
    pairs = [(film.label, film.source) for film in films]
    sizes = {pair: pairs.count(pair) for pair in set(pairs)}
    totals = {
        label: sum(size**0.5 for (other, _), size in sizes.items() if other == label)
        for label, _ in sizes
    }
    weights: NDArray[np.float64] = np.array(
        [sizes[pair] ** -0.5 / totals[pair[0]] for pair in pairs]
    )
    weights /= weights.sum()
    return weights


def _once(films: tuple[Film, ...]) -> tuple[Film, ...]:
    there = {film.key for film in films}
    return tuple(film for film in films if CROPS_BY_HAND.get(film.key) not in there)


def _film(row: dict[str, str]) -> Film:
    return Film(
        id=row["id"],
        source=row["source"],
        patient=row["patient_id"],
        label=row["label"],
        view=row["view"],
        split=Split(row["split"]),
        has_mask=row["has_mask"] == "1",
        mask_style=row["mask_style"],
        place=_place(row.get("finding_detail") or ""),
    )


def _place(detail: str) -> str:
    """`location=` of a text like `Pneumonia; age=46; location=Milan, Italy`."""
    parts = (part.strip().partition("=") for part in detail.split(";"))
    return next((value.strip() for key, _, value in parts if key == "location"), "")
