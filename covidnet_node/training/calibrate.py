"""Fit what turns the members' logits into probabilities, limits and a distance.

Everything here is fitted on the validation split, weighted so that every class counts alike and
no source rules its class; only the distance's directions come from the training split.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from torch import Tensor

from covidnet_node.models.classify import member_outputs
from covidnet_node.models.distance import Distance, raw_distances
from covidnet_node.training.classifier import load_member
from covidnet_node.training.crops import Crops, load_crops, prepared
from covidnet_node.training.dataset import (
    LABELS,
    Film,
    Folder,
    Split,
    balanced_weights,
    for_classes,
)
from covidnet_node.training.loop import training_device
from covidnet_node.training.recipe import Recipe

FILE = "calibration.safetensors"
COVID19 = LABELS["covid"]
LEAST_THRESHOLD, MOST_THRESHOLD = 1 / 3, 1 / 2

DIRECTIONS = 32
"""In which the members' features of training films are told to differ."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What validation taught about the finished members."""

    temperature: float
    covid19_threshold: float
    most_disagreement: float
    distance: Distance


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the members make of films that have a plausible crop."""

    films: tuple[Film, ...]
    logits: Tensor
    """(members, n, classes)"""
    features: Tensor
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]


def calibrate(data: Folder, runs: Path, recipe: Recipe) -> Calibration:
    """Fit on the trained members of `runs`; leaves runs/calibration.safetensors."""
    torch.set_num_threads(recipe.threads)
    crops = load_crops(runs)
    train, val = (
        outputs(for_classes(data, split), crops, runs, recipe) for split in (Split.TRAIN, Split.VAL)
    )
    temperature = fit_temperature(val)
    single = torch.softmax(val.logits / temperature, dim=-1).double().numpy()
    mean = single.mean(axis=0)
    gaps = np.abs(single.max(axis=0) - single.min(axis=0)).sum(axis=-1) / 2
    labels = torch.from_numpy(train.labels)
    distance = fit_distance(train.features, labels, val.features, DIRECTIONS)
    found = Calibration(
        temperature=temperature,
        covid19_threshold=_threshold(mean[:, COVID19], val),
        most_disagreement=float(np.quantile(gaps, recipe.limits.disagreement_quantile)),
        distance=distance,
    )
    _save(runs / FILE, found)
    return found


def outputs(films: tuple[Film, ...], crops: Crops, runs: Path, recipe: Recipe) -> Outputs:
    """Ask the trained members of `runs` about the films; those without a crop are left out."""
    rows = {name: row for row, name in enumerate(crops.ids)}
    kept = tuple(film for film in films if film.key in rows)
    images = crops.lungs[[rows[film.key] for film in kept]]
    place = training_device()
    members = [load_member(runs, member.name, recipe).to(place) for member in recipe.members]
    parts = [
        member_outputs(members, prepared(part), place)
        for part in np.array_split(images, max(1, len(images) // 64))
    ]
    return Outputs(
        kept,
        torch.cat([logits for logits, _ in parts], dim=1),
        torch.cat([features for _, features in parts]),
        np.array([LABELS[film.label] for film in kept]),
        balanced_weights(kept),
    )


def fit_temperature(val: Outputs) -> float:
    """The one that makes the mean of the members least surprised by validation."""

    def surprise(logarithm: float) -> float:
        single = torch.softmax(val.logits / float(np.exp(logarithm)), dim=-1).double()
        chosen = single.mean(dim=0).numpy()[np.arange(len(val.labels)), val.labels]
        return float(-(val.weights * np.log(np.maximum(chosen, 1e-12))).sum())

    return float(np.exp(minimize_scalar(surprise, bounds=(-2.0, 2.0), method="bounded").x))


def load_calibration(runs: Path) -> Calibration:
    """Read what calibrate left."""
    tensors = load_file(runs / FILE)
    temperature, threshold, disagreement = tensors.pop("numbers").tolist()
    return Calibration(temperature, threshold, disagreement, Distance(**tensors))


def fit_distance(train: Tensor, labels: Tensor, val: Tensor, directions: int) -> Distance:
    """Directions and spread of training features, distances of validation features.

    `train` and `val` are (n, width), `labels` (n,) counts the classes of `train` from 0.
    """
    center, scale = train.mean(dim=0), train.std(dim=0) + 1e-3
    centered = (train - center) / scale
    count = min(directions, len(centered) // 4)
    # The eigenvectors of the covariance: far quicker than an SVD of thousands of rows.
    leading = torch.linalg.eigh((centered.T @ centered).double()).eigenvectors.flip(1)
    axes = leading[:, :count].T.float().contiguous()
    along = centered @ axes.T
    residual = (centered - along @ axes).norm(dim=1).square().mean().sqrt()
    classes = int(labels.max()) + 1
    means = torch.stack([along[labels == label].mean(dim=0) for label in range(classes)])
    spread = torch.cov((along - means[labels]).T) + 1e-3 * torch.eye(count)
    values, vectors = torch.linalg.eigh(spread)
    whiten = vectors / values.sqrt()
    bare = Distance(center, scale, axes, whiten, means @ whiten, residual, torch.zeros(1))
    ranks = torch.linspace(0, 1, 201, dtype=torch.float64)
    return replace(bare, quantiles=torch.quantile(raw_distances(bare, val), ranks))


def distance_tensors(distance: Distance) -> dict[str, Tensor]:
    """The tensors of a distance file."""
    return {name: getattr(distance, name).contiguous() for name in Distance.__slots__}


def _save(path: Path, found: Calibration) -> None:
    numbers = [found.temperature, found.covid19_threshold, found.most_disagreement]
    tensors = distance_tensors(found.distance)
    save_file(tensors | {"numbers": torch.tensor(numbers, dtype=torch.float64)}, path)


def _threshold(covid19: NDArray[np.float64], val: Outputs) -> float:
    """Where sensitivity plus specificity is greatest (Youden), sources weighted.

    Not below a third: less than that is never the most probable of three. Not above a half: more
    than that always is, and a reader would not understand another class being called.
    """
    truth = val.labels == COVID19
    gain = np.where(truth, val.weights / val.weights[truth].sum(), 0.0)
    loss = np.where(truth, 0.0, val.weights / val.weights[~truth].sum())
    order = np.argsort(-covid19)
    youden = np.cumsum((gain - loss)[order])
    best = int(np.argmax(youden))
    following = covid19[order[min(best + 1, len(order) - 1)]]
    between = float((covid19[order[best]] + following) / 2)
    return round(min(max(between, LEAST_THRESHOLD), MOST_THRESHOLD), 3)
