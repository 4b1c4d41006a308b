"""The gate's last question: whether an object shows what the analysis said of this image.

Numbers, pixels, masks and outlines are read back from the finished object and held against the
analysis; a flipped picture, another image's mask or a number of another answer is stopped here.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    GrayscaleSoftcopyPresentationStateStorage,
    JPEGBaseline8Bit,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from covidnet_node.case import Analysis, Outcome
from covidnet_node.reports import codes
from covidnet_node.reports.checks import content, measured, named, said
from covidnet_node.reports.gate_pictures import decoded, floats, line_points, masks
from covidnet_node.reports.identity import count, items, text
from covidnet_node.reports.order import REPORT_CLASS_UIDS
from covidnet_node.reports.pixel_encoding import stated_syntax

_EXACT = 0.011
"""Percent: a NUM has two decimals."""
_NEAR_EDGE = 0.9
"""Of an outline's points, which must lie where the mask begins; a thinned line cuts corners."""


def answer_faults(result: Dataset, analysis: Analysis) -> Iterator[str]:
    """Complain where an object shows something else than the analysis said."""
    look = _LOOKS.get(text(result, "SOPClassUID"))
    if look is not None:
        yield from look(result, analysis)


def _report(result: Dataset, analysis: Analysis) -> Iterator[str]:
    tree = list(content(result))
    outcomes = [said(item) for item in tree if named(item) == codes.OUTCOME.value]
    if outcomes != [codes.OUTCOMES[analysis.outcome].value]:
        yield "the outcome is not that of the analysis"
    reasons = [said(item) for item in tree if named(item) == codes.REASON.value]
    expected = [] if analysis.reason is None else [codes.reason_code(analysis.reason).value]
    if reasons != expected:
        yield "the reason is not that of the analysis"
    if analysis.outcome is Outcome.NOT_ANALYZED or analysis.probabilities is None:
        return
    for name, concept in codes.CLASSES.items():
        group = next((item for item in tree if _is_about(item, concept.value)), Dataset())
        below = items(group, "ContentSequence")
        certain = [measured(item) for item in below if named(item) == codes.CERTAINTY.value]
        each = [measured(item) for item in below if named(item) == codes.MEMBER_CERTAINTY.value]
        if not _same(certain, [analysis.probabilities.of(name)]):
            yield f"the probability of {name} is not that of the analysis"
        if not _same(each, [member.probabilities.of(name) for member in analysis.members]):
            yield f"what the members said of {name} is not that of the analysis"
    for concept, value in (
        (codes.DISAGREEMENT, analysis.disagreement),
        (codes.DISTANCE, analysis.out_of_distribution),
        (codes.LUNG_AREA, analysis.lung_area_fraction),
    ):
        told = [measured(item) for item in tree if named(item) == concept.value]
        if not _same(told, [] if value is None else [value]):
            yield f"{concept.meaning} is not that of the analysis"


def _is_about(group: Dataset, value: str) -> bool:
    """Whether a group measures the certainty of one finding."""
    below = items(group, "ContentSequence")
    found = [said(item) for item in below if named(item) == "121071"]
    return found == [value] and any(named(item) == codes.CERTAINTY.value for item in below)


def _same(percents: list[float], shares: list[float]) -> bool:
    return len(percents) == len(shares) and all(
        abs(percent - 100 * share) < _EXACT for percent, share in zip(percents, shares, strict=True)
    )


def _picture(result: Dataset, analysis: Analysis) -> Iterator[str]:
    """Wherever the picture has no color it must show the image, gray for gray."""
    display = analysis.display
    if display is None or analysis.outcome is Outcome.NOT_ANALYZED:
        return
    rows, columns = display.shape
    pixels = decoded(result)
    high, wide = count(result, "Rows") or 0, count(result, "Columns") or 0
    if pixels is None or wide != columns or high < rows or pixels.size != 3 * high * wide:
        yield "the picture has no room for the image"
        return
    shown = pixels.reshape(high, wide, 3)[-rows:].astype(np.int16)
    lossy = stated_syntax(result) == JPEGBaseline8Bit
    # A JPEG holds luminance and two colors, of which 128 is none; it moves every gray a little.
    colors = np.abs(shown[..., 1:] - (128 if lossy else shown[..., :1])).max(axis=2)
    gray = colors <= (4 if lossy else 0)
    away = np.abs(shown[..., 0] - display)[gray]
    # A color that is all but transparent may look like gray.
    if gray.mean() < 0.2 or np.mean(away > (16 if lossy else 2)) > 0.01:
        yield "the picture does not show the image"


def _contours(result: Dataset, analysis: Analysis) -> Iterator[str]:
    lungs = analysis.lungs
    if lungs is None:
        return
    points = [line_points(line) for annotation in items(result, "GraphicAnnotationSequence")
              if text(annotation, "GraphicLayer") == "LUNGS"
              for line in items(annotation, "GraphicObjectSequence")]  # fmt: skip
    reach = 2 + 2 * -(-max(lungs.shape) // 512)
    if points and _on_edge(np.concatenate(points), lungs, reach) < _NEAR_EDGE:
        yield "the lungs are outlined elsewhere"


def _on_edge(points: NDArray[np.float64], lungs: NDArray[np.bool_], reach: int) -> float:
    """Share of points that have lung and other tissue within reach."""
    padded = np.pad(lungs, reach)
    near = 0
    for column, row in np.rint(points).astype(int).tolist():
        around = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        near += bool(around.any() and not around.all())
    return near / max(1, len(points))


def _segmentation(result: Dataset, analysis: Analysis) -> Iterator[str]:
    frames = masks(result)
    if analysis.lungs is None or frames is None:
        yield "the mask is of no analysis"
    elif not np.array_equal(frames.any(axis=0), analysis.lungs.ravel()):
        yield "the mask is not that of the analysis"


def _evidence_map(result: Dataset, analysis: Analysis) -> Iterator[str]:
    if analysis.explanation is None:
        yield "the map is of no analysis"
        return
    heat = np.nan_to_num(analysis.explanation.heatmap).clip(0, 1).ravel()
    values = floats(result)
    if values.shape != heat.shape or not np.allclose(values, heat, atol=1e-6):
        yield "the map is not that of the analysis"


_LOOKS: dict[str, Callable[[Dataset, Analysis], Iterator[str]]] = {
    **dict.fromkeys(REPORT_CLASS_UIDS.values(), _report),
    SecondaryCaptureImageStorage: _picture,
    GrayscaleSoftcopyPresentationStateStorage: _contours,
    SegmentationStorage: _segmentation,
    ParametricMapStorage: _evidence_map,
}
