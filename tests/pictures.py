"""Orders for everything that can be shown of one image: two lungs, one peak."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from covidnet_node.case import Analysis, Explanation, ResultKind
from covidnet_node.config import Results
from covidnet_node.reports.encode import encode
from covidnet_node.reports.order import Built, Order
from covidnet_node.reports.results import build_results
from tests.conftest import need_program
from tests.orders import ANALYZED, header, order

ROWS, COLUMNS = 160, 120
ALL = Results(
    heatmap="plain_and_overlay", contours=True, segmentation=True, evidence_map=True, page=True
)
IN_SPACE = {
    "SOPClassUID": DigitalXRayImageStorageForPresentation,
    "Modality": "DX",
    "FrameOfReferenceUID": "1.2.3.9",
    "PixelSpacing": ["1.5", "1.5"],
    "ImagePositionPatient": ["-90", "0", "120"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "0", "-1"],
}
SLOPE = np.add.outer(np.arange(ROWS + 30), np.arange(COLUMNS)) * 3 // 4
PICTURE = np.stack([SLOPE, 255 - SLOPE, SLOPE // 2], axis=-1).astype(np.uint8)
PICTURE[10:20, 10:50] = (64, 200, 255)
PLAIN = PICTURE // 2


def lungs() -> np.ndarray:
    """Two ellipses; the one at the left of the image is the larger."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    left = ((column - 36) / 22) ** 2 + ((row - 80) / 60) ** 2 < 1
    right = ((column - 86) / 18) ** 2 + ((row - 80) / 55) ** 2 < 1
    return np.asarray(left | right)


def seen(**changes: object) -> Analysis:
    """An analyzed image with lungs and a peak in the lung at the left."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    heat = np.exp(-(((column - 36) / 8) ** 2) - ((row - 100) / 10) ** 2).astype(np.float32)
    found = replace(
        ANALYZED,
        lungs=lungs(),
        display=np.where(lungs(), 60, 190).astype(np.uint8),
        explanation=Explanation(heat, "covid19", 0.9),
    )
    return replace(found, **changes)


def image(**changes: object) -> Dataset:
    """A grayscale header of the size of the lungs."""
    made = header(**changes)
    made.Rows, made.Columns = ROWS, COLUMNS
    made.SamplesPerPixel = 1
    if "PhotometricInterpretation" not in made:
        made.PhotometricInterpretation = "MONOCHROME2"
    return made


def whole(source: Dataset | None = None, **changes: object) -> Order:
    """An order for everything, of an image that has it all."""
    made = order(image(**IN_SPACE) if source is None else source, analysis=seen(), profile=ALL)
    return replace(made, **({"heatmap": PICTURE, "plain": PLAIN} | changes))


def built(made: Order) -> dict[ResultKind, Built]:
    return {each.kind: each for each in build_results(made)}


def one(kind: ResultKind, made: Order | None = None) -> Dataset:
    return built(whole() if made is None else made)[kind].dataset


def complaints(path: Path) -> list[str]:
    done = subprocess.run(
        [need_program("dciodvfy"), str(path)], capture_output=True, check=False, timeout=60
    )
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.startswith("Error")]


SYNTAXES = {
    "explicit_little_endian": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg_lossless": JPEGLosslessSV1,
    "jpeg_baseline": JPEGBaseline8Bit,
}


def encoded(syntax: str) -> bytes:
    profile = Results.model_validate({"heatmap_syntax": syntax})
    return encode(one(ResultKind.HEATMAP, whole(profile=profile)))
