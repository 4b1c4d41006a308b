"""Pictures of the shared data as DX objects: a made-up identity each, no two alike in form."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.filewriter import dcmwrite

from covidnet_node.config import Results
from covidnet_node.phantom.film import phantom_dataset

NAMES: tuple[tuple[str | list[str], str], ...] = (
    ("ISO_IR 100", "Müller^Jörg"),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("", "PHANTOM^FILM"),
)
"""Character set and patient's name."""
ALL = Results(
    heatmap="plain_and_overlay", contours=True, segmentation=True, evidence_map=True, page=True
)
PROFILES = tuple(
    ALL.model_copy(update=changes)
    for changes in (
        {},
        {"heatmap_syntax": "rle", "report": "comprehensive"},
        {"heatmap_syntax": "jpeg_lossless", "report": "enhanced", "character_set": "utf8"},
        {"heatmap_syntax": "jpeg_baseline", "series_prefix": "SITE ", "report_series_number": 7},
    )
)
"""What a destination may want; together they hold every kind, class and syntax."""
BITS = (12, 8, 10, 14, 16)


@dataclass(frozen=True, slots=True)
class Film:
    """One picture of the data, and its number, which decides how it is wrapped."""

    path: Path
    source: str
    label: str
    number: int

    @property
    def profile(self) -> Results:
        return PROFILES[self.number % len(PROFILES)]


def some_films(shared: Path, how_many: int) -> Iterator[Film]:
    """Every n-th picture of the data, so that every source has its turn."""
    with (shared / "data" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows[:: len(rows) // how_many][:how_many], 1):
        (path,) = (shared / "data" / "images" / row["source"]).glob(f"{row['id']}.*")
        yield Film(path, row["source"], row["label"], number)


def wrap(film: Film, folder: Path) -> Path:
    """Put a film into a DX object: one of several depths, polarities, names, sizes, places."""
    number = film.number
    gray = Image.open(film.path).convert("L")
    if number % 5 == 0:
        gray = gray.resize((2 * gray.width, 2 * gray.height))
    charset, name = NAMES[number % len(NAMES)]
    bits = BITS[number % len(BITS)]
    dark = number % 4 == 3
    wrapped = phantom_dataset(
        number,
        rows=128,
        columns=128,
        modality="DX",
        photometric="MONOCHROME1" if dark else "MONOCHROME2",
        bits=bits,
        charset=charset,
        name=name,
        age=None if number % 6 == 0 else 20 + number % 70,
        view=("PA", "AP")[number % 2],
    )
    values = np.asarray(gray, np.uint16)
    values = (255 - values if dark else values) << (bits - 8)
    wrapped.Rows, wrapped.Columns = values.shape
    data = values.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    wrapped.PixelData = data + b"\0" * (len(data) % 2)
    if number % 3 == 0:
        _place(wrapped, number)
    path = folder / f"{number}.dcm"
    dcmwrite(path, wrapped, enforce_file_format=True)
    return path


def _place(wrapped: FileDataset, number: int) -> None:
    """Give it a frame of reference, as few detectors do: only then is there an evidence map."""
    wrapped.FrameOfReferenceUID = f"2.25.{1000 + number}"
    wrapped.PositionReferenceIndicator = ""
    wrapped.ImagePositionPatient = [str(-number), "0", "120.5"]
    wrapped.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    wrapped.PixelSpacing = ["0.8", "0.8"]
