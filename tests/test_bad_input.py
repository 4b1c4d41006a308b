"""The corpus of bad input through the rooms: a verdict for each, and nothing else."""

from pathlib import Path

import pytest

from covidnet_node.case import Reason
from tests.bad_input import frames, structure, texts
from tests.bad_input.corpus import FAMILIES
from tests.bad_input.rooms import PROFILES, walk

SEED = 1
EVERY = {"texts": 9, "values": 6, "frames": 3, "identifiers": 2}
"""Of the large families every so many; `make fuzz` starts from all."""
REPORTED = 3
"""Cases of each family that are followed to their reports, which takes longest."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_case_gets_a_verdict(family: str, tmp_path: Path) -> None:
    bads = [bad for bad in FAMILIES[family](SEED) if small(bad.name)]
    rooms = {walk(bad, tmp_path, ()).room for bad in bads[:: EVERY.get(family, 1)]}
    assert rooms <= {"receive", "admit", "look", "report"}
    assert "report" in rooms


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_admitted_gets_reports_that_pass_the_gate(family: str, tmp_path: Path) -> None:
    bads = [bad for bad in FAMILIES[family](SEED) if small(bad.name)]
    for number, bad in enumerate(bads[:: max(1, len(bads) // REPORTED)]):
        fate = walk(bad, tmp_path, PROFILES[number % 2 : number % 2 + 1])
        assert fate.results or fate.room in {"receive", "admit"}, bad.name


@pytest.mark.filterwarnings("ignore")
def test_no_name_keeps_a_report_from_leaving_in_utf_8(tmp_path: Path) -> None:
    for bad in list(texts.cases(SEED))[::90]:
        fate = walk(bad, tmp_path, PROFILES[1:])
        assert fate.results or fate.room == "receive", bad.name


@pytest.mark.filterwarnings("ignore")
def test_headers_without_end_are_refused_or_passed_over(tmp_path: Path) -> None:
    fates = {bad.name: walk(bad, tmp_path, ()) for bad in structure.bombs(SEED, 500_000)}
    for name in ("a_million_items_undefined", "nested_without_end", "a_million_elements"):
        assert fates[name].reason is Reason.TOO_LARGE, name
    for name in ("a_million_empty_items", "private_huge", "text_huge", "voi_items"):
        assert fates[name].room == "report", name


@pytest.mark.filterwarnings("ignore")
def test_frames_that_ask_for_more_than_they_are_worth_are_refused_unread(tmp_path: Path) -> None:
    fates = {bad.name: walk(bad, tmp_path, ()) for bad in frames.bombs(SEED) if bad.name in REFUSED}
    assert set(fates) == REFUSED
    assert {fate.reason for fate in fates.values()} == {Reason.UNDECODABLE}


REFUSED = {
    *(f"bomb_small_precincts{where}_.90" for where in ("", "_of_one_level", "_in_a_component",
                                                       "_in_a_tile")),
    *("bomb_many_layers_of_many_precincts_.90", "bomb_hidden_style_.90", "bomb_matrices_.90"),
    *("bomb_style_behind_an_end_.90", "bomb_style_behind_data_.90"),
    *("bomb_small_code_blocks_.90", "bomb_many_tiles_.90", "bomb_decoy_in_a_box_.90"),
    *("bomb_scans_.50",),
}  # fmt: skip


def small(name: str) -> bool:
    """Not one of the frames of 7000 x 7000, which take seconds each."""
    return not name.startswith("bomb_")


@pytest.mark.filterwarnings("ignore")
def test_character_sets_that_are_none_and_pixels_without_end_are_answered(
    tmp_path: Path,
) -> None:
    codec = f"long_{texts.CHARSETS.index('utf_16')}"  # Python's name, and no DICOM term
    chosen = {"charset_as_odd_number_in_400275", "no_delimiter_.90", codec}
    bads = [bad for bad in (*texts.cases(SEED), *frames.cases(SEED)) if bad.name in chosen]
    assert len(bads) == len(chosen)
    for bad in bads:
        assert walk(bad, tmp_path, PROFILES).results, bad.name
