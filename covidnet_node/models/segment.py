"""Where the lungs are, and whether what was found can be two lungs at all."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import nn

from covidnet_node.models.manifest import LungLimits
from covidnet_node.models.nets import LUNG_AND_HEART, LUNG_FIELD, normalize
from covidnet_node.models.networks import Networks, memory_verdict


@dataclass(frozen=True, slots=True)
class Lungs:
    """The lung field: lungs without heart and mediastinum, as on a Shenzhen outline."""

    mask: NDArray[np.bool_]
    """(side, side), the square that the segmenter saw."""
    area_fraction: float
    """Share of the image, 0 to 1."""
    plausible: bool
    remark: str
    """Why it is not plausible; empty if it is."""


def segment(networks: Networks, square: NDArray[np.float32]) -> Lungs:
    """Outline the lungs on the segmenter's square and judge the outline.

    `square` is (side, side), 0 to 1, as imaging.prepare makes it. Raises RetryLater when the
    device is out of memory.
    """
    with memory_verdict():
        probabilities = lung_probabilities(networks.segmenter, square[None], networks.device)[0]
    return judge_lungs(probabilities, networks.manifest.lungs)


def lung_probabilities(
    segmenter: nn.Module, squares: NDArray[np.float32], device: torch.device
) -> NDArray[np.float32]:
    """(n, 2, side, side): probability per outline convention for (n, side, side) squares."""
    with torch.inference_mode():
        images = torch.from_numpy(squares).unsqueeze(1).to(device)
        images = images.contiguous(memory_format=torch.channels_last)
        found: NDArray[np.float32] = torch.sigmoid(segmenter(normalize(images))).cpu().numpy()
    return found


def judge_lungs(probabilities: NDArray[np.float32], limits: LungLimits) -> Lungs:
    """Clean the outline to one piece a side and check it against the limits.

    `probabilities` is (2, side, side). The mask is cut at its lowest column between the
    halves, so that lungs that touch in front of the spine are still two.
    """
    field = probabilities[LUNG_FIELD]
    rough = field >= limits.threshold
    if float(rough.mean()) < limits.least_area / 2:
        return Lungs(rough, float(rough.mean()), plausible=False, remark="no lungs were found")
    cut = _valley(rough)
    halves = (_main_piece(rough[:, :cut]), _main_piece(rough[:, cut:]))
    mask = np.concatenate(halves, axis=1)
    remark = (
        _size_remark(halves, limits)
        or _place_remark(halves, mask, cut, limits)
        or _trust_remark(probabilities, halves, limits)
    )
    return Lungs(mask, float(mask.mean()), plausible=not remark, remark=remark)


def _valley(mask: NDArray[np.bool_]) -> int:
    """The column, in the middle third of the mask, where it is least high."""
    heights = ndimage.uniform_filter1d(mask.sum(axis=0).astype(np.float64), 5)
    columns = np.flatnonzero(mask.any(axis=0))
    left, width = int(columns[0]), int(columns[-1] - columns[0]) + 1
    start, end = left + width // 3, left + max(2 * width // 3, width // 3 + 1)
    return start + int(np.argmin(heights[start:end]))


def _main_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece, holes filled."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == int(np.argmax(sizes)))
    return filled


def _size_remark(halves: tuple[NDArray[np.bool_], ...], limits: LungLimits) -> str:
    """Areas and heights."""
    side = halves[0].shape[0]
    areas = [float(half.sum()) / side**2 for half in halves]
    if min(areas) < limits.least_lung:
        return "only one lung was found"
    if min(areas) / max(areas) < limits.least_balance:
        return "one lung is far smaller than the other"
    if not limits.least_area <= sum(areas) <= limits.most_area:
        return "the lungs are too small or too large for a chest radiograph"
    for half in halves:
        height, width = (np.ptp(np.flatnonzero(half.any(axis=axis))) + 1 for axis in (1, 0))
        slender = limits.least_height_by_width <= height / width <= limits.most_height_by_width
        if height / side < limits.least_height or not slender:
            return "a lung does not have the shape of one"
    return ""


def _place_remark(
    halves: tuple[NDArray[np.bool_], ...], mask: NDArray[np.bool_], cut: int, limits: LungLimits
) -> str:
    """Two of them, side by side, not cut off."""
    side = mask.shape[0]
    heights = mask.sum(axis=0)
    if heights[max(cut - 1, 0) : cut + 1].min() > limits.most_bridge * heights.max():
        return "two separate lungs were not found"
    down, across = zip(*(np.argwhere(half).mean(axis=0) / side for half in halves), strict=True)
    if abs(down[0] - down[1]) > limits.most_tilt:
        return "the lungs are not side by side"
    if across[1] + cut / side - across[0] < limits.least_apart:
        return "the lungs are too near each other, as on a lateral view"
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if float(border.mean()) > limits.most_on_border:
        return "the lungs are cut off by the edge of the image"
    return ""


def _trust_remark(
    probabilities: NDArray[np.float32], halves: tuple[NDArray[np.bool_], ...], limits: LungLimits
) -> str:
    """Whether both outline conventions and the network itself believe it."""
    mask = np.concatenate(halves, axis=1)
    other = probabilities[LUNG_AND_HEART] >= limits.threshold
    if float(other[mask].mean()) < limits.least_agreement:
        return "the two lung outlines contradict each other"
    certainty = float(probabilities[LUNG_FIELD][mask].mean())
    if certainty * min(map(_solidity, halves)) < limits.least_trust:
        return "the lung outline is uncertain"
    return ""


def _solidity(half: NDArray[np.bool_]) -> float:
    """Area by the area of the convex hull; the hull of pixel centers, so a little above 1."""
    hull = ConvexHull(np.argwhere(half & ~ndimage.binary_erosion(half)))
    return float(half.sum()) / float(hull.volume)
