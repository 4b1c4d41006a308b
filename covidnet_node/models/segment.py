"""Where the lungs are, and whether what was found can be two lungs at all."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import Tensor, nn

from covidnet_node.models.distance import Distance, distance_scores, raw_distances
from covidnet_node.models.manifest import LungLimits
from covidnet_node.models.nets import LUNG_FIELD, LungNet, normalize
from covidnet_node.models.networks import Networks, memory_verdict


@dataclass(frozen=True, slots=True)
class Lungs:
    """The lung field: lungs without heart and mediastinum, as on a Shenzhen outline."""

    mask: NDArray[np.bool_]
    """(side, side), the square that the segmenter saw."""
    plausible: bool
    remark: str
    """Why it is not plausible; empty if it is."""
    strangeness: float = 0.0
    """Share of validation's frontal films that look more like training's, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One piece a side, and what LungLimits are set on."""

    mask: NDArray[np.bool_]
    """(side, side)"""
    area: float
    """Share of the square, 0 to 1."""
    smaller_lung: float
    """Share of the square, 0 to 1."""
    bridge: float
    """Height of the mask where the lungs are nearest, by its greatest height, 0 to 1."""
    on_border: float
    """Share of the square's border that is lung."""
    trust: float
    """Mean probability inside the mask times the more ragged lung's solidity, about 0 to 1."""


STRANGE = "the image does not look like a frontal chest radiograph"
UPSIDE_DOWN = "the film seems to be upside down"


def segment(networks: Networks, square: NDArray[np.float32]) -> Lungs:
    """Outline the lungs on the segmenter's square and judge the outline.

    `square` is (side, side), 0 to 1, as imaging.prepare makes it. It is shown to the network a
    second time, turned over: what then looks more like a frontal chest is refused, as lying
    upside down if it looks enough like one then. Raises RetryLater when the device is out of
    memory.
    """
    entry, view = networks.manifest.view, networks.view
    with memory_verdict():
        if entry is None or view is None:
            both = lung_probabilities(networks.segmenter, square[None], networks.device)
            return judge_lungs(both[0], networks.manifest.lungs)
        either_way = np.stack([square, square[::-1]])
        both, seen = lungs_and_view(networks.segmenter, either_way, networks.device)
    found = judge_lungs(both[0], networks.manifest.lungs)
    remark = found.remark or _what_is_strange(view, seen, entry.limit)
    strangeness = float(distance_scores(view, seen)[0])
    return replace(found, plausible=not remark, remark=remark, strangeness=strangeness)


def _what_is_strange(view: Distance, seen: Tensor, limit: float) -> str:
    """About a film seen as it lies and turned over, (2, width); empty if nothing is strange."""
    as_it_lies, turned_over = raw_distances(view, seen).tolist()
    usual, usual_turned = (distance_scores(view, seen) <= limit).tolist()
    if turned_over < as_it_lies and usual_turned:
        return UPSIDE_DOWN
    return "" if usual and as_it_lies <= turned_over else STRANGE


def lungs_and_view(
    segmenter: LungNet, squares: NDArray[np.float32], device: torch.device
) -> tuple[NDArray[np.float32], Tensor]:
    """Probabilities as lung_probabilities gives them, and the views: (n, width) on the CPU."""
    with torch.inference_mode():
        logits, seen = segmenter.with_view(_images(squares, device))
        found: NDArray[np.float32] = torch.sigmoid(logits).cpu().numpy()
        return found, seen.cpu()


def lung_probabilities(
    segmenter: nn.Module, squares: NDArray[np.float32], device: torch.device
) -> NDArray[np.float32]:
    """(n, 2, side, side): probability per outline convention for (n, side, side) squares."""
    with torch.inference_mode():
        logits = segmenter(_images(squares, device))
        found: NDArray[np.float32] = torch.sigmoid(logits).cpu().numpy()
        return found


def _images(squares: NDArray[np.float32], device: torch.device) -> Tensor:
    images = torch.from_numpy(squares).unsqueeze(1).to(device)
    return normalize(images).contiguous(memory_format=torch.channels_last)


def judge_lungs(probabilities: NDArray[np.float32], limits: LungLimits) -> Lungs:
    """Clean the outline to one piece a side and check it against the limits.

    `probabilities` is (2, side, side). The mask is cut at its lowest column between the
    halves, so that lungs that touch in front of the spine are still two.
    """
    outline = outline_lungs(probabilities, limits.threshold)
    remark = _remark(outline, limits)
    return Lungs(outline.mask, plausible=not remark, remark=remark)


def outline_lungs(probabilities: NDArray[np.float32], threshold: float) -> Outline:
    """The cleaned outline and what tells whether it can be two lungs."""
    field = probabilities[LUNG_FIELD]
    rough = field >= threshold
    if not rough.any():
        return Outline(rough, 0.0, 0.0, 0.0, 0.0, 0.0)
    cut = _valley(rough)
    halves = (_main_piece(rough[:, :cut]), _main_piece(rough[:, cut:]))
    mask = np.concatenate(halves, axis=1)
    heights = mask.sum(axis=0)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return Outline(
        mask=mask,
        area=float(mask.mean()),
        smaller_lung=min(float(half.sum()) for half in halves) / mask.size,
        bridge=float(heights[max(cut - 1, 0) : cut + 1].min() / max(heights.max(), 1)),
        on_border=float(border.mean()),
        trust=float(field[mask].mean()) * min(map(_solidity, halves)),
    )


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


def _remark(outline: Outline, limits: LungLimits) -> str:
    """Two of them, large enough, not cut off, and the network itself believes it."""
    nothing = not outline.mask.any() or outline.area < limits.least_area / 2
    cut_off = outline.on_border > limits.most_on_border
    faults = (
        (nothing, "no lungs were found"),
        (outline.smaller_lung < limits.least_lung, "only one lung was found"),
        (outline.area < limits.least_area, "the lungs are too small for a chest radiograph"),
        (outline.bridge > limits.most_bridge, "two separate lungs were not found"),
        (cut_off, "the lungs are cut off by the edge of the image"),
        (outline.trust < limits.least_trust, "the lung outline is uncertain"),
    )
    return next((remark for wrong, remark in faults if wrong), "")


def _solidity(half: NDArray[np.bool_]) -> float:
    """Area by the area of the convex hull; the hull of pixel centers, so a little above 1.

    0 for a line or less, which has no hull.
    """
    if min(half.any(axis=0).sum(), half.any(axis=1).sum()) < 2:
        return 0.0
    hull = ConvexHull(np.argwhere(half & ~ndimage.binary_erosion(half)))
    return float(half.sum()) / float(hull.volume)
