"""Memory for one image is bounded, whatever its header and its frame claim."""

import random
from pathlib import Path

import pytest

from tests.bad_input import frames, structure
from tests.bad_input.peak import largest, measure

SEED = 1
HEADER_MIB = 150
FRAME_MIB = 1200
LARGEST_MIB = 2500
HEADERS = {"a_million_items_undefined", "nested_and_closed", "voi_items", "a_million_elements",
           "huge_in_an_item"}  # fmt: skip
FRAMES = {"bomb_small_precincts_.90", "bomb_decoy_in_a_box_.90", "bomb_header_only_.70",
          "bomb_runs_large_2.5"}  # fmt: skip
pytestmark = pytest.mark.timeout(600)


def test_a_header_costs_little_whatever_it_holds(tmp_path: Path) -> None:
    bombs = [bad for bad in structure.bombs(SEED, 1_500_000) if bad.name in HEADERS]
    assert len(bombs) == len(HEADERS)
    assert measure(*bombs, folder=tmp_path) < HEADER_MIB


def test_a_frame_costs_what_its_pixels_cost(tmp_path: Path) -> None:
    bombs = [bad for bad in frames.bombs(SEED) if bad.name in FRAMES]
    assert len(bombs) == len(FRAMES)
    bombs.append(structure.deflated_bomb(random.Random(SEED), 300))
    assert measure(*bombs, folder=tmp_path) < FRAME_MIB


def test_the_largest_image_that_is_decoded(tmp_path: Path) -> None:
    assert measure(largest(), folder=tmp_path) < LARGEST_MIB
