"""What the ensemble says of prepared lung crops, and how far it should be believed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covidnet_node.case import Member, Probabilities
from covidnet_node.intended_use import CLASSES
from covidnet_node.models.distance import distance_scores
from covidnet_node.models.nets import Classifier, normalize
from covidnet_node.models.networks import Networks, memory_verdict


@dataclass(frozen=True, slots=True)
class Classification:
    """The ensemble's answer for one crop."""

    members: tuple[Member, ...]
    probabilities: Probabilities
    """Weighted mean of the members', calibrated."""
    disagreement: float
    """Largest half L1 distance between two members, 0 to 1."""
    out_of_distribution: float
    """Share of validation images that are nearer to the training data, 0 to 1."""


def classify(
    networks: Networks, crops: Sequence[NDArray[np.float32]]
) -> tuple[Classification, ...]:
    """Classify crops of (side, side), 0 to 1, as imaging.prepare makes them.

    Raises RetryLater when the device is out of memory.
    """
    if not crops:
        return ()
    with memory_verdict():
        logits, features = member_outputs(networks.members, np.stack(crops), networks.device)
    entries, temperature = networks.manifest.members, networks.manifest.ensemble.temperature
    single = torch.softmax(logits / temperature, dim=-1).double().numpy()
    single /= single.sum(axis=-1, keepdims=True)
    weights = np.array([entry.weight for entry in entries])
    mean = np.einsum("m,mnc->nc", weights / weights.sum(), single)
    scores = distance_scores(networks.distance, features)
    return tuple(
        Classification(
            members=tuple(
                Member(entry.name, probabilities(single[number, index]))
                for number, entry in enumerate(entries)
            ),
            probabilities=probabilities(mean[index]),
            disagreement=_disagreement(single[:, index]),
            out_of_distribution=float(scores[index]),
        )
        for index in range(len(crops))
    )


def member_outputs(
    members: Sequence[Classifier], crops: NDArray[np.float32], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits (members, n, classes) and the members' pooled features side by side (n, width).

    `crops` is (n, side, side), 0 to 1.
    """
    with torch.inference_mode():
        images = input_tensor(crops, device)
        pooled = [member.pooled(images) for member in members]
        logits = [member.head(seen) for member, seen in zip(members, pooled, strict=True)]
        return torch.stack(logits).cpu(), torch.cat(pooled, dim=1).cpu()


def input_tensor(crops: NDArray[np.float32], device: torch.device) -> Tensor:
    """Crops (n, side, side), 0 to 1, as (n, 1, side, side) on the device, normalized."""
    images = torch.from_numpy(crops).unsqueeze(1).to(device)
    return normalize(images).contiguous(memory_format=torch.channels_last)


def probabilities(values: NDArray[np.float64]) -> Probabilities:
    """A vector in the order of intended_use.CLASSES, as a noun."""
    return Probabilities(**dict(zip(CLASSES, map(float, values), strict=True)))


def vector(noun: Probabilities) -> NDArray[np.float64]:
    """The noun as a vector in the order of intended_use.CLASSES."""
    return np.array([noun.covid19, noun.pneumonia, noun.normal])


def _disagreement(single: NDArray[np.float64]) -> float:
    gaps = np.abs(single[:, None] - single[None, :]).sum(axis=-1) / 2
    return float(gaps.max())
