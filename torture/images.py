"""Synthetic images without end: a few phantoms drawn once, each copy with its own identity.

A copy differs from its phantom in its UIDs and its patient's number only, put in place byte for
byte, so that a thousand images cost no drawing.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from covidnet_node.phantom.film import phantom_dataset
from tests.raw_client import body_of

SIDE = 224
"""Small, but large enough to be analyzed."""


@dataclass(frozen=True, slots=True)
class Image:
    """One object, ready for the wire."""

    number: int
    sop_class: str
    syntax: str
    uid: str
    study: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Template:
    sop_class: str
    syntax: str
    data: bytes
    uids: tuple[str, str, str]
    """Study, series and instance as they stand in the data."""
    patient: str


def draw_templates(folder: Path) -> list[_Template]:
    """CR and DX, both photometric interpretations, three syntaxes, a lateral and one too small."""
    small, size = {"rows": 160, "columns": 160}, {"rows": SIDE, "columns": SIDE}
    drawn = [
        phantom_dataset(1, **size, transfer_syntax=ExplicitVRLittleEndian),
        phantom_dataset(2, "diffuse", **size, transfer_syntax=ImplicitVRLittleEndian),
        phantom_dataset(3, "lobar", **size, transfer_syntax=JPEGLSLossless),
        phantom_dataset(4, modality="DX", **size),
        phantom_dataset(5, photometric="MONOCHROME1", **size),
        phantom_dataset(6, view="LL", **size),
        phantom_dataset(7, **small),
    ]
    return [_template(dataset, folder / f"{n}.dcm") for n, dataset in enumerate(drawn)]


def _template(dataset: Dataset, file: Path) -> _Template:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    file.write_bytes(buffer.getvalue())
    sop_class, instance, syntax, data = body_of(file)
    study, series = str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)
    return _Template(sop_class, syntax, data, (study, series, instance), str(dataset.PatientID))


def images(templates: list[_Template], seed: int) -> Iterator[Image]:
    """Endless; the same seed, the same images."""
    chance = random.Random(seed)
    number = 0
    while True:
        number += 1
        template = chance.choice(templates)
        data = template.data
        new = [_uid_like(old, chance) for old in template.uids]
        for old, fresh in zip(template.uids, new, strict=True):
            data = data.replace(old.encode(), fresh.encode())
        patient = f"{number:0{len(template.patient)}d}"
        data = data.replace(template.patient.encode(), patient.encode())
        yield Image(number, template.sop_class, template.syntax, new[2], new[0], data)


def _uid_like(old: str, chance: random.Random) -> str:
    """Another 2.25 UID of the same length, so that no length in the data changes."""
    digits = len(old) - len("2.25.")
    return f"2.25.{chance.randrange(10 ** (digits - 1), min(10**digits, 2**128))}"
