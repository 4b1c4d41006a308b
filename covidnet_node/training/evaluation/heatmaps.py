"""Where the heatmap lies and whether the answer hangs on what it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from covidnet_node.training.evaluation.answers import Heat
from covidnet_node.training.evaluation.groups import (
    Group,
    Seen,
    by_source,
    by_view,
    overall,
    patients,
)
from covidnet_node.training.evaluation.intervals import Estimate, mean_estimate
from covidnet_node.training.evaluation.occlusion import Occlusion

Reading = Callable[[Seen], float | None]


@dataclass(frozen=True, slots=True)
class HeatFigures:
    """Means over one group. Energies are of the raw map, before any masking."""

    group: str
    films: int
    """With a heatmap."""
    energy_own: Estimate
    """Share of the map inside the node's own outline."""
    area_own: Estimate
    """The outline's share of the film."""
    area_own_of_crop: Estimate
    """The outline's share of the crop: the energy of a map without any aim."""
    with_reference: int
    energy_reference: Estimate
    """Share of the map inside the reference outline, of the group's convention."""
    area_reference: Estimate
    area_reference_of_crop: Estimate
    insertion: Estimate
    """Larger is better; compare with the random map's."""
    insertion_random: Estimate
    deletion: Estimate
    """Smaller is better; compare with the random map's."""
    deletion_random: Estimate


def heat_figures(seen: Sequence[Seen]) -> tuple[HeatFigures, ...]:
    """All adults, then references by convention, then by source and by view."""
    adults = overall(seen)
    styles = sorted({each.exam.mask_style for each in adults.films if each.exam.mask})
    outlined = tuple(
        Group(f"reference {style}", tuple(e for e in adults.films if _follows(e, style)))
        for style in styles
    )
    groups = (adults, *outlined, *by_source(seen), *by_view(seen))
    found = [_figures(group) for group in groups]
    return tuple(each for each in found if each.films)


def _figures(group: Group) -> HeatFigures:
    films = tuple(each for each in group.films if each.answer.heat is not None)
    return HeatFigures(
        group=group.name,
        films=len(films),
        energy_own=_mean(films, _heat(lambda heat: heat.own)),
        area_own=_mean(films, _heat(lambda heat: heat.own_area)),
        area_own_of_crop=_mean(films, _heat(lambda heat: heat.own_area_of_crop)),
        with_reference=sum(_heat(lambda heat: heat.reference)(each) is not None for each in films),
        energy_reference=_mean(films, _heat(lambda heat: heat.reference)),
        area_reference=_mean(films, _heat(lambda heat: heat.reference_area)),
        area_reference_of_crop=_mean(films, _heat(lambda heat: heat.reference_area_of_crop)),
        insertion=_mean(films, _curve(lambda curve: curve.insertion)),
        insertion_random=_mean(films, _curve(lambda curve: curve.random_insertion)),
        deletion=_mean(films, _curve(lambda curve: curve.deletion)),
        deletion_random=_mean(films, _curve(lambda curve: curve.random_deletion)),
    )


def _follows(seen: Seen, style: str) -> bool:
    return seen.exam.mask is not None and seen.exam.mask_style == style


def _heat(of: Callable[[Heat], float | None]) -> Reading:
    return lambda seen: of(seen.answer.heat) if seen.answer.heat else None


def _curve(of: Callable[[Occlusion], float]) -> Reading:
    return lambda seen: of(seen.answer.occlusion) if seen.answer.occlusion else None


def _mean(films: Sequence[Seen], reading: Reading) -> Estimate:
    """Over the films that have the reading."""
    values = [(each, value) for each in films if (value := reading(each)) is not None]
    return mean_estimate([value for _, value in values], patients([each for each, _ in values]))
