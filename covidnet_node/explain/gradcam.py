"""Grad-CAM of every member, combined: where the ensemble looked for one class.

What is explained is the class's log-odds, not its logit: a logit may rise everywhere without any
answer changing, the odds rise only where something speaks for the class more than for the others.

Raw: nothing is masked, smoothed or thresholded here, so that a network that looks beside the
lungs is seen to do so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn

from covidnet_node.case import Reason
from covidnet_node.errors import RetryLater


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """One network to explain."""

    network: nn.Module
    """Images (1, 1, side, side) to logits (1, classes)."""
    layer: nn.Module
    """The part of it whose output is weighed: its last with a spatial extent."""
    weight: float
    """Of its map in the combination; 0 or more."""


def grad_cam(viewpoints: Sequence[Viewpoint], image: Tensor, target: int) -> NDArray[np.float32]:
    """Combine the members' Grad-CAM maps for class `target`: (side, side), 0 to 1.

    `image` is (1, 1, side, side), normalized as the networks want it, on their device. Each
    map is scaled to a maximum of 1, then averaged by weight (Selvaraju et al. 2017). All zero
    if no member has evidence for the class, or no weight. Raises RetryLater when the device is
    out of memory.
    """
    combined = np.zeros(tuple(image.shape[-2:]), np.float32)
    total = sum(viewpoint.weight for viewpoint in viewpoints)
    if total <= 0:
        return combined
    try:
        for viewpoint in viewpoints:
            combined += viewpoint.weight / total * _member_map(viewpoint, image, target)
    except torch.OutOfMemoryError as error:
        raise RetryLater(Reason.OUT_OF_MEMORY, "the GPU has too little free memory") from error
    return np.clip(combined, 0.0, 1.0)


def energy_in_lungs(heatmap: NDArray[np.float32], lungs: NDArray[np.bool_]) -> float:
    """Share of the map's sum that lies inside the lungs, 0 to 1; 0 for an empty map.

    Both are (rows, columns) of one geometry. The energy-based pointing game of Wang et al. 2020.
    """
    whole = float(heatmap.sum(dtype=np.float64))
    if whole <= 0:
        return 0.0
    return min(1.0, float(heatmap[lungs].sum(dtype=np.float64)) / whole)


@dataclass(frozen=True, slots=True)
class _LogOdds:
    """What pytorch-grad-cam is to explain: the class's logit less the soft maximum of the rest.

    The probability itself would do, but for a class that is all but certain its gradient is zero.
    """

    target: int

    def __call__(self, logits: Tensor) -> Tensor:
        rest = torch.cat([logits[..., : self.target], logits[..., self.target + 1 :]], dim=-1)
        odds: Tensor = logits[..., self.target] - torch.logsumexp(rest, dim=-1)
        return odds


def _member_map(viewpoint: Viewpoint, image: Tensor, target: int) -> NDArray[np.float32]:
    # A fresh leaf: the weights themselves take no gradient, only what lies behind the image.
    leaf = image.detach().clone().requires_grad_()
    with GradCAM(model=viewpoint.network, target_layers=[viewpoint.layer]) as cam:
        maps = cam(input_tensor=leaf, targets=[_LogOdds(target)])
    return np.asarray(maps[0], np.float32)
