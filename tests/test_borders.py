"""Borders are cut away, films are not."""

import numpy as np
import pytest
from scipy import ndimage

from covidnet_node.imaging.borders import within_borders
from covidnet_node.imaging.prepare import scale_mask, segmenter_input
from tests.tiny_medicine import drawn_chest


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
    assert (box.left, box.right) == pytest.approx((50, 250), abs=2)
    assert box.bottom == pytest.approx(350, abs=2)
    assert 48 <= box.top <= 52 + 300 // 20


def test_borders_within_borders_are_cut_away_whole():
    display, _ = drawn_chest(300, 200)
    framed = np.pad(np.pad(np.pad(display, 40), 40, constant_values=255), 40)
    box = within_borders(framed)
    assert (box.left, box.right) == pytest.approx((120, 320), abs=2)
    assert box.bottom == pytest.approx(420, abs=2)


@pytest.mark.parametrize("grays", [10, 25, 51])
def test_a_pale_film_is_not_taken_for_its_border(grays):
    """The contrast of film against border must not say what an even row is."""
    display, lungs = drawn_chest(300, 200)
    smooth = ndimage.gaussian_filter(display.astype(np.float64), 8)
    pale = np.round(100 + smooth / 255 * grays).astype(np.uint8)
    for gray in (0, 255):
        box = within_borders(np.pad(pale, 60, constant_values=gray))
        kept = np.pad(lungs, 60)[box.top : box.bottom, box.left : box.right]
        assert kept.sum() == lungs.sum()
        assert 58 <= box.left < box.right <= 262
        assert 58 <= box.top < box.bottom <= 362


def test_what_is_burnt_out_white_stays():
    """It has no edge: an abdomen without contrast, the white base of a lung above it."""
    display, _ = drawn_chest(300, 200)
    down = np.clip(np.linspace(-1.0, 1.6, 300), 0.0, 1.0)[:, None] ** 0.5
    burnt = np.round(display + down * (255.0 - display)).astype(np.uint8)
    assert (burnt[250:] == 255).all()
    assert within_borders(burnt).bottom == 300
    assert within_borders(np.pad(burnt, 40)).bottom == pytest.approx(340, abs=2)
    paper = within_borders(np.pad(display, ((0, 60), (0, 0)), constant_values=255))
    assert paper.bottom == pytest.approx(300, abs=2)


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
