"""The architectures, by the names that stand in the weights manifest.

Built empty: weights come from a verified safetensors file or from training, never from the
network. Input everywhere: (batch, 1, side, side) float, about -2 to 2, zero is mid-gray.
"""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from covidnet_node.intended_use import CLASSES

GRAY_MEAN, GRAY_STD = 0.5, 0.25
"""Of the prepared images: the crops' median is 0.5 by construction."""

WIDTH = 160
"""Of a classifier's last maps."""

LUNG_FIELD, LUNG_AND_HEART = 0, 1
"""The segmenter's channels: one per outline convention. The node means the lung field."""

VIEW_BLOCK, VIEW_GRID = 1, 3
"""Where the segmenter's view of a film is taken: the decoder's second map, in nine fields."""


class Pyramid(nn.Module):
    """A torchvision trunk whose deeper stages are brought back to one eighth of the input's side.

    Every stage's output is projected to the same width and added at the resolution of the first
    (Lin et al. 2017, feature pyramids), so that the map tells one lung zone from another and
    still knows what the deep stages know.
    """

    def __init__(self, stages: Sequence[nn.Module], widths: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
            for width in widths
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, side, side) to (batch, WIDTH, side / 8, side / 8), not negative."""
        maps = self.stages[0](images)
        merged: Tensor = self.laterals[0](maps)
        for stage, lateral in zip(self.stages[1:], self.laterals[1:], strict=True):
            maps = stage(maps)
            deeper = functional.interpolate(lateral(maps), merged.shape[-2:], mode="bilinear")
            merged = merged + deeper
        return functional.relu(merged)


class Classifier(nn.Module):
    """A trunk that keeps its place in the image, average pooling and one linear layer.

    The logit of a class is therefore a sum over places: `evidence` tells each place's part.
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

    def with_evidence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and what every place gives to them: (batch, classes, side / 8, side / 8).

        The mean over the places plus the head's bias is the logit (without dropout): what
        Grad-CAM weighs in this kind of network (Selvaraju et al. 2017, appendix A).
        """
        maps: Tensor = self.trunk(images)
        logits: Tensor = self.head(self.dropout(maps.mean(dim=(2, 3))))
        return logits, functional.conv2d(maps, self.head.weight[:, :, None, None])


class LungNet(smp.Unet):  # type: ignore[misc]
    """The U-Net of segmentation-models-pytorch, one output channel per outline convention."""

    def with_view(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits as forward gives them, and what was made of the film: (batch, width).

        The view is the map on which the decoder, at an eighth of the side, has joined what is
        there with where it is, averaged over a grid of three by three.
        """
        *shallow, maps = self.encoder(images)
        maps = self.decoder.center(maps)
        view = maps
        for number, block in enumerate(self.decoder.blocks):
            beside = shallow.pop()
            skip = beside if shallow else None
            maps = block(maps, *beside.shape[-2:], skip_connection=skip)
            if number == VIEW_BLOCK:
                view = maps
        logits: Tensor = self.segmentation_head(maps)
        return logits, functional.adaptive_avg_pool2d(view, VIEW_GRID).flatten(1)


def build_segmenter(architecture: str) -> LungNet:
    """An empty U-Net with two output channels; raises KeyError for an unknown name."""
    encoder = {"unet-regnety_002": "tu-regnety_002"}[architecture]
    return LungNet(
        encoder,
        encoder_weights=None,
        in_channels=1,
        classes=2,
        decoder_channels=(96, 64, 32, 24, 16),
    )


def build_classifier(architecture: str, classes: int = len(CLASSES)) -> Classifier:
    """An empty classifier; raises KeyError for an unknown name."""
    build = {"mobilenet_v3_large": _mobilenet, "regnet_y_400mf": _regnet}[architecture]
    return Classifier(build(), WIDTH, classes)


def normalize(images: Tensor) -> Tensor:
    """Prepared images, 0 to 1, as the networks want them."""
    return (images - GRAY_MEAN) / GRAY_STD


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network for inference; channels-last halves its time on CPUs."""
    return network.to(device).to(memory_format=torch.channels_last).eval()


def _mobilenet() -> Pyramid:
    """Stages end at 1/8, 1/16 and, dilated instead of strided, 1/16."""
    network = torchvision.models.mobilenet_v3_large(weights=None, dilated=True, reduced_tail=True)
    features = network.features
    features[0][0] = _one_channel(features[0][0])
    for layer in features.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # torchvision's 0.01 is for runs of weeks: after a few hundred steps the running
            # statistics are still the initial ones, and in eval mode every film looks the same.
            layer.momentum = 0.1
    stages = [features[:7], features[7:13], features[13:]]
    return Pyramid(stages, [stage[-1].out_channels for stage in stages])


def _regnet() -> Pyramid:
    """Stages end at 1/8, 1/16 and 1/32."""
    network = torchvision.models.regnet_y_400mf(weights=None)
    network.stem[0] = _one_channel(network.stem[0])
    blocks = network.trunk_output
    first = nn.Sequential(network.stem, blocks.block1, blocks.block2)
    return Pyramid([first, blocks.block3, blocks.block4], (104, 208, 440))


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
