"""What counts as two lungs is learned from validation's adults, and applied as the node does."""

import dataclasses

import numpy as np
import pytest

from covidnet_node.models.segment import Outline
from covidnet_node.training import lungs
from covidnet_node.training.dataset import CHILDREN, Split
from covidnet_node.training.lungs import find_lungs, fit_lung_limits, limits_of, load_lung_limits
from covidnet_node.training.recipe import LungsRecipe, load_recipe
from tests.tiny_medicine import DarkIsLung, draw_folder, drawn_chest

RECIPE = LungsRecipe(threshold=0.5, most_bridge=0.5, let_through=0.995)


def outlines(count=1000):
    lots = np.random.default_rng(1)
    return [Outline(np.ones((1, 1), np.bool_), *lots.uniform(0, 1, 5)) for _ in range(count)]


def test_each_limit_lets_its_share_through():
    found, many = limits_of(outlines(), RECIPE), outlines()
    assert (found.threshold, found.most_bridge) == (0.5, 0.5)
    for refused in (
        [each.area < found.least_area for each in many],
        [each.smaller_lung < found.least_lung for each in many],
        [each.on_border > found.most_on_border for each in many],
        [each.trust < found.least_trust for each in many],
    ):
        assert sum(refused) == pytest.approx(5, abs=1)


@pytest.mark.parametrize(("share", "films"), [(1.0, 10), (0.995, 0)])
def test_without_a_share_or_films_there_are_no_limits(share, films):
    found = limits_of(outlines(films), dataclasses.replace(RECIPE, let_through=share))
    assert (found.least_area, found.least_lung, found.least_trust) == (0.0, 0.0, 0.0)
    assert found.most_on_border == 1.0


def test_only_adults_of_validation_set_them(tmp_path, monkeypatch):
    data = draw_folder(tmp_path / "data")
    shown = []
    real = type(data).display
    monkeypatch.setattr(lungs, "load_segmenter", lambda *_words: DarkIsLung())
    monkeypatch.setattr(
        type(data), "display", lambda self, film: shown.append(film) or real(self, film)
    )
    found = fit_lung_limits(data, tmp_path, load_recipe())
    assert load_lung_limits(tmp_path) == found
    assert {film.split for film in shown} == {Split.VAL}
    assert CHILDREN not in {film.source for film in shown}
    assert len(shown) == len({film.key for film in shown}) > 0


def test_lungs_are_found_where_they_are_or_not_at_all():
    display, true = drawn_chest()
    limits = limits_of([], RECIPE)
    found = find_lungs(DarkIsLung(), np.pad(display, 40), 96, limits)
    where = np.pad(true, 40)
    assert 2 * (found & where).sum() / (found.sum() + where.sum()) > 0.95
    strict = dataclasses.replace(limits, least_area=0.9)
    assert find_lungs(DarkIsLung(), display, 96, strict) is None
