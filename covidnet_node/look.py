"""An image as a reader sees it, before any network has; and the answer where none may look.

Without torch, so that judging, refusing and failing need no network to be loaded.
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from covidnet_node.case import Analysis, Outcome, Reason
from covidnet_node.imaging.decode import decode
from covidnet_node.imaging.digest import identity_digest, pixel_digest
from covidnet_node.imaging.display import to_display
from covidnet_node.imaging.picture import open_picture


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a reader sees it, before any network has."""

    display: NDArray[np.uint8]
    """(rows, columns), 0 black to 255 white."""
    pixel_digest: str
    identity_digest: str
    """Empty for a PNG or JPEG, which says nothing of a patient."""
    notes: tuple[str, ...]
    """What was repaired in the display attributes, for the report."""
    seconds: float
    """Decoding and display pipeline."""


def look(dataset: Dataset) -> Picture:
    """Decode a DICOM image and show it as a monitor would; raises NotAnalyzed."""
    started = perf_counter()
    # Before decoding, which interprets some of the raw elements that the digest covers.
    identity = identity_digest(dataset)
    stored = decode(dataset)
    shown = to_display(dataset, stored)
    digest = pixel_digest(stored)
    return Picture(shown.image, digest, identity, shown.notes, perf_counter() - started)


def look_at_picture(path: Path) -> Picture:
    """Open a PNG or JPEG file; raises NotAnalyzed."""
    started = perf_counter()
    display = open_picture(path)
    return Picture(display, pixel_digest(display), "", (), perf_counter() - started)


def not_analyzed(reason: Reason, detail: str, picture: Picture | None) -> Analysis:
    """The answer without probabilities; `picture` is None if there is nothing to show."""
    decoding = picture.seconds if picture else 0.0
    return Analysis(
        outcome=Outcome.NOT_ANALYZED,
        reason=reason,
        detail=detail,
        display=picture.display if picture else None,
        notes=picture.notes if picture else (),
        seconds={"decode": decoding, "total": decoding},
    )
