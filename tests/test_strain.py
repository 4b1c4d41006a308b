"""Outlined films made worse, and images that are no chest film."""

import csv

import numpy as np
import pytest
from PIL import Image

from covidnet_node.training.evaluation.exams import read_exams
from covidnet_node.training.evaluation.outlines import overlap
from covidnet_node.training.evaluation.strain import (
    CHANGES,
    DRAWINGS,
    IMPOSTORS,
    steps,
    strain,
)
from tests.tiny_medicine import drawn_chest, sighted, tiny_weights


@pytest.fixture(scope="module")
def networks(module_path):
    return sighted(tiny_weights(module_path / "tiny"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three outlined films of which the segmenter knows every dark pixel, and one without."""
    path = tmp_path_factory.mktemp("data")
    for room in ("images", "masks"):
        (path / room / "a").mkdir(parents=True)
    rows = []
    for number in range(4):
        display, lungs = drawn_chest()
        Image.fromarray(display).save(path / "images" / "a" / f"{number}.png")
        if number < 3:
            Image.fromarray(lungs.astype(np.uint8) * 255).save(
                path / "masks" / "a" / f"{number}.png"
            )
        rows.append((number, "a", f"p{number}", "covid", "test", int(number < 3), "lung-field"))
    with (path / "manifest.csv").open("w", newline="") as file:
        columns = ("id", "source", "patient_id", "label", "split", "has_mask", "mask_style")
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_moves_the_outline_along(name):
    display, lungs = drawn_chest()
    changed, outline = CHANGES[name](display, lungs, np.random.default_rng(1))
    assert changed.shape == outline.shape
    assert (changed.dtype, outline.dtype) == (np.uint8, np.bool_)
    assert (name == "as it is") == np.array_equal(changed, display)
    assert outline.sum() == pytest.approx(lungs.sum(), rel=0.05)


def test_a_turned_outline_lies_on_the_turned_lungs():
    display, lungs = drawn_chest()
    changed, outline = CHANGES["turned by 15 degrees"](display, lungs, np.random.default_rng(1))
    inside = np.zeros_like(outline)
    inside[60:240, 40:160] = True
    assert overlap((changed < 100) & inside, outline & inside).dice > 0.95


def test_every_change_is_measured_on_the_outlined_films(folder, networks):
    called = []
    found = strain(read_exams(folder, "test").frontal, networks, lambda: called.append(1))
    assert len(called) == steps()
    by_change = {each.change: each for each in found.strained}
    assert list(by_change) == list(CHANGES)
    assert {each.films for each in found.strained} == {3}
    dice = {name: each.dice.value for name, each in by_change.items()}
    assert dice["as it is"] > 0.9
    assert dice["turned by 15 degrees"] > 0.8
    assert dice["wide border, black or white"] > 0.9
    # To this segmenter lung is what is dark: white bases and negatives are hidden from it.
    assert dice["base of one lung white"] < dice["as it is"]
    assert dice["negative"] < 0.5
    refused = {each.what: each.refused.value for each in found.impostors}
    assert list(refused) == [*IMPOSTORS, *DRAWINGS]
    assert refused["even gray"] == 1.0
    again = strain(read_exams(folder, "test").frontal, networks, lambda: None)
    assert again == found


def test_a_folder_without_outlines_has_nothing_to_strain(folder, networks):
    bare = tuple(each for each in read_exams(folder, "test").frontal if each.mask is None)
    assert strain(bare, networks, lambda: None).strained == ()
