"""The architectures, by the names that stand in the weights manifest.

Built empty: weights come from a verified safetensors file or from training, never from the
network. Input everywhere: (batch, 1, side, side) float, about -2 to 2, zero is mid-gray.
"""

import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import Tensor, nn

from covidnet_node.intended_use import CLASSES

GRAY_MEAN, GRAY_STD = 0.5, 0.25
"""Of the prepared images: the crops' median is 0.5 by construction."""

LUNG_FIELD, LUNG_AND_HEART = 0, 1
"""The segmenter's channels: one per outline convention. The node means the lung field."""


class Classifier(nn.Module):
    """A torchvision trunk, average pooling and one linear layer.

    `trunk` ends at one sixteenth of the input's side, not at the usual thirty-second, so that
    Grad-CAM can tell one lung zone from another.
    """

    def __init__(self, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(width, classes)

    def pooled(self, images: Tensor) -> Tensor:
        """(batch, width): the features whose distance from training data is measured."""
        maps: Tensor = self.trunk(images)
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, classes): logits."""
        logits: Tensor = self.head(self.dropout(self.pooled(images)))
        return logits


def build_segmenter(architecture: str) -> nn.Module:
    """An empty U-Net with two output channels; raises KeyError for an unknown name."""
    encoder = {"unet-mobilenetv3_small": "tu-mobilenetv3_small_100"}[architecture]
    network: nn.Module = smp.Unet(
        encoder,
        encoder_weights=None,
        in_channels=1,
        classes=2,
        decoder_channels=(96, 64, 32, 24, 16),
    )
    return network


def build_classifier(architecture: str, classes: int = len(CLASSES)) -> Classifier:
    """An empty classifier; raises KeyError for an unknown name."""
    trunk, width = {"mobilenet_v3_small": _mobilenet, "shufflenet_v2_x1_0": _shufflenet}[
        architecture
    ]()
    return Classifier(trunk, width, classes)


def normalize(images: Tensor) -> Tensor:
    """Prepared images, 0 to 1, as the networks want them."""
    return (images - GRAY_MEAN) / GRAY_STD


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network for inference; channels-last halves its time on CPUs."""
    return network.to(device).to(memory_format=torch.channels_last).eval()


def _mobilenet() -> tuple[nn.Module, int]:
    network = torchvision.models.mobilenet_v3_small(weights=None, dilated=True, reduced_tail=True)
    trunk = network.features
    trunk[0][0] = _one_channel(trunk[0][0])
    for layer in trunk.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # torchvision's 0.01 is for runs of weeks: after a few hundred steps the running
            # statistics are still the initial ones, and in eval mode every film looks the same.
            layer.momentum = 0.1
    return trunk, trunk[-1].out_channels


def _shufflenet() -> tuple[nn.Module, int]:
    network = torchvision.models.shufflenet_v2_x1_0(weights=None)
    network.conv1[0] = _one_channel(network.conv1[0])
    first = network.stage4[0]
    first.branch1[0].stride = first.branch2[3].stride = (1, 1)
    trunk = nn.Sequential(
        network.conv1,
        network.maxpool,
        network.stage2,
        network.stage3,
        network.stage4,
        network.conv5,
    )
    return trunk, network.conv5[0].out_channels


def _one_channel(first: nn.Conv2d) -> nn.Conv2d:
    """The same convolution for gray images instead of color."""
    return nn.Conv2d(
        1,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
