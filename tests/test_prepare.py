"""Preparation: what the networks see, and the way back to the source image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covidnet_node.case import CropRecipe
from covidnet_node.imaging.prepare import (
    crop_lungs,
    dilate,
    lung_box,
    scale_mask,
    segmenter_input,
)
from tests.tiny_medicine import drawn_chest

RECIPE = CropRecipe(side=80, margin=0.06, dilation=0.04, low_percentile=2, high_percentile=98)


def test_the_segmenter_sees_a_stretched_square():
    display, _ = drawn_chest(300, 200)
    square = segmenter_input(display, 96).image
    assert square.shape == (96, 96)
    assert square.dtype == np.float32
    assert (square.min(), square.max()) == (0.0, 1.0)


def test_a_constant_image_is_no_error():
    square = segmenter_input(np.full((50, 40), 7, np.uint8), 32).image
    assert np.isfinite(square).all()


def test_nothing_outside_the_lungs_reaches_the_classifiers():
    display, lungs = drawn_chest()
    marked = display.copy()
    marked[:30, :] = 255
    marked[:, 95:105] = 0
    crop, other = crop_lungs(display, lungs, RECIPE), crop_lungs(marked, lungs, RECIPE)
    assert np.array_equal(crop.image, other.image)
    assert (crop.image[~crop.inside] == 0.5).all()
    assert 0.2 < crop.inside.mean() < 0.9


@settings(max_examples=25, deadline=None)
@given(gain=st.floats(0.3, 0.9), offset=st.integers(0, 25))
def test_gain_and_offset_of_the_scanner_make_no_difference(gain, offset):
    display, lungs = drawn_chest()
    dimmed = np.round(display * gain + offset).astype(np.uint8)
    first, second = crop_lungs(display, lungs, RECIPE), crop_lungs(dimmed, lungs, RECIPE)
    assert np.abs(first.image - second.image).max() < 0.35
    assert np.abs(first.image - second.image).mean() < 0.03


def test_a_negative_is_turned_back():
    display, lungs = drawn_chest()
    crop, negative = crop_lungs(display, lungs, RECIPE), crop_lungs(255 - display, lungs, RECIPE)
    assert not crop.inverted
    assert negative.inverted
    assert np.abs(crop.image - negative.image).mean() < 0.02


@pytest.mark.parametrize("shape", [(300, 200), (150, 400), (2000, 1500)])
def test_a_map_of_the_crop_returns_to_its_place(shape):
    display, lungs = drawn_chest(*shape)
    crop = crop_lungs(display, lungs, RECIPE)
    spot = np.zeros((10, 10), np.float32)
    spot[2, 7] = 1.0
    placed = crop.to_source(spot)
    assert placed.shape == shape
    assert placed.max() <= 1.0
    row, column = np.unravel_index(np.argmax(placed), shape)
    box = crop.box
    assert row == pytest.approx(box.top + 0.25 * (box.bottom - box.top), abs=0.05 * shape[0])
    assert column == pytest.approx(box.left + 0.75 * (box.right - box.left), abs=0.05 * shape[1])
    assert placed[: box.top].sum() == placed[:, box.right :].sum() == 0


def test_the_box_stays_within_the_image():
    lungs = np.zeros((50, 60), np.bool_)
    lungs[0:20, 30:60] = True
    box = lung_box(lungs, 0.5)
    assert (box.top, box.left, box.bottom, box.right) == (0, 15, 30, 60)


def test_lungs_too_small_for_the_crop_still_give_one():
    display = np.full((400, 400), 90, np.uint8)
    lungs = np.zeros((400, 400), np.bool_)
    lungs[200, 200] = True
    assert np.isfinite(crop_lungs(display, lungs, RECIPE).image).all()


def test_a_mask_keeps_its_shape_at_another_size():
    _, lungs = drawn_chest(96, 96)
    _, true = drawn_chest(500, 333)
    grown = scale_mask(lungs, (500, 333))
    assert 2 * (grown & true).sum() / (grown.sum() + true.sum()) > 0.97


def test_dilation_grows_by_its_radius():
    mask = np.zeros((21, 21), np.bool_)
    mask[10, 10] = True
    assert dilate(mask, 3).sum(axis=0).max() == 7
    assert dilate(mask, 0).sum() == 1
    assert not dilate(np.zeros_like(mask), 3).any()


def test_an_outline_lies_on_the_square_as_the_film_does():
    display, lungs = drawn_chest(300, 200)
    framed, outline = np.pad(display, 50), np.pad(lungs, 50)
    square = segmenter_input(framed, 96)
    there = square.from_source(outline) >= 128
    assert (square.image[there].mean() + 0.4) < square.image[~there].mean()
    back = square.to_source(there)
    assert 2 * (back & outline).sum() / (back.sum() + outline.sum()) > 0.97
    coarse = square.from_source(outline[::2, ::2]) >= 128
    assert 2 * (coarse & there).sum() / (coarse.sum() + there.sum()) > 0.97
