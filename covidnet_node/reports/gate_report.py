"""The gate's look at a Structured Report: whole, coherent, and about its source alone."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from covidnet_node.case import Outcome
from covidnet_node.intended_use import NOTICE, UNLIKELY
from covidnet_node.reports import codes
from covidnet_node.reports.checks import content, measured, missing, named, names, said
from covidnet_node.reports.gate_claims import claim_faults
from covidnet_node.reports.identity import count, items, text

_REQUIRED = (
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "CompletionFlag",
    "VerificationFlag",
    "ContentDate",
    "ContentTime",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "ContentSequence",
    "CodingSchemeIdentificationSequence",
)
_EMPTY = ("ReferencedPerformedProcedureStepSequence", "PerformedProcedureCodeSequence")
_STATED = {"Modality": "SR", "CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED"}
_PROBABILITIES = (codes.CERTAINTY.value, codes.MEMBER_CERTAINTY.value)
_CODED = ("ConceptNameCodeSequence", "ConceptCodeSequence", "MeasurementUnitsCodeSequence")
_OBSERVER_UID = "121012"
_FINDING = "121071"
_GRAPHIC_DATA = Tag(0x0070, 0x0022)


def report_faults(result: Dataset, source: Dataset) -> Iterator[str]:
    """Complain of everything that keeps a report from leaving."""
    yield from missing(result, _REQUIRED)
    yield from (f"{keyword} is missing" for keyword in _EMPTY if keyword not in result)
    yield from (f"{keyword} is not {value}" for keyword, value in _STATED.items()
                if text(result, keyword) != value)  # fmt: skip
    tree = list(content(result))
    yield from _references(result, source, tree)
    yield from _words(result, tree)
    yield from _findings(tree)
    yield from _regions(source, tree)
    outcome = _outcome(tree)
    if outcome is not None:
        yield from claim_faults(result, outcome)


def _references(result: Dataset, source: Dataset, tree: list[Dataset]) -> Iterator[str]:
    """Hold everything that is pointed at against source and evidence."""
    listed = set(_evidence(result))
    sop_class = text(source, "SOPClassUID")
    if listed != {(*names(source), sop_class)}:
        yield "evidence does not list the source, and it alone"
    known = {(sop_class, text(source, "SOPInstanceUID"))}
    pointed = [(text(reference, "ReferencedSOPClassUID"),
                text(reference, "ReferencedSOPInstanceUID"))
               for item in tree for reference in items(item, "ReferencedSOPSequence")]  # fmt: skip
    if set(pointed) - known:
        yield "content refers to an instance that the evidence does not list"
    library = [item for item in tree if named(item) == codes.IMAGE_LIBRARY.value]
    images = [item for each in library for item in content(each)
              if text(item, "ValueType") == "IMAGE"]  # fmt: skip
    if len(images) != 1:
        yield "the image library does not hold the source, and it alone"
    study, _, _ = names(source)
    for earlier in items(result, "PredecessorDocumentsSequence"):
        documents = [item for series in items(earlier, "ReferencedSeriesSequence")
                     for item in items(series, "ReferencedSOPSequence")]  # fmt: skip
        if text(earlier, "StudyInstanceUID") != study or len(documents) != 1:
            yield "predecessor is not one document of this study"
        if text(result, "SOPInstanceUID") in {
            text(item, "ReferencedSOPInstanceUID") for item in documents
        }:
            yield "report replaces itself"


def _words(result: Dataset, tree: list[Dataset]) -> Iterator[str]:
    """Look for what a reader must find: the summary, who observed, and the meaning of codes."""
    summaries = [text(item, "TextValue") for item in tree if named(item) == codes.SUMMARY.value]
    if len(summaries) != 1 or NOTICE not in summaries[0]:
        yield "no summary with the notice"
    if not all(text(item, "TextValue").isascii() for item in tree):
        yield "a text that is not ASCII"
    observers = [text(item, "UID") for item in tree if named(item) == _OBSERVER_UID]
    devices = [text(item, "DeviceUID") for item in items(result, "ContributingEquipmentSequence")]
    if observers != devices[:1]:
        yield "observer is not the contributing equipment"
    templates = [text(item, "TemplateIdentifier")
                 for item in items(result, "ContentTemplateSequence")]  # fmt: skip
    if templates != ["1500"]:
        yield "template is not 1500"
    declared = {text(item, "CodingSchemeDesignator")
                for item in items(result, "CodingSchemeIdentificationSequence")}  # fmt: skip
    used = {text(concept, "CodingSchemeDesignator")
            for item in (result, *tree, *(part for item in tree
                                          for part in items(item, "MeasuredValueSequence")))
            for keyword in _CODED for concept in items(item, keyword)}  # fmt: skip
    if any(scheme.startswith("99") for scheme in used - declared):
        yield "a private coding scheme is not declared"
    if "" in used:
        yield "a code without its scheme"


def _findings(tree: list[Dataset]) -> Iterator[str]:
    """Hold the outcome against what is claimed."""
    outcome = _outcome(tree)
    if outcome is None:
        yield "outcome is not stated once"
        return
    shares = [item for item in tree if named(item) in _PROBABILITIES]
    reasons = [item for item in tree if named(item) == codes.REASON.value]
    if outcome is Outcome.NOT_ANALYZED and shares:
        yield "a probability in a report that says not analyzed"
    if outcome is not Outcome.NOT_ANALYZED:
        certain = [item for item in shares if named(item) == codes.CERTAINTY.value]
        if len(certain) != len(codes.CLASSES):
            yield "not one probability for each class"
    if (outcome is Outcome.ANALYZED) == bool(reasons):
        yield "reason and outcome do not fit"
    if not all(0 <= measured(item) <= 100 for item in shares):
        yield "a probability outside 0 to 100 %"


def _regions(source: Dataset, tree: list[Dataset]) -> Iterator[str]:
    """Hold every outline against the image's size and against what was called."""
    drawn = [item for item in tree if _is_region(item)]
    groups = [item for item in tree
              if any(_is_region(child) for child in items(item, "ContentSequence"))]  # fmt: skip
    for item in drawn:
        if not _inside(item, count(source, "Columns") or 0, count(source, "Rows") or 0):
            yield "a region that is no closed outline inside the image"
        origins = [text(reference, "ReferencedSOPInstanceUID")
                   for child in items(item, "ContentSequence")
                   for reference in items(child, "ReferencedSOPSequence")]  # fmt: skip
        if origins != [text(source, "SOPInstanceUID")]:
            yield "a region that is not selected from the source"
    likely = _likely(tree)
    for group in groups:
        explained = [said(child) for child in items(group, "ContentSequence")
                     if named(child) == codes.EXPLAINED.value]  # fmt: skip
        if len(explained) != 1 or explained[0] not in likely:
            yield "a region for a class that is not likely"
    if drawn and _outcome(tree) in {None, Outcome.NOT_ANALYZED}:
        yield "a region in a report that says not analyzed"


def _is_region(item: Dataset) -> bool:
    return text(item, "ValueType") in {"SCOORD", "SCOORD3D"}


def _inside(item: Dataset, columns: int, rows: int) -> bool:
    """Whether a region is a closed polyline within columns x rows."""
    points = _points(item)
    if text(item, "GraphicType") != "POLYLINE" or points is None or len(points) < 4:
        return False
    closed = bool((points[0] == points[-1]).all())
    # NaN fails both comparisons.
    return closed and bool((points >= 0).all() and (points <= [columns, rows]).all())


def _points(item: Dataset) -> NDArray[np.float64] | None:
    """Columns and rows of an outline, (points, 2); None if they do not come in pairs."""
    if _GRAPHIC_DATA not in item:
        return None
    element: DataElement | RawDataElement = item.get_item(_GRAPHIC_DATA)
    if isinstance(element, RawDataElement):
        value = element.value or b""
        if len(value) % 8:
            return None
        return np.frombuffer(value, "<f4").astype(np.float64).reshape(-1, 2)
    numbers = np.atleast_1d(np.asarray(element.value, np.float64))
    return None if numbers.size % 2 else numbers.reshape(-1, 2)


def _likely(tree: list[Dataset]) -> set[str]:
    """Codes of the classes that may be pointed at."""
    likely = set()
    for group in tree:
        below = items(group, "ContentSequence")
        certain = [measured(child) for child in below if named(child) == codes.CERTAINTY.value]
        if any(share > 100 * UNLIKELY for share in certain):
            likely |= {said(child) for child in below if named(child) == _FINDING}
    return likely - {codes.CLASSES["normal"].value}


def _outcome(tree: list[Dataset]) -> Outcome | None:
    """The outcome, if it is stated once and known."""
    known = {concept.value: outcome for outcome, concept in codes.OUTCOMES.items()}
    stated = [said(item) for item in tree if named(item) == codes.OUTCOME.value]
    return known.get(stated[0]) if len(stated) == 1 else None


def _evidence(result: Dataset) -> Iterator[tuple[str, str, str, str]]:
    for study in items(result, "CurrentRequestedProcedureEvidenceSequence"):
        for series in items(study, "ReferencedSeriesSequence"):
            for item in items(series, "ReferencedSOPSequence"):
                yield (
                    text(study, "StudyInstanceUID"),
                    text(series, "SeriesInstanceUID"),
                    text(item, "ReferencedSOPInstanceUID"),
                    text(item, "ReferencedSOPClassUID"),
                )
