"""How far features are from those of the training data, and where among validation's that is."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Distance:
    """What training data looked like to a network; float32 on the CPU."""

    center: Tensor
    """(width,): mean of the features."""
    scale: Tensor
    """(width,)"""
    directions: Tensor
    """(k, width): the directions in which training images differ most."""
    whiten: Tensor
    """(k, k): makes the spread within a class the same in all of them."""
    means: Tensor
    """(classes, k), whitened."""
    residual: Tensor
    """(): typical length of what the directions do not explain."""
    quantiles: Tensor
    """(q,), rising: distances of validation images."""


def raw_distances(distance: Distance, features: Tensor) -> Tensor:
    """(n,): distance to the nearest class, plus what training directions cannot explain.

    A Mahalanobis distance with one spread for all classes (Lee et al. 2018), in the leading
    principal directions, joined with the residual outside them (Wang et al. 2022, ViM).
    """
    centered = (features - distance.center) / distance.scale
    along = centered @ distance.directions.T
    residual = (centered - along @ distance.directions).norm(dim=1) / distance.residual
    gaps = torch.cdist((along @ distance.whiten).double(), distance.means.double())
    nearest = gaps.min(dim=1).values / len(distance.directions) ** 0.5
    squared: Tensor = nearest.square() + residual.double().square()
    return squared.sqrt()


def distance_scores(distance: Distance, features: Tensor) -> NDArray[np.float64]:
    """(n,): share of validation images with a smaller distance, 0 to 1."""
    quantiles = distance.quantiles.double().numpy()
    shares = np.linspace(0.0, 1.0, len(quantiles))
    scores: NDArray[np.float64] = np.interp(
        raw_distances(distance, features).numpy(), quantiles, shares
    )
    return scores
