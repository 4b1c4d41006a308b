"""What may differ between two films of one patient: position, proportions, gray scale, dirt.

Everything works on batches of tensors, 0 to 1, and draws from the generator it is given.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional


def move(stack: Tensor, strength: float, generator: Generator) -> Tensor:
    """Turn, shift, scale, stretch and mirror; (batch, channels, side, side), zero flows in.

    `strength` 1 means up to 15 degrees, 8 percent shift, 20 percent scale and proportions.
    """
    count = len(stack)
    angle = _between(count, math.radians(15) * strength, generator)
    scale = torch.exp(_between(count, 0.2 * strength, generator))
    stretch = torch.exp(_between(count, 0.1 * strength, generator))
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    shift = _between(2 * count, 0.16 * strength, generator).view(count, 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([mirror * cos * scale * stretch, -sin * scale * stretch, shift[:, 0]], 1),
            torch.stack([mirror * sin * scale / stretch, cos * scale / stretch, shift[:, 1]], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, list(stack.shape), align_corners=False)
    return functional.grid_sample(stack, grid, align_corners=False)


def regrade(images: Tensor, generator: Generator) -> Tensor:
    """Another scanner's gamma, gain, sharpness and noise."""
    count = len(images)
    gamma = torch.exp(_between(count, 0.5, generator)).view(-1, 1, 1, 1)
    gain = 1.0 + _between(count, 0.2, generator).view(-1, 1, 1, 1)
    offset = _between(count, 0.1, generator).view(-1, 1, 1, 1)
    graded = (images.clamp(0, 1) ** gamma - 0.5) * gain + 0.5 + offset
    soft = functional.avg_pool2d(graded, 3, 1, 1, count_include_pad=False)
    sharpness = _between(count, 1.0, generator).view(-1, 1, 1, 1)
    noise = torch.randn(images.shape, generator=generator)
    noisy = torch.rand(count, generator=generator).view(-1, 1, 1, 1) * 0.04 * noise
    return (soft + (graded - soft) * (1.0 + sharpness) + noisy).clamp(0, 1)


def retake(images: Tensor, inside: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Prepared squares as if taken once more: moved, regraded, the outside put back to mid-gray.

    Takes uint8 (batch, 1, side, side), `inside` 0 or 255; returns images, 0 to 1, and where they
    are inside, boolean.
    """
    stack = move(torch.cat([images, inside], 1).float() / 255, 0.7, generator)
    within = stack[:, 1:] > 0.5
    return torch.where(within, regrade(stack[:, :1], generator), 0.5), within


def invert_some(images: Tensor, share: float, generator: Generator) -> Tensor:
    """A wrong photometric interpretation: dark and bright exchanged."""
    chosen = torch.rand(len(images), generator=generator).view(-1, 1, 1, 1) < share
    return torch.where(chosen, 1.0 - images, images)


def cover(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Clouds over the lungs, devices and letters: the outline must be found all the same."""
    side = images.shape[-1]
    axis = torch.linspace(-1, 1, side)
    rows, columns = axis.view(1, 1, side, 1), axis.view(1, 1, 1, side)
    covered = images
    for _ in range(2):
        place = _between(2 * len(images), 0.7, generator).view(2, -1, 1, 1, 1)
        width = 0.1 + 0.35 * torch.rand(2, len(images), 1, 1, 1, generator=generator)
        distance = ((rows - place[0]) / width[0]) ** 2 + ((columns - place[1]) / width[1]) ** 2
        cloud = torch.exp(-distance) * torch.rand(len(images), 1, 1, 1, generator=generator)
        cloud = cloud * (torch.rand(len(images), 1, 1, 1, generator=generator) < share)
        covered = covered + (0.85 - covered) * cloud
    return _letters(covered, share, generator)


def _letters(images: Tensor, share: float, generator: Generator) -> Tensor:
    """One bright or dark block per chosen image, as markers and collimator edges are."""
    side = images.shape[-1]
    axis = torch.linspace(-1, 1, side)
    rows, columns = axis.view(1, 1, side, 1), axis.view(1, 1, 1, side)
    place = _between(2 * len(images), 1.0, generator).view(2, -1, 1, 1, 1)
    half = 0.02 + 0.15 * torch.rand(2, len(images), 1, 1, 1, generator=generator) ** 2
    block = ((rows - place[0]).abs() < half[0]) & ((columns - place[1]).abs() < half[1])
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < share
    gray = torch.rand(len(images), 1, 1, 1, generator=generator).round()
    return torch.where(block & chosen, gray, images)


def _between(count: int, limit: float, generator: Generator) -> Tensor:
    return (torch.rand(count, generator=generator) * 2 - 1) * limit
