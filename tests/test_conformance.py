"""The DICOM conformance statement says what the code does, and all of it."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from covidnet_node.case import Reason, ResultKind
from covidnet_node.conformance.attributes import unplaced
from covidnet_node.conformance.content import code_lines
from covidnet_node.conformance.example import Example, build_examples
from covidnet_node.conformance.network import ANSWERS, HEARD
from covidnet_node.conformance.statement import TABLES, fill
from covidnet_node.deliver import STORED_WITH_WARNING
from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from covidnet_node.receive import read_header, scp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def examples() -> tuple[Example, ...]:
    return build_examples()


def test_the_page_is_up_to_date(examples: tuple[Example, ...]) -> None:
    page = PAGE.read_text()
    assert page == fill(page, "conformance.md", examples), (
        "run `covidnet-node conformance --write` and look at what changes"
    )


def test_a_page_without_a_table_is_refused(examples: tuple[Example, ...]) -> None:
    page = PAGE.read_text()
    for wrong in (page.replace("table heard", "table hard"), "# Nothing"):
        with pytest.raises(BadConfig, match="table "):
            fill(wrong, "conformance.md", examples)


def test_every_section_of_the_template_is_there() -> None:
    titles = [line.lstrip("# ") for line in PAGE.read_text().splitlines() if line.startswith("#")]
    wanted = ["1.1 Content", "1.2 DIMSE", "1.3 DICOM Web", "1.7 Specific", "3.1 Revision"]
    wanted += ["4.1 Application", "5.1 Mapping", "5.2.5.1 SCU", "5.2.5.2 SCP", "5.3.2.3 Store"]
    wanted += ["5.7 Specific", "6.1 General", "6.2.5 Storage", "6.3.2.2 Store", "7.1.1 General"]
    wanted += ["7.2.1.4 Association", "7.2.2.3 Association", "7.3.2.5.1 SCU", "7.3.2.5.2 SCP"]
    wanted += ["7.3.3.3.4 Store", "8.4.2 Secure", "8.6 Web", "A Information", "B Structured"]
    wanted += ["C Security", "D Mapping", "E Code"]
    missing = [each for each in wanted if not any(title.startswith(each) for title in titles)]
    assert missing == []


def test_every_kind_of_result_is_an_example(examples: tuple[Example, ...]) -> None:
    assert {each.kind for each in examples} == set(ResultKind)
    assert {kind.value for kind in ResultKind} <= TABLES.keys()


def test_every_attribute_has_its_module(examples: tuple[Example, ...]) -> None:
    assert unplaced(examples) == set()


def test_every_private_code_is_listed(examples: tuple[Example, ...]) -> None:
    listed = {line.split(" | ")[0].strip("| ") for line in code_lines(private=True)}
    used = {
        str(item.CodeValue)
        for each in examples
        for item in items(each.dataset)
        if item.get("CodingSchemeDesignator") == "99COVIDNET" and "CodeValue" in item
    }
    assert used <= listed


def test_codes_that_the_mapping_to_ai_results_names_are_used(
    examples: tuple[Example, ...],
) -> None:
    page = (ROOT / "docs" / "ihe-ai-results.md").read_text()
    named = set(re.findall(r"\(([0-9]+), (?:DCM|SCT)", page.partition("## Deviations")[0]))
    used = {
        str(item.CodeValue)
        for each in examples
        for item in items(each.dataset)
        if "CodeValue" in item
    }
    assert named
    assert named <= used


def test_files_and_associations_name_the_same_implementation(
    examples: tuple[Example, ...],
) -> None:
    metas = [each.dataset.file_meta for each in examples]
    assert {meta.ImplementationClassUID for meta in metas} == {IMPLEMENTATION_UID}
    assert {meta.ImplementationVersionName for meta in metas} == {IMPLEMENTATION_NAME}
    assert f"{IMPLEMENTATION_UID}, Implementation Version Name\n{IMPLEMENTATION_NAME}" in (
        PAGE.read_text()
    )


def test_every_refusal_of_the_receiver_is_listed() -> None:
    said = defaultdict(set)
    for path in (ROOT / "covidnet_node" / "receive").glob("*.py"):
        for reason, status in refusals(ast.parse(path.read_text())):
            said[status].add(reason)
    listed = {each.status: set(each.reasons) for each in ANSWERS if each.reasons}
    # What the spool and the journal raise is not in this room; it is answered A700.
    listed[scp.OUT_OF_RESOURCES] -= {Reason.CANNOT_STORE, Reason.NO_SPACE}
    said[scp.OUT_OF_RESOURCES] -= {Reason.CANNOT_STORE, Reason.NO_SPACE}
    assert dict(said) == listed


def test_every_status_that_counts_as_stored_is_listed() -> None:
    assert set(HEARD) >= STORED_WITH_WARNING


def refusals(tree: ast.Module) -> Iterator[tuple[Reason, int]]:
    """Reason and status of each `Refuse(...)` that names its reason."""
    numbers = {**vars(read_header), **vars(scp), "_OUT_OF_RESOURCES": 0xA700, "_MISMATCH": 0xA900}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "Refuse":
            continue
        reason, status = call.args[0], call.keywords[0].value
        if isinstance(reason, ast.Attribute) and ast.unparse(reason.value) == "Reason":
            yield Reason[reason.attr], numbers[ast.unparse(status)]


def items(dataset: Dataset) -> Iterator[Dataset]:
    """The data set and every item in it."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from items(item)
