"""Orders for results: a plain header, one analysis of each outcome, ways to look at a document."""

import warnings
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
)

from covidnet_node.case import (
    Algorithm,
    Analysis,
    Explanation,
    Member,
    Outcome,
    Probabilities,
    Reason,
)
from covidnet_node.reports.encode import encode
from covidnet_node.reports.order import Order
from covidnet_node.reports.results import build_results

WHEN = datetime(2026, 11, 23, 23, 30, 5, tzinfo=UTC)
ALGORITHM = Algorithm(
    name="CovidNet ensemble",
    version="2026.1",
    digest="ab" * 32,
    covid19_threshold=0.5,
    calibration="temperature scaling",
    notice="Provisional weights.",
)
LIKELY = Probabilities(0.87, 0.09, 0.04)
LUNGS = np.zeros((61, 49), bool)
LUNGS[6:55, 5:21] = LUNGS[6:55, 28:44] = True
HEATMAP = np.zeros((61, 49), np.float32)
HEATMAP[40:50, 8:18] = 0.9
HEATMAP[10:20, 30:40] = 0.6
ANALYZED = Analysis(
    outcome=Outcome.ANALYZED,
    reason=None,
    lungs=LUNGS,
    lung_area_fraction=0.31,
    probabilities=LIKELY,
    members=(Member("A", LIKELY), Member("B", Probabilities(0.8, 0.1, 0.1))),
    disagreement=0.07,
    out_of_distribution=0.2,
    explanation=Explanation(HEATMAP, "covid19", 0.8),
    notes=("Window repaired",),
)
INCONCLUSIVE = replace(ANALYZED, outcome=Outcome.INCONCLUSIVE, reason=Reason.MEMBERS_DISAGREE)
NOT_ANALYZED = Analysis(Outcome.NOT_ANALYZED, Reason.LATERAL, "view LL")
OUTCOMES = pytest.mark.parametrize(
    "analysis", [ANALYZED, INCONCLUSIVE, NOT_ANALYZED], ids=lambda a: a.outcome.value
)
PICTURE = np.random.default_rng(0).integers(0, 256, (61, 49, 3), dtype=np.uint8)


def header(**changes: object) -> Dataset:
    """A plain CR header, as the spool would give it back; bytes values are put in undecoded."""
    made = Dataset()
    plain: dict[str, object] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": "1.2.3.4.1.1",
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.4.1",
        "Modality": "CR",
        "PatientName": "Phantom^Chest",
        "PatientID": "PH-1",
        "PatientBirthDate": "19600101",
        "PatientSex": "F",
        "StudyDate": "20261120",
        "StudyTime": "081500",
        "StudyID": "7",
        "AccessionNumber": "A100",
        "ReferringPhysicianName": "Ref^Erring",
        "BodyPartExamined": "CHEST",
        "PatientOrientation": ["L", "F"],
    } | changes
    for keyword, value in plain.items():
        if value is None:
            continue
        if isinstance(value, bytes):
            number = tag_for_keyword(keyword)
            assert number is not None
            made[number] = raw(number, value)
        else:
            setattr(made, keyword, value)
    made.Rows, made.Columns = 61, 49
    return reread(encode(made))


def raw(number: int, value: bytes, *, little: bool = True) -> RawDataElement:
    return RawDataElement(Tag(number), dictionary_VR(number), len(value), value, 0, False, little)


def reread(file: bytes) -> Dataset:
    """Read as lenient readers do: what the source has wrong is not ours to fail on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(BytesIO(file), stop_before_pixels=False)


def order(source: Dataset | None = None, **changes: object) -> Order:
    made = Order(
        source=header() if source is None else source,
        analysis=ANALYZED,
        algorithm=ALGORITHM,
        content_at=WHEN,
        pixel_digest="p",
        identity_digest="i",
        admission_notes=("Age of the patient unknown",),
        heatmap=PICTURE,
    )
    return replace(made, **changes)


def report(made: Order) -> Dataset:
    return build_results(made)[0].dataset


def heatmap(made: Order) -> Dataset:
    return build_results(made)[1].dataset


def items(node: Dataset) -> list[Dataset]:
    children = list(node.get("ContentSequence") or [])
    return [*children, *(below for child in children for below in items(child))]


def named(document: Dataset, code: str) -> list[Dataset]:
    return [
        item
        for item in items(document)
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == code
    ]
