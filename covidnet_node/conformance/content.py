"""The content tree of the reports, and every code in them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from covidnet_node.case import Reason, ResultKind
from covidnet_node.conformance.attributes import cell, code_text
from covidnet_node.conformance.example import Example
from covidnet_node.reports import codes
from covidnet_node.reports.regions import Side, Zone

_MOST_VALUES = 8
_TOLD = (
    *(Reason.LATERAL, Reason.UNDER_18, Reason.AGE_UNKNOWN, Reason.TOO_SMALL, Reason.NOT_A_CHEST),
    *(Reason.NO_PLAUSIBLE_LUNGS, Reason.UNDECODABLE, Reason.PIXELS_CHANGED),
    *(Reason.TECHNICAL_FAILURE, Reason.MEMBERS_DISAGREE, Reason.OUT_OF_DISTRIBUTION),
    Reason.LOW_CONFIDENCE,
)
"""Reasons that a report may give; the others never leave the node."""
Key = tuple[str, str, str]


@dataclass(slots=True)
class Node:
    """One place in the tree, over all reports."""

    parents: int = 0
    """Content items above that could have it."""
    with_it: int = 0
    most: int = 0
    """Of its kind under one parent."""
    values: dict[str, None] = field(default_factory=dict)
    below: dict[Key, "Node"] = field(default_factory=dict)


def tree_lines(examples: Sequence[Example]) -> Iterator[str]:
    """The content tree, a row each kind of item, in the order in which a reader meets them."""
    reports = [each.dataset for each in examples if each.kind is ResultKind.REPORT]
    root = Node()
    for report in reports:
        _merge(root, report)
    yield "| Item | Value type | Concept | Presence | Value |"
    yield "|---|---|---|---|---|"
    yield f"| (root) | CONTAINER | {code_text(codes.TITLE)} | ALWAYS | TID 1500 |"
    yield from _rows(root, len(reports), 1)


def _merge(node: Node, item: Dataset) -> None:
    below: Sequence[Dataset] = item.get("ContentSequence", ())
    counts = Counter(map(_key, below))
    for key, count in counts.items():
        child = node.below.setdefault(key, Node())
        child.with_it += 1
        child.most = max(child.most, count)
    node.parents += 1
    for each in below:
        child = node.below[_key(each)]
        child.values.update(dict.fromkeys(_values(each)))
        _merge(child, each)


def _rows(node: Node, parents: int, depth: int) -> Iterator[str]:
    for (relation, value_type, concept), child in node.below.items():
        presence = "ALWAYS" if child.with_it == parents else "CONDITIONAL"
        many = " (1-n)" if child.most > 1 else ""
        values = list(child.values)
        shown = "; ".join(cell(value) for value in values) if len(values) <= _MOST_VALUES else ""
        name = f"{'>' * depth}{relation.lower()}"
        yield f"| {name} | {value_type} | {concept} | {presence}{many} | {shown} |"
        yield from _rows(child, child.parents, depth + 1)


def _key(item: Dataset) -> Key:
    name = item.get("ConceptNameCodeSequence")
    concept = code_text(name[0]) if name else ""
    return item.RelationshipType, item.ValueType, concept


def _values(item: Dataset) -> Iterator[str]:
    """What can stand there, where that is a code, a unit, a template or a shape."""
    if item.ValueType == "CODE":
        yield code_text(item.ConceptCodeSequence[0])
    elif item.ValueType == "NUM":
        for measured in item.MeasuredValueSequence:
            yield f"in {code_text(measured.MeasurementUnitsCodeSequence[0])}"
    elif item.ValueType == "CONTAINER":
        for template in item.get("ContentTemplateSequence", ()):
            yield f"TID {template.TemplateIdentifier}"
    elif item.ValueType == "SCOORD":
        yield item.GraphicType


def code_lines(*, private: bool) -> Iterator[str]:
    """Every code of the table `reports/codes.py`: the standard ones, or our own."""
    yield "| Code | Scheme | Meaning |"
    yield "|---|---|---|"
    rows = {
        (code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning)
        for code in _all_codes()
        if (code.CodingSchemeDesignator == codes.SCHEME) == private
    }
    for scheme, value, meaning in sorted(rows):
        yield f"| {value} | {scheme} | {meaning} |"


def _all_codes() -> Iterator[Dataset]:
    for value in vars(codes).values():
        yield from filter(_is_code, value.values() if isinstance(value, dict) else (value,))
    yield from (codes.reason_code(reason) for reason in _TOLD)
    yield from (codes.place(side, zone) for side in Side for zone in Zone)


def _is_code(value: object) -> bool:
    return isinstance(value, Dataset) and "CodeValue" in value
