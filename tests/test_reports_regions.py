"""Outlines of the heatmap's peaks: inside the lungs, true to size, in the pixels of the source."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from covidnet_node.case import Analysis, Explanation, Outcome, Probabilities, Reason
from covidnet_node.reports.regions import (
    MOST_POINTS,
    MOST_REGIONS,
    Points,
    Side,
    Zone,
    find_regions,
    pointed_at,
)

ROWS, COLUMNS = 300, 400
LUNGS = np.zeros((ROWS, COLUMNS), bool)
LUNGS[30:270, 60:180] = LUNGS[30:270, 220:340] = True


def blob(row: float, column: float, width: float = 20.0, height: float = 1.0) -> NDArray:
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    return height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))


def area(outline: Points) -> float:
    x, y = outline[:, 0], outline[:, 1]
    return abs(float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) / 2


def map_of(*blobs: NDArray) -> NDArray[np.float32]:
    return np.clip(sum(blobs, np.zeros((ROWS, COLUMNS))), 0, 1).astype(np.float32)


def test_a_peak_is_outlined_where_it_stands() -> None:
    (region,) = find_regions(map_of(blob(220, 120)), LUNGS)
    outline = region.outline
    assert (outline[0] == outline[-1]).all()
    assert 4 <= len(outline) <= MOST_POINTS
    # The half-maximum contour of a Gaussian is a circle of radius 1.177 sigma.
    assert area(outline) == pytest.approx(np.pi * (1.177 * 20) ** 2, rel=0.05)
    middle = outline[:-1].mean(axis=0)
    assert np.abs(middle - [120, 220]).max() < 3
    assert (region.side, region.zone) == (Side.LEFT, Zone.LOWER)
    assert region.peak == pytest.approx(1, abs=0.01)
    # A Gaussian holds half of its sum above half of its maximum.
    assert region.share == pytest.approx(0.5, abs=0.03)


def test_the_largest_peaks_come_first_and_no_more_than_three() -> None:
    heat = map_of(
        blob(60, 100, 10),
        blob(150, 280, 18),
        blob(240, 100, 14),
        blob(240, 300, 6),
        blob(60, 300, 8),
    )
    found = find_regions(heat, LUNGS)
    assert len(found) == MOST_REGIONS
    assert [(one.side, one.zone) for one in found] == [
        (Side.RIGHT, Zone.MIDDLE),
        (Side.LEFT, Zone.LOWER),
        (Side.LEFT, Zone.UPPER),
    ]
    assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)


def test_nothing_outside_the_lungs_is_outlined() -> None:
    assert find_regions(map_of(blob(150, 10, 3)), LUNGS & (np.arange(COLUMNS) > 100)) == ()
    (region,) = find_regions(map_of(blob(150, 60)), LUNGS)
    assert region.outline[:, 0].min() >= 60
    assert region.share < 0.35


def test_maps_without_a_peak_have_no_region() -> None:
    silent = np.zeros((ROWS, COLUMNS), np.float32)
    assert find_regions(silent, LUNGS) == ()
    assert find_regions(map_of(blob(150, 120)), np.zeros_like(LUNGS)) == ()
    assert find_regions(np.full((ROWS, COLUMNS), np.nan, np.float32), LUNGS) == ()
    assert find_regions(np.zeros((0, 0), np.float32), np.zeros((0, 0), bool)) == ()


def test_large_films_are_outlined_in_their_own_pixels() -> None:
    heat = np.kron(map_of(blob(220, 120)), np.ones((9, 9), np.float32))
    lungs = np.kron(LUNGS, np.ones((9, 9), bool))
    (region,) = find_regions(heat, lungs)
    assert area(region.outline) == pytest.approx(81 * np.pi * (1.177 * 20) ** 2, rel=0.06)
    assert np.abs(region.outline[:-1].mean(axis=0) - [1084, 1984]).max() < 30


def test_one_lung_alone_is_told_by_the_half_of_the_image() -> None:
    alone = LUNGS.copy()
    alone[:, :200] = False
    (region,) = find_regions(map_of(blob(60, 280)), alone)
    assert (region.side, region.zone) == (Side.RIGHT, Zone.UPPER)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70))
def test_any_map_gives_closed_outlines_inside_the_image(seed: int, rows: int, columns: int) -> None:
    chance = np.random.default_rng(seed)
    heat = chance.random((rows, columns), np.float32)
    lungs = chance.random((rows, columns)) < chance.random()
    for region in find_regions(heat, lungs):
        outline = region.outline
        assert (outline[0] == outline[-1]).all()
        assert 4 <= len(outline) <= MOST_POINTS
        assert outline.min() >= 0
        assert (outline <= [columns, rows]).all()
        assert area(outline) > 0
        assert 0 < region.share <= 1
        assert 0 < region.peak <= 1


SEEN = Analysis(
    outcome=Outcome.ANALYZED,
    reason=None,
    lungs=LUNGS,
    probabilities=Probabilities(0.7, 0.2, 0.1),
    explanation=Explanation(map_of(blob(150, 120)), "covid19", 0.9),
)


def test_regions_are_pointed_at_for_a_likely_pattern_only() -> None:
    assert len(pointed_at(SEEN, ROWS, COLUMNS)) == 1
    unsure = replace(SEEN, outcome=Outcome.INCONCLUSIVE, reason=Reason.MEMBERS_DISAGREE)
    assert len(pointed_at(unsure, ROWS, COLUMNS)) == 1
    explained = SEEN.explanation
    assert explained is not None
    for silent in (
        replace(SEEN, outcome=Outcome.NOT_ANALYZED, reason=Reason.LATERAL),
        replace(SEEN, explanation=replace(explained, target="normal")),
        replace(SEEN, explanation=replace(explained, target="pneumonia")),
        replace(SEEN, explanation=None),
        replace(SEEN, lungs=None),
        replace(SEEN, probabilities=None),
    ):
        assert pointed_at(silent, ROWS, COLUMNS) == ()


def test_a_map_of_another_size_points_at_nothing() -> None:
    assert pointed_at(SEEN, COLUMNS, ROWS) == ()
    assert pointed_at(SEEN, None, None) == ()
