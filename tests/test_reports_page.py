"""The page: "not analyzed" as an image."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from covidnet_node.case import Reason, ResultKind
from covidnet_node.config import Results
from covidnet_node.reports.encode import encode
from covidnet_node.reports.results import build_results
from tests.orders import NOT_ANALYZED, header, order, reread

PAGE = Results(page=True)


def test_not_analyzed_is_a_page_too_where_it_is_wanted() -> None:
    source = header()
    kinds = [b.kind for b in build_results(order(source, analysis=NOT_ANALYZED, profile=PAGE))]
    assert kinds == [ResultKind.REPORT, ResultKind.PAGE]
    assert ResultKind.PAGE not in [built.kind for built in build_results(order(profile=PAGE))]


def test_the_page_is_legible_and_identifies_nobody() -> None:
    source = header(SeriesNumber="3")
    document, page = (
        built.dataset for built in build_results(order(source, analysis=NOT_ANALYZED, profile=PAGE))
    )
    page = reread(encode(page))
    assert page.pixel_array.shape == (768, 1024, 3)
    drawn = page.pixel_array.max(axis=2) > 128
    assert 0.01 < drawn.mean() < 0.3
    margins = (drawn[:32], drawn[-32:], drawn[:, :32], drawn[:, -32:])
    assert not any(margin.any() for margin in margins)
    assert page.BurnedInAnnotation == "NO"
    assert page.SeriesInstanceUID not in (source.SeriesInstanceUID, document.SeriesInstanceUID)
    assert "NOT ANALYZED" in page.ImageComments
    assert "nothing about the presence of disease" in page.ImageComments
    other = replace(NOT_ANALYZED, reason=Reason.UNDER_18)
    again = build_results(order(source, analysis=other, profile=PAGE))[1].dataset
    assert again.SOPInstanceUID != page.SOPInstanceUID
    assert again.PixelData != page.PixelData


def test_the_longest_reason_fits_the_page() -> None:
    wordy = replace(NOT_ANALYZED, detail="x" * 700 + " and so on" * 30)
    page = build_results(order(analysis=wordy, profile=PAGE))[1].dataset
    drawn = page_pixels(page).max(axis=2) > 128
    assert not drawn[-32:].any()
    assert not drawn[:, -32:].any()


def page_pixels(page: Dataset) -> NDArray[np.uint8]:
    return np.asarray(reread(encode(page)).pixel_array)
