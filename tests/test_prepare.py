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
    within_borders,
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


def test_a_mask_returns_to_the_source():
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


@pytest.mark.parametrize("gray", [0, 110, 255])
def test_even_borders_are_cut_away(gray):
    display, lungs = drawn_chest(300, 200)
    wide = ((60, 40), (30, 70))
    framed = np.pad(display, wide, constant_values=gray)
    box, plain = within_borders(framed), within_borders(display)
    found = (box.top - 60, box.left - 30, box.bottom - 60, box.right - 30)
    assert found == pytest.approx((plain.top, plain.left, plain.bottom, plain.right), abs=2)
    square = segmenter_input(framed, 96)
    assert np.abs(square.image - segmenter_input(display, 96).image).mean() < 0.02
    returned = square.to_source(scale_mask(lungs[plain.top : plain.bottom], (96, 96)))
    true = np.pad(lungs, wide)
    assert returned.shape == framed.shape
    assert 2 * (returned & true).sum() / (returned.sum() + true.sum()) > 0.97


def test_letters_and_compression_in_a_border_do_not_hold_it_up():
    display, _ = drawn_chest(300, 200)
    framed = np.pad(display, 50)
    framed[10:30, 20:45] = 255
    framed = np.maximum(framed, np.random.default_rng(1).integers(0, 4, framed.shape))
    box = within_borders(framed.astype(np.uint8))
    assert box.top >= 49
    assert box.left >= 49


def test_frame_in_a_frame_is_cut_away_whole():
    display, _ = drawn_chest(300, 200)
    framed = np.pad(np.pad(display, 40, constant_values=255), 40)
    box = within_borders(framed)
    assert (box.left, box.right) == pytest.approx((80, 280), abs=2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (7, 5), (64, 64), (2000, 30)])
@pytest.mark.parametrize("kind", ["even", "noise", "dot"])
def test_whatever_is_shown_some_box_of_it_is_left(shape, kind):
    display = np.zeros(shape, np.uint8)
    if kind == "noise":
        display = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    if kind == "dot":
        display[shape[0] // 2, shape[1] // 2] = 255
    square = segmenter_input(display, 32)
    box = square.box
    assert 0 <= box.top < box.bottom <= shape[0]
    assert 0 <= box.left < box.right <= shape[1]
    assert np.isfinite(square.image).all()
    assert square.to_source(np.ones((32, 32), np.bool_)).shape == shape
