"""The tables of docs/conformance.md, written between their marks.

The text around them is a person's. A test compares the page with what would be written now.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from pydicom.charset import python_encoding

from covidnet_node.case import ResultKind
from covidnet_node.conformance import network
from covidnet_node.conformance.attributes import COMMON, MODULES, OTHER, Objects
from covidnet_node.conformance.commitment import reason_lines, report_lines
from covidnet_node.conformance.content import code_lines, tree_lines
from covidnet_node.conformance.example import Example
from covidnet_node.errors import BadConfig
from covidnet_node.reports.identity import CARRIED

_OWN_MODULES = tuple(module for module in (*MODULES, OTHER) if module not in COMMON)
_MARKS = re.compile(r"<!-- (table [a-z_ -]+) -->\n.*?<!-- end of \1 -->\n", re.DOTALL)

Examples = Sequence[Example]


def _of(kind: ResultKind) -> Callable[[Examples], Iterable[str]]:
    def lines(examples: Examples) -> Iterable[str]:
        return Objects([each for each in examples if each.kind is kind]).lines(_OWN_MODULES)

    return lines


TABLES: dict[str, Callable[[Examples], Iterable[str]]] = {
    "storage": network.storage_lines,
    "syntaxes": network.syntax_lines,
    "proposed": network.proposed_lines,
    "accepted": lambda _: network.accepted_lines(),
    "associations": lambda _: network.association_lines(),
    "answers": lambda _: network.answer_lines(),
    "heard": lambda _: network.heard_lines(),
    "failure reasons": lambda _: reason_lines(),
    "reports": lambda _: report_lines(),
    "web": lambda _: network.web_lines(),
    "settings": lambda _: network.setting_lines(),
    "profile": lambda _: network.profile_lines(),
    "character sets": lambda _: [", ".join(sorted(filter(None, python_encoding)))],
    "carried": lambda _: [", ".join(CARRIED)],
    "common": lambda examples: Objects(examples).lines(COMMON),
    **{kind.value: _of(kind) for kind in ResultKind},
    "content": tree_lines,
    "private codes": lambda _: code_lines(private=True),
    "standard codes": lambda _: code_lines(private=False),
}
"""By the names that stand in the marks."""


def fill(page: str, name: str, examples: Examples) -> str:
    """Write every table of the page anew; raises BadConfig if one is missing or unknown."""
    asked = [marks.removeprefix("table ") for marks in _MARKS.findall(page)]
    for each in sorted({*asked} ^ {*TABLES}):
        remedy = "is no table that can be made" if each in asked else "has no marks in the page"
        raise BadConfig(name, f"table {each}", remedy)

    def table(marks: re.Match[str]) -> str:
        lines = "\n".join(TABLES[marks[1].removeprefix("table ")](examples)).strip()
        return f"<!-- {marks[1]} -->\n\n{lines}\n\n<!-- end of {marks[1]} -->\n"

    return _MARKS.sub(table, page)
