"""Grad-CAM: a network whose attention is known must be seen to look there."""

import numpy as np
import pytest
import torch
from torch import nn

from covidnet_node.case import CropRecipe, Reason
from covidnet_node.errors import RetryLater
from covidnet_node.explain.gradcam import Viewpoint, energy_in_lungs, grad_cam
from covidnet_node.imaging.prepare import crop_lungs
from tests.tiny_medicine import drawn_chest

SIDE = 64


class Bright(nn.Module):
    """Class 0 rises with what is bright in the top half, class 1 with the bottom half's."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(1, 2, 1, bias=False), _Halves())
        with torch.no_grad():
            self.trunk[1].weight.fill_(1.0)

    def forward(self, images):
        return self.trunk(images).mean(dim=(2, 3))


class _Halves(nn.Module):
    def forward(self, maps):
        rows = maps.shape[2]
        top = torch.arange(rows).view(1, 1, -1, 1) < rows // 2
        keep = torch.cat([top, ~top], dim=1)
        return torch.relu(maps) * keep


def viewpoint(weight=1.0):
    network = Bright().eval().requires_grad_(requires_grad=False)
    return Viewpoint(network, network.trunk, weight)


def spotted(row, column):
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[..., row : row + 8, column : column + 8] = 2.0
    return image


def test_the_map_peaks_where_the_network_looks():
    found = grad_cam([viewpoint()], spotted(8, 48), 0)
    assert found.shape == (SIDE, SIDE)
    assert found.dtype == np.float32
    assert found.max() == pytest.approx(1.0, abs=1e-3)
    row, column = np.unravel_index(np.argmax(found), found.shape)
    assert 4 <= row < 20
    assert 44 <= column < 60


class Shared(Bright):
    """Like Bright, but a bright bottom raises both classes alike."""

    def forward(self, images):
        maps = self.trunk(images)
        return maps.mean(dim=(2, 3)) + maps[:, 1].mean(dim=(1, 2))[:, None]


def test_what_speaks_for_all_classes_alike_is_not_shown():
    network = Shared().eval().requires_grad_(requires_grad=False)
    shared = Viewpoint(network, network.trunk, 1.0)
    image = spotted(8, 48) + spotted(48, 8)
    found = grad_cam([shared], image, 0)
    assert found[8:16, 48:56].mean() > 0.5
    assert found[48:56, 8:16].max() < 0.05


def test_an_all_but_certain_class_still_has_a_map():
    assert grad_cam([viewpoint()], 1e4 * spotted(8, 48), 0).max() > 0.9


def test_a_class_without_evidence_has_an_empty_map():
    assert grad_cam([viewpoint()], spotted(8, 48), 1).sum() == 0


def test_members_count_by_weight():
    class Below(Bright):
        def forward(self, images):
            return super().forward(images.flip(2)).flip(1)

    below = Below().eval()
    other = Viewpoint(below, below.trunk, 0.25)
    image = spotted(8, 48) + spotted(48, 8)
    alone = grad_cam([viewpoint(0.75)], image, 0)
    assert alone.max() == pytest.approx(1.0, abs=1e-3)
    both = grad_cam([viewpoint(0.75), other], image, 0)
    assert not np.array_equal(alone, both)
    assert both.max() <= 1.0
    assert grad_cam([viewpoint(0.0)], image, 0).sum() == 0


def test_explaining_leaves_no_trace():
    view = viewpoint()
    grad_cam([view], spotted(8, 48), 0)
    assert all(parameter.grad is None for parameter in view.network.parameters())
    assert not view.layer._forward_hooks


@pytest.mark.parametrize("shape", [(300, 200), (200, 500), (640, 640)])
def test_the_map_lies_on_the_source_where_the_network_looked(shape):
    display, lungs = drawn_chest(*shape)
    recipe = CropRecipe(side=SIDE, margin=0.06, dilation=0.04, low_percentile=2, high_percentile=98)
    crop = crop_lungs(display, lungs, recipe)
    placed = crop.to_source(grad_cam([viewpoint()], spotted(16, 48), 0))
    assert placed.shape == shape
    rows, columns = np.indices(shape)
    middle = (placed * rows).sum() / placed.sum(), (placed * columns).sum() / placed.sum()
    box = crop.box
    expected = (
        box.top + (16 + 4) / SIDE * (box.bottom - box.top),
        box.left + (48 + 4) / SIDE * (box.right - box.left),
    )
    assert middle == pytest.approx(expected, abs=0.05 * max(shape))


def test_energy_is_the_share_inside():
    heatmap = np.zeros((4, 6), np.float32)
    heatmap[1, 1], heatmap[3, 5] = 0.75, 0.25
    lungs = np.zeros((4, 6), np.bool_)
    lungs[:2, :3] = True
    assert energy_in_lungs(heatmap, lungs) == pytest.approx(0.75)
    assert energy_in_lungs(np.zeros_like(heatmap), lungs) == 0.0


def test_a_full_gpu_means_later():
    class Full(Bright):
        def forward(self, images):
            raise torch.OutOfMemoryError("CUDA out of memory")

    full = Full()
    with pytest.raises(RetryLater) as caught:
        grad_cam([Viewpoint(full, full.trunk, 1.0)], spotted(8, 8), 0)
    assert caught.value.reason is Reason.OUT_OF_MEMORY
