"""Teach a member's trunk to see films before any label: restore what is masked and noisy.

A masked, denoising autoencoder (He et al. 2022, MAE; Pathak et al. 2016 for convolutions). It
learns from every training film, whatever its label, in the very squares that the member's
pneumonia pretraining will show it: member A whole films, member B lung crops. Films of the
validation and test splits never enter, so what is scored are training films too, in fixed
poses and masks. The decoder is thrown away; `pretrain` starts from the trunk.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from covidnet_node.models.nets import build_classifier, normalize
from covidnet_node.training import augment
from covidnet_node.training.begun import begin_stage
from covidnet_node.training.crops import Squares, load_crops, squares
from covidnet_node.training.dataset import Folder, for_selfsupervision
from covidnet_node.training.loop import Batch, Task, fit, training_device
from covidnet_node.training.recipe import MaskingRecipe, Recipe

GRAIN = 8
"""The trunk's maps are one eighth of the square's side."""

PROBE = 256
"""Films scored after each epoch, picked once by the seed."""


class Autoencoder(nn.Module):
    """A member's trunk and a decoder so small that the trunk must do the seeing."""

    def __init__(self, architecture: str) -> None:
        super().__init__()
        member = build_classifier(architecture)
        self.trunk = member.trunk
        self.decoder = nn.Sequential(
            nn.Conv2d(member.head.in_features, 192, 1),
            nn.BatchNorm2d(192),
            nn.ReLU(inplace=True),
            nn.Conv2d(192, 192, 3, padding=1),
            nn.BatchNorm2d(192),
            nn.ReLU(inplace=True),
            nn.Conv2d(192, GRAIN * GRAIN, 1),
            nn.PixelShuffle(GRAIN),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalized squares (batch, 1, side, side) to the same squares, restored."""
        restored: Tensor = self.decoder(self.trunk(images))
        return restored[..., : images.shape[-2], : images.shape[-1]]


def selfsupervise_member(
    data: Folder, runs: Path, name: str, minutes: float, recipe: Recipe
) -> float:
    """Teach the trunk to restore films, into runs/selfsupervise-NAME; share restored, at most 1.

    A folder without some source's films (leave-one-group-out) never shows that source.
    """
    torch.set_num_threads(recipe.threads)
    member, masking = recipe.member(name), recipe.selfsupervise
    whole = member.pretrained_on == "whole"
    place = training_device()
    shown = squares(for_selfsupervision(data), load_crops(runs), place, whole=whole)
    count, size = len(shown.films), masking.stage.batch
    probe = _probe(shown, masking, recipe.seed)
    torch.manual_seed(recipe.seed)
    folder = begin_stage(data, runs, "selfsupervise", name, recipe)
    task = Task(
        name=folder.name,
        network=Autoencoder(member.architecture).to(place),
        batches=lambda epoch: _batches(shown, range(count), masking, recipe.seed + epoch),
        steps=-(-count // size),
        loss=restoring_loss,
        score=lambda trained: share_restored(trained, probe),
        seed=recipe.seed,
    )
    return fit(task, masking.stage, minutes, folder)


def spoil(
    images: Tensor, inside: Tensor, masking: MaskingRecipe, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Gray out patches and add noise to the rest; what was grayed out is to be restored.

    Takes images, 0 to 1, and where they are inside, boolean; returns the spoiled images and the
    masked pixels. In every image the same number of patches is masked, on a fixed grid. Outside
    nothing is changed, and nothing is to be restored.
    """
    count, _, rows, columns = images.shape
    down, across = -(-rows // masking.patch), -(-columns // masking.patch)
    masked = max(1, round(masking.mask_share * down * across))
    lots = torch.rand(count, down * across, generator=generator, device=images.device)
    patches = torch.zeros_like(lots).scatter_(1, lots.topk(masked).indices, 1.0)
    grid = patches.view(count, 1, down, across)
    pixels = functional.interpolate(grid, scale_factor=masking.patch)[..., :rows, :columns]
    hidden = (pixels > 0.5) & inside
    noise = masking.noise * torch.randn(images.shape, generator=generator, device=images.device)
    noisy = torch.where(inside, images + noise, images).clamp(0, 1)
    return torch.where(hidden, 0.5, noisy), hidden


def restoring_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of the masked pixels, in units of the normalized gray scale."""
    spoiled, hidden, images = batch
    error: Tensor = (network(normalize(spoiled)) - normalize(images)) ** 2
    return (error * hidden).sum() / hidden.sum().clamp(min=1)


def share_restored(network: nn.Module, batches: tuple[Batch, ...]) -> float:
    """How much of the masked pixels' variance is restored: 0 for even gray, 1 for all."""
    wrong, pixels = 0.0, []
    with torch.inference_mode():
        for batch in batches:
            _, hidden, images = batch
            wrong += float(restoring_loss(network, batch)) * int(hidden.sum())
            pixels.append(normalize(images)[hidden])
    known = torch.cat(pixels)
    return 1.0 - wrong / float(((known - known.mean()) ** 2).sum().clamp(min=1e-9))


def _probe(shown: Squares, masking: MaskingRecipe, seed: int) -> tuple[Batch, ...]:
    """The same films in the same poses and masks after every epoch."""
    generator = Generator().manual_seed(seed)
    chosen = torch.randperm(len(shown.films), generator=generator)[:PROBE].tolist()
    return tuple(_batches(shown, chosen, masking, seed))


def _batches(
    shown: Squares, rows: range | list[int], masking: MaskingRecipe, seed: int
) -> Iterator[Batch]:
    """Every film of `rows` once, in a new order, pose and mask: spoiled, masked pixels, whole."""
    generator = Generator(shown.images.device).manual_seed(seed)
    place = generator.device
    shuffled = torch.randperm(len(rows), generator=generator, device=place)
    order = torch.tensor(rows, device=place)[shuffled]
    for chosen in torch.split(order, masking.stage.batch):
        images, inside, _ = augment.retake(shown.images[chosen], shown.masks[chosen], generator)
        yield *spoil(images, inside, masking, generator), images
