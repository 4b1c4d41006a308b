"""The heatmap picture: what is drawn where, and what is left alone."""

from dataclasses import replace

import numpy as np
import pytest

from covidnet_node.case import (
    Algorithm,
    Analysis,
    Explanation,
    Outcome,
    Probabilities,
    Reason,
)
from covidnet_node.explain.overlay import draw_overlay, draw_plain

ALGORITHM = Algorithm(
    name="CovidNet ensemble",
    version="2026.1",
    digest="ab" * 32,
    covid19_threshold=0.5,
    calibration="temperature scaling",
    notice="Provisional weights.",
)


def analysis(rows: int = 400, columns: int = 300, **changes: object) -> Analysis:
    """A covid19 case with one hot square in the left upper quarter."""
    heat = np.zeros((rows, columns), np.float32)
    heat[rows // 8 : rows // 4, columns // 8 : columns // 4] = 0.7
    lungs = np.zeros((rows, columns), np.bool_)
    lungs[rows // 2 : rows - 20, 20 : columns - 20] = True
    made = Analysis(
        outcome=Outcome.ANALYZED,
        reason=None,
        display=np.random.default_rng(1).integers(0, 256, (rows, columns), dtype=np.uint8),
        lungs=lungs,
        probabilities=Probabilities(0.87, 0.09, 0.04),
        explanation=Explanation(heatmap=heat, target="covid19", energy_in_lungs=0.5),
    )
    return replace(made, **changes)


def below_the_strip(picture: np.ndarray, case: Analysis) -> np.ndarray:
    assert case.display is not None
    return picture[picture.shape[0] - case.display.shape[0] :]


def colored(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=2) > 0


@pytest.mark.parametrize(("rows", "columns"), [(40, 30), (200, 200), (512, 512), (3000, 2500)])
def test_the_picture_keeps_its_width_and_gains_only_a_strip(rows: int, columns: int) -> None:
    case = analysis(rows, columns)
    picture = draw_overlay(case, ALGORITHM)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (columns, 3)
    assert picture.shape[0] > rows
    if columns >= 500:
        assert picture.shape[0] < 1.3 * rows


def test_pixels_where_nothing_was_seen_are_the_originals() -> None:
    case = analysis(lungs=None)
    assert case.display is not None
    assert case.explanation is not None
    image = below_the_strip(draw_overlay(case, ALGORITHM), case)
    silent = case.explanation.heatmap == 0
    assert (image[silent] == case.display[silent][:, None]).all()
    assert colored(image)[~silent].mean() > 0.99


def test_a_weak_part_of_the_map_is_not_drawn() -> None:
    case = analysis(lungs=None)
    assert case.explanation is not None
    heat = case.explanation.heatmap.copy()
    heat[300:, :] = 0.1
    weak = replace(case, explanation=replace(case.explanation, heatmap=heat))
    assert not colored(below_the_strip(draw_overlay(weak, ALGORITHM), weak))[300:].any()


@pytest.mark.parametrize(
    ("target", "probabilities"),
    [("normal", Probabilities(0.02, 0.03, 0.95)), ("pneumonia", Probabilities(0.5, 0.1, 0.4))],
)
def test_no_color_for_normal_or_for_an_unlikely_class(
    target: str, probabilities: Probabilities
) -> None:
    case = analysis(lungs=None, probabilities=probabilities)
    assert case.explanation is not None
    case = replace(case, explanation=replace(case.explanation, target=target))
    assert not colored(below_the_strip(draw_overlay(case, ALGORITHM), case)).any()


def test_the_lung_line_lies_outside_the_lungs() -> None:
    case = analysis()
    assert case.explanation is not None
    assert case.lungs is not None
    silent = replace(case.explanation, heatmap=np.zeros_like(case.explanation.heatmap))
    case = replace(case, explanation=silent)
    drawn = colored(below_the_strip(draw_overlay(case, ALGORITHM), case))
    assert drawn.any()
    assert not drawn[case.lungs].any()


def test_an_inconclusive_picture_says_so() -> None:
    sure = analysis()
    unsure = replace(sure, outcome=Outcome.INCONCLUSIVE, reason=Reason.MEMBERS_DISAGREE)
    strips = [
        picture[: picture.shape[0] - 400]
        for picture in (draw_overlay(sure, ALGORITHM), draw_overlay(unsure, ALGORITHM))
    ]
    alarm = [
        (np.abs(strip.astype(int) - (255, 214, 64)).sum(axis=2) < 60).sum() for strip in strips
    ]
    assert alarm[1] > 1.5 * alarm[0]


def test_a_broken_map_draws_nothing() -> None:
    case = analysis(lungs=None)
    assert case.explanation is not None
    broken = replace(case.explanation, heatmap=np.full((400, 300), np.nan, np.float32))
    case = replace(case, explanation=broken)
    assert not colored(below_the_strip(draw_overlay(case, ALGORITHM), case)).any()


def test_same_analysis_same_picture() -> None:
    assert (draw_overlay(analysis(), ALGORITHM) == draw_overlay(analysis(), ALGORITHM)).all()


def test_without_a_display_image_there_is_no_picture() -> None:
    with pytest.raises(ValueError, match="display"):
        draw_overlay(analysis(display=None), ALGORITHM)


@pytest.mark.parametrize("columns", [60, 300, 512])
def test_the_plain_picture_lies_on_the_other_pixel_for_pixel(columns: int) -> None:
    case = analysis(columns=columns)
    assert case.display is not None
    drawn, plain = draw_overlay(case, ALGORITHM), draw_plain(case, ALGORITHM)
    assert plain.shape == drawn.shape
    assert (below_the_strip(plain, case) == case.display[:, :, None]).all()
    assert colored(below_the_strip(drawn, case)).any()


def test_a_plain_picture_also_needs_a_display_image() -> None:
    with pytest.raises(ValueError, match="display"):
        draw_plain(analysis(display=None), ALGORITHM)


BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
"""Machado, Oliveira and Fernandes 2009, severity 1; on linear RGB."""


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_color_bar_grows_lighter_for_every_eye(blindness: str) -> None:
    case = analysis(columns=500)
    picture = draw_overlay(case, ALGORITHM)
    strip = picture[: picture.shape[0] - 400].astype(float) / 255
    vivid = np.ptp(strip, axis=2) > 0.2
    lowest = np.nonzero(vivid.sum(axis=1) > 50)[0][-1]
    bar = strip[lowest][vivid[lowest]]
    seen = (bar**2.2 @ np.array(BLINDNESS[blindness]).T).clip(0, 1)
    light = seen @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(light[::4]) > 0).all()
    assert light[-1] > 5 * light[0]


@pytest.mark.parametrize("columns", [300, 301])
@pytest.mark.parametrize("rows", [400, 401])
def test_a_picture_has_an_even_number_of_pixels(rows: int, columns: int) -> None:
    """Encoders of RLE and JPEG Lossless stumble over an odd number of bytes."""
    looked = analysis(rows, columns)
    for picture in (draw_overlay(looked, ALGORITHM), draw_plain(looked, ALGORITHM)):
        assert picture.shape[1] == columns
        assert picture.size % 2 == 0
