"""What counts as two lungs is learned from validation's adults, and applied as the node does."""

import dataclasses

import numpy as np
import pytest

from covidnet_node.errors import BadConfig
from covidnet_node.models.segment import Outline
from covidnet_node.training import lungs
from covidnet_node.training.dataset import CHILDREN, Split
from covidnet_node.training.lungs import find_lungs, fit_lung_limits, limits_of, load_lung_limits
from covidnet_node.training.recipe import LungsRecipe, load_recipe
from tests.tiny_medicine import DarkIsLung, draw_folder, drawn_chest

RECIPE = LungsRecipe(threshold=0.5, most_bridge=0.5, let_through=0.99)


def outlines(count=1000):
    lots = np.random.default_rng(1)
    return [Outline(np.ones((1, 1), np.bool_), *lots.uniform(0, 1, 5)) for _ in range(count)]


def test_together_they_let_the_share_through_and_each_refuses_as_many():
    many = outlines()
    found = limits_of(many, RECIPE)
    assert (found.threshold, found.most_bridge) == (0.5, 0.5)
    refused = (
        {row for row, each in enumerate(many) if each.area < found.least_area},
        {row for row, each in enumerate(many) if each.smaller_lung < found.least_lung},
        {row for row, each in enumerate(many) if each.on_border > found.most_on_border},
        {row for row, each in enumerate(many) if each.trust < found.least_trust},
    )
    assert {len(rows) for rows in refused} == {2}
    assert len(set().union(*refused)) <= 10


def test_a_share_of_one_sets_no_limits():
    found = limits_of(outlines(10), dataclasses.replace(RECIPE, let_through=1.0))
    assert (found.least_area, found.least_lung, found.least_trust) == (0.0, 0.0, 0.0)
    assert found.most_on_border == 1.0


def test_few_films_set_limits_that_they_all_pass():
    few = outlines(20)
    found = limits_of(few, RECIPE)
    assert found.least_trust == min(each.trust for each in few)
    assert found.most_on_border == max(each.on_border for each in few)


def test_without_films_or_without_lungs_in_them_there_is_an_error():
    """Limits that let everything through would look like limits."""
    with pytest.raises(BadConfig, match="no frontal films of adults"):
        limits_of([], RECIPE)
    nothing = Outline(np.zeros((1, 1), np.bool_), 0.0, 0.0, 0.0, 0.0, 0.0)
    assert limits_of([nothing] * 2 + outlines(1000), RECIPE).least_area > 0.0
    with pytest.raises(BadConfig, match="no two lungs"):
        limits_of([nothing] * 30 + outlines(1000), RECIPE)


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
    limits = dataclasses.replace(limits_of(outlines(), RECIPE), least_trust=0.0)
    found = find_lungs(DarkIsLung(), np.pad(display, 40), 96, limits)
    where = np.pad(true, 40)
    assert 2 * (found & where).sum() / (found.sum() + where.sum()) > 0.95
    strict = dataclasses.replace(limits, least_area=0.9)
    assert find_lungs(DarkIsLung(), display, 96, strict) is None
