"""How much of the hospital is left in what the members use: a linear probe on their features.

A multinomial logistic regression (Alain & Bengio 2016, linear classifier probes) on the pooled
features of all members, side by side: what the members' own last layer could read off.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from covidnet_node.models.classify import member_outputs
from covidnet_node.training.classifier import load_member
from covidnet_node.training.crops import Crops, prepared
from covidnet_node.training.dataset import Film, Split
from covidnet_node.training.loop import training_device
from covidnet_node.training.probing.sources import (
    FIFTHS,
    MEASURED,
    SourceFigures,
    fifth,
    source_figures,
    source_weights,
    sources_of,
    truths,
)
from covidnet_node.training.recipe import Recipe

ALL_FILMS = "members' features, linear"
UNSEEN_FILMS = "members' features, linear, films they never learned from"
PENALTY = 1e-2
"""On the squared coefficients of standardized features, beside the mean cross-entropy."""


def members_are_trained(runs: Path, recipe: Recipe) -> bool:
    """Whether there is anything to read features from."""
    return all((runs / f"member-{member.name}" / "best.pt").exists() for member in recipe.members)


def tell_sources_from_features(
    films: tuple[Film, ...], crops: Crops, runs: Path, recipe: Recipe
) -> tuple[SourceFigures, ...]:
    """On all films, divided as for the other probes; and on films of val and test alone.

    The members were trained on most of the former. The latter are few and leave out sources
    without such films, so each fifth is measured by a probe that learned from the other four.
    """
    features = pooled_features(films, crops, runs, recipe)
    found = [_figures(films, features, ALL_FILMS, (MEASURED,))]
    rows = [row for row, film in enumerate(films) if film.split in (Split.VAL, Split.TEST)]
    unseen = tuple(films[row] for row in rows)
    if len(sources_of(unseen)) > 1:
        found.append(_figures(unseen, features[rows], UNSEEN_FILMS, range(FIFTHS)))
    return tuple(found)


def pooled_features(
    films: Sequence[Film], crops: Crops, runs: Path, recipe: Recipe
) -> NDArray[np.float64]:
    """(n, width of all members together); every film has a crop."""
    place = training_device()
    rows = {name: row for row, name in enumerate(crops.ids)}
    images = crops.lungs[[rows[film.key] for film in films]]
    members = [load_member(runs, member.name, recipe).to(place) for member in recipe.members]
    parts = [
        member_outputs(members, prepared(part), place)[1]
        for part in np.array_split(images, max(1, len(images) // 64))
    ]
    found: NDArray[np.float64] = torch.cat(parts).double().numpy()
    return found


def fit_linear(features: NDArray[np.float64], truth: NDArray[np.int64], answers: int) -> nn.Module:
    """A multinomial logistic regression on standardized features, every answer counted alike."""
    center = features.mean(axis=0)
    scale = features.std(axis=0) + 1e-6
    network = _Standardized(torch.from_numpy(center), torch.from_numpy(scale), answers)
    given, wanted = torch.from_numpy(features), torch.from_numpy(truth)
    counted = torch.from_numpy(source_weights(truth))
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=300, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def surprise() -> Tensor:
        optimizer.zero_grad()
        entropy = functional.cross_entropy(network(given), wanted, reduction="none")
        loss = (entropy * counted).sum() + PENALTY * network.line.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(surprise)  # type: ignore[no-untyped-call]
    return network


class _Standardized(nn.Module):
    def __init__(self, center: Tensor, scale: Tensor, answers: int) -> None:
        super().__init__()
        self.center, self.scale = center, scale
        self.line = nn.Linear(len(center), answers, dtype=torch.float64)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, width) to logits (n, answers)."""
        logits: Tensor = self.line((features - self.center) / self.scale)
        return logits


def _figures(
    films: tuple[Film, ...], features: NDArray[np.float64], name: str, measured: Sequence[int]
) -> SourceFigures:
    """Each of the given fifths is measured by a probe that learned from the four others."""
    names = sources_of(films)
    truth = truths(films, names)
    fifths = np.array([fifth(film) for film in films])
    said = np.full((len(films), len(names)), np.nan)
    for each in measured:
        learned = fifths != each
        network = fit_linear(features[learned], truth[learned], len(names))
        with torch.inference_mode():
            logits = network(torch.from_numpy(features[~learned]))
        said[~learned] = torch.softmax(logits, dim=1).numpy()
    kept = ~np.isnan(said[:, 0])
    told = [film for film, was in zip(films, kept, strict=True) if was]
    learned_films = round(len(films) - len(told) / len(measured))
    return source_figures(told, said[kept], names, name, learned_films, None)
