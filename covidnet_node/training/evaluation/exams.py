"""Read any folder with a manifest.csv for measuring; columns may be missing.

Only `id` must be there. What a folder does not say is not guessed: a film without label is
`unknown`, one without view has an unknown view, one without patient is its own patient.
"""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import LATERAL_VIEWS
from covidnet_node.training.dataset import LABELS, Split

ALL = "all"
"""Instead of a split: every frontal film."""
UNKNOWN = "unknown"
OTHER = "other"
_SPELLINGS = {"covid19": "covid", "covid-19": "covid"}
_PICTURES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True, slots=True)
class Exam:
    """One film to measure on."""

    key: str
    """`source/id`, or the id alone."""
    source: str
    patient: str
    label: str
    """covid, pneumonia, normal, other or unknown."""
    view: str
    lateral: bool
    image: Path
    mask: Path | None
    second: Path | None
    """Another annotator's outline of the same convention, from masks_alt/."""
    mask_style: str
    """`lung-field`, `lung+heart`, or unknown."""

    @property
    def truth(self) -> int | None:
        """Position in intended_use.CLASSES; None for `other` and `unknown`."""
        return LABELS.get(self.label)


@dataclass(frozen=True, slots=True)
class Exams:
    """The films of one split, and the laterals beside them."""

    frontal: tuple[Exam, ...]
    lateral: tuple[Exam, ...]
    sha256: str
    """Of manifest.csv."""


def read_exams(folder: Path, split: str, limit: int | None = None) -> Exams:
    """The films of a split (or `all`), and all laterals whatever their split.

    `limit` keeps that many frontal films, and as many laterals, drawn by the hash of their names:
    the same ones every time, from all sources. A manifest without a split column is measured
    whole. Raises BadConfig for a folder that cannot be read and for a split that holds nothing.
    """
    file = folder / "manifest.csv"
    if split not in {ALL, *(each.value for each in Split)}:
        raise BadConfig("evaluate", "--split", f"is {split!r}; must be train, val, test or all")
    try:
        content = file.read_bytes()
        rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
    except OSError as error:
        raise BadConfig(str(file), "file", f"cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadConfig(str(file), "file", f"is not a CSV table in UTF-8: {error}") from error
    read = [(_exam(folder, file, row), row.get("split")) for row in rows]
    frontal = [exam for exam, side in read if not exam.lateral and _wanted(side, split)]
    lateral = [exam for exam, _ in read if exam.lateral]
    if not frontal and not lateral:
        raise BadConfig(str(file), "split", f"no row is in split {split!r}")
    return Exams(
        _drawn(frontal, limit), _drawn(lateral, limit), hashlib.sha256(content).hexdigest()
    )


def _wanted(side: str | None, split: str) -> bool:
    return side is None or split in (ALL, side.strip().lower())


def _drawn(exams: list[Exam], limit: int | None) -> tuple[Exam, ...]:
    if limit is None or len(exams) <= limit:
        return tuple(exams)
    lots = sorted(exams, key=lambda exam: hashlib.sha256(exam.key.encode()).digest())
    kept = {exam.key for exam in lots[:limit]}
    return tuple(exam for exam in exams if exam.key in kept)


def _exam(folder: Path, manifest: Path, row: Mapping[str, str | None]) -> Exam:
    name, source = _cell(row, "id"), _cell(row, "source")
    if not name:
        raise BadConfig(str(manifest), "id", "is missing in a row; every film needs one")
    key = f"{source}/{name}" if source else name
    if ".." in Path(key).parts or Path(key).is_absolute():
        raise BadConfig(str(manifest), "id", f"{key!r} leads out of the folder")
    view = _cell(row, "view") or UNKNOWN
    split = _cell(row, "split").lower()
    mask = folder / "masks" / f"{key}.png"
    second = folder / "masks_alt" / f"{key}.png"
    outlined = _cell(row, "has_mask") != "0" and mask.is_file()
    label = _cell(row, "label").lower()
    label = _SPELLINGS.get(label, label)
    return Exam(
        key=key,
        source=source or UNKNOWN,
        patient=_cell(row, "patient_id") or key,
        label=label if label in {*LABELS, OTHER} else UNKNOWN,
        view=view,
        lateral=view.upper() in LATERAL_VIEWS or (split == Split.NONE.value and view == UNKNOWN),
        image=_picture(folder / "images", key),
        mask=mask if outlined else None,
        second=second if outlined and second.is_file() else None,
        mask_style=_cell(row, "mask_style") or UNKNOWN,
    )


def _cell(row: Mapping[str, str | None], column: str) -> str:
    return (row.get(column) or "").strip()


def _picture(folder: Path, key: str) -> Path:
    """The file as the contract names it, or the same in another format."""
    for suffix in _PICTURES:
        path = folder / f"{key}{suffix}"
        if path.is_file():
            return path
    return folder / f"{key}{_PICTURES[0]}"
