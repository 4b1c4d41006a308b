"""Lung outlines against references, per outline convention, source and view."""

from collections.abc import Sequence
from dataclasses import dataclass

from covidnet_node.training.evaluation.answers import CHANNEL
from covidnet_node.training.evaluation.groups import Group, Seen, by_source, by_view, patients
from covidnet_node.training.evaluation.intervals import Estimate, mean_estimate
from covidnet_node.training.evaluation.outlines import Overlap


@dataclass(frozen=True, slots=True)
class LungFigures:
    """Means over the films of one group whose references follow one convention."""

    group: str
    convention: str
    what: str
    """`channel`: the network's own, of that convention, thresholded. `shipped`: what the node
    used, which always means the lung field, where it found plausible lungs. `annotators`: a second
    annotator against the first, where there are two."""
    films: int
    dice: Estimate
    iou: Estimate
    boundary: Estimate
    """Percent of the film's diagonal."""
    boundary_95: Estimate
    worst_dice: float
    not_found: int
    """Films without a plausible outline; not in the means of `shipped`."""


def lung_figures(seen: Sequence[Seen]) -> tuple[LungFigures, ...]:
    """Every convention in the folder: as a whole, then by source and by view."""
    outlined = tuple(each for each in seen if each.answer.outlines is not None)
    found: list[LungFigures] = []
    for style in sorted({each.exam.mask_style for each in outlined}):
        films = tuple(each for each in outlined if each.exam.mask_style == style)
        groups = (Group("all films", films), *by_source(films), *by_view(films))
        found += [_figures(group, style, "channel") for group in groups]
        if CHANNEL.get(style, CHANNEL["lung-field"]) == CHANNEL["lung-field"]:
            shipped = [_figures(group, style, "shipped") for group in groups]
            found += [each for each in shipped if each.films]
        annotators = _figures(groups[0], style, "annotators")
        found += [annotators] if annotators.films else []
    return tuple(found)


def _figures(group: Group, style: str, what: str) -> LungFigures:
    pairs = [(each, outline) for each in group.films if (outline := _outline(each, what))]
    names = patients([each for each, _ in pairs])
    overlaps = [outline for _, outline in pairs]
    edged = [(each, outline) for each, outline in pairs if outline.boundary is not None]
    edged_names = patients([each for each, _ in edged])
    return LungFigures(
        group=group.name,
        convention=style,
        what=what,
        films=len(pairs),
        dice=mean_estimate([each.dice for each in overlaps], names),
        iou=mean_estimate([each.iou for each in overlaps], names),
        boundary=mean_estimate([each.boundary or 0.0 for _, each in edged], edged_names),
        boundary_95=mean_estimate([each.boundary_95 or 0.0 for _, each in edged], edged_names),
        worst_dice=min((each.dice for each in overlaps), default=0.0),
        not_found=sum(_shipped(each) is None for each in group.films),
    )


def _outline(seen: Seen, what: str) -> Overlap | None:
    outlines = seen.answer.outlines
    if what == "shipped":
        return _shipped(seen)
    if what == "annotators":
        return outlines.annotators if outlines else None
    return outlines.channel if outlines else None


def _shipped(seen: Seen) -> Overlap | None:
    return seen.answer.outlines.shipped if seen.answer.outlines else None
