"""Results really built, from synthetic films, so that the statement can tell what is in them.

What is written about an attribute (whence it comes, whether it is always there) is found by
building every kind of object from several sources, answers, weights and profiles, and comparing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Literal

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.ndimage import gaussian_filter

from covidnet_node.case import (
    Algorithm,
    Analysis,
    Explanation,
    Member,
    Outcome,
    Probabilities,
    Reason,
    ResultKind,
)
from covidnet_node.config import Results
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.reports.identity import REQUIRED_EMPTY
from covidnet_node.reports.order import Order, Reference
from covidnet_node.service.results import make_results

SIDES = (320, 336, 352)
"""Of the sources, in pixels; each its own, so that a size that is carried over shows as such."""
_LACKING = ("SpecificCharacterSet", "BodyPartExamined", "PatientAge", "PatientOrientation",
            "StudyDescription", "BurnedInAnnotation", "LossyImageCompression")  # fmt: skip
FULL = Results(
    heatmap="plain_and_overlay", contours=True, segmentation=True, evidence_map=True, page=True
)
PROFILES = (
    FULL,
    FULL.model_copy(update={"report": "comprehensive", "heatmap_syntax": "rle"}),
    FULL.model_copy(update={"report": "enhanced", "heatmap_syntax": "jpeg_lossless"}),
    FULL.model_copy(
        update={
            "heatmap_syntax": "jpeg_baseline",
            "report_series_number": 7001,
            "heatmap_series_number": 7002,
            "series_prefix": "SITE ",
        }
    ),
)

COVID19 = Probabilities(0.9, 0.06, 0.04)
NORMAL = Probabilities(0.02, 0.08, 0.9)
DISAGREEING = Probabilities(0.45, 0.4, 0.15)


@dataclass(frozen=True, slots=True)
class Example:
    """One object as a destination would read it, and the image it answers."""

    kind: ResultKind
    dataset: Dataset
    source: Dataset
    profile: Results


def build_examples() -> tuple[Example, ...]:
    """Build every kind of object in every way that may change what is in it.

    As the node does it, through the gate: raises Park if that objects.
    """
    return tuple(example for order in _orders() for example in _build(order))


def _build(order: Order) -> Iterator[Example]:
    for finished in make_results(order):
        dataset = dcmread(BytesIO(finished.data))
        yield Example(finished.kind, dataset, order.source, order.profile)


def _orders() -> Iterator[Order]:
    sources = (_placed(), _plain(), _bare())
    refused = Analysis(Outcome.NOT_ANALYZED, Reason.LATERAL, "ViewPosition shows a lateral view")
    for number, source in enumerate(sources):
        side = SIDES[number]
        yield _order(source, _answer(side, None, COVID19), number, FULL)
        unsure = _answer(side, Reason.MEMBERS_DISAGREE, DISAGREEING)
        yield _order(source, unsure, number, FULL)
        yield _order(source, refused, number, FULL)
    first = sources[0]
    yield _order(first, _answer(SIDES[0], None, NORMAL), 0, FULL)
    for profile in PROFILES[1:]:
        yield _order(first, _answer(SIDES[0], None, COVID19), 0, profile)
    earlier = Reference("2.25.10", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.11")
    again = _order(first, _answer(SIDES[0], None, COVID19), 3, FULL)
    yield replace(again, predecessor=earlier)
    yield replace(_order(first, refused, 0, FULL), algorithm=None, identity_digest="", program="")


def _order(source: Dataset, answer: Analysis, number: int, profile: Results) -> Order:
    algorithm = Algorithm(
        name="CovidNet ensemble" if number == 0 else f"CovidNet ensemble {number}",
        version=f"2026.{number}",
        digest=f"{number}a" * 32,
        covid19_threshold=0.5 - number / 100,
        calibration="temperature scaling",
        notice="Provisional weights." if number == 0 else "",
    )
    return Order(
        source=source,
        analysis=answer,
        algorithm=algorithm,
        content_at=datetime(2026, 11, 23 + number, 10 + number, 30, tzinfo=UTC),
        pixel_digest=f"pixels {number}",
        identity_digest=f"identity {number}",
        admission_notes=("The age of the patient is not known; intended use is adults.",)
        if number
        else (),
        profile=profile,
        program=f"0.1.{number}",
    )


def _answer(side: int, reason: Reason | None, said: Probabilities) -> Analysis:
    lungs = np.zeros((side, side), np.bool_)
    lungs[60:260, 50:140] = lungs[60:260, 180:270] = True
    spot = np.zeros((side, side), np.float32)
    spot[200, 90] = 1.0
    spot = gaussian_filter(spot, 20)
    heatmap = (spot / spot.max()).astype(np.float32)
    named = max(("covid19", "pneumonia", "normal"), key=said.of)
    return Analysis(
        outcome=Outcome.INCONCLUSIVE if reason else Outcome.ANALYZED,
        reason=reason,
        display=np.full((side, side), 128, np.uint8),
        lungs=lungs,
        lung_area_fraction=float(lungs.mean()),
        probabilities=said,
        members=(Member("A", said), Member("B", said)),
        disagreement=0.05,
        out_of_distribution=0.1,
        explanation=Explanation(heatmap, named, 0.9),
        notes=("The window was unusual and was not used.",) if reason else (),
    )


def _placed() -> Dataset:
    """A DX image with all that a source may give, the place in the patient included."""
    source = _film(0, "DX")
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "2.25.99", "ISO"
    for keyword, value in {
        "TimezoneOffsetFromUTC": "+0200",
        "IssuerOfPatientID": "HOSPITAL-1",
        "IssuerOfPatientIDQualifiersSequence": [issuer],
        "IssuerOfAccessionNumberSequence": [issuer],
        "BurnedInAnnotation": "YES",
    }.items():
        setattr(source, keyword, value)
    return _reread(_located(source, "2.25.77", ("0", "0.4")))


def _plain() -> Dataset:
    """A CR image of another patient."""
    source = _film(1, "CR")
    source.BurnedInAnnotation = "NO"
    source.LossyImageCompression = "00"
    return _reread(_located(source, "2.25.78", ("10", "0.3")))


def _located(source: Dataset, frame: str, numbers: tuple[str, str]) -> Dataset:
    """Give it a request and a place in the patient, its own ones."""
    request = Dataset()
    request.RequestedProcedureID = f"RP {frame}"
    request.RequestedProcedureDescription = f"Chest {frame}"
    request.AccessionNumber = f"ACC {frame}"
    source.RequestAttributesSequence = [request]
    source.AccessionNumber, source.StudyID = f"ACC {frame}", f"ST {frame}"
    source.ReferringPhysicianName = f"Ref^{frame}"
    source.FrameOfReferenceUID = frame
    at, spacing = numbers
    source.ImagePositionPatient = [at, at, at]
    source.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1" if at == "0" else "1"]
    source.PixelSpacing = [spacing, spacing]
    return source


def _bare() -> Dataset:
    """An image that lacks what the standard asks of it."""
    source = _film(2, "CR")
    for keyword in (*REQUIRED_EMPTY, *_LACKING):
        if keyword in source:
            del source[keyword]
    return _reread(source)


def _film(number: int, modality: Literal["CR", "DX"]) -> Dataset:
    side = SIDES[number]
    film = phantom_dataset(number, "diffuse", modality=modality, rows=side, columns=side)
    film.Manufacturer, film.ManufacturerModelName = "Maker of detectors", f"Model {number}"
    film.WindowCenter, film.WindowWidth = 2048 + number, 4000 + number
    return film


def _reread(source: Dataset) -> Dataset:
    """As the spool gives it back: elements undecoded."""
    buffer = BytesIO()
    source.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)
