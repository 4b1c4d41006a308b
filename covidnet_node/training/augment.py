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
    mirror = torch.where(
        torch.rand(count, generator=generator, device=generator.device) < 0.5, -1.0, 1.0
    )
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
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    noisy = (
        torch.rand(count, generator=generator, device=generator.device).view(-1, 1, 1, 1)
        * 0.04
        * noise
    )
    return (soft + (graded - soft) * (1.0 + sharpness) + noisy).clamp(0, 1)


def retake(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Prepared squares as if taken once more: moved, regraded, the outside put back to mid-gray.

    Takes uint8 (batch, 1, side, side) and masks (batch, 2, side, side), 0 or 255: what is inside
    and what is lung. Returns images, 0 to 1, and both masks, boolean, moved along.
    """
    stack = move(torch.cat([images, masks], 1).float() / 255, 0.7, generator)
    inside, lungs = (stack[:, [channel]] > 0.5 for channel in (1, 2))
    return torch.where(inside, regrade(stack[:, :1], generator), 0.5), inside, lungs


def rescan(images: Tensor, generator: Generator) -> Tensor:
    """As other scanners and archives would show the films; (batch, 1, side, side), 0 to 1.

    Style and texture change for half of the films, resolution for half of the batches.
    """
    images = restyle(images, 0.5, generator)
    images = refilter(images, 0.5, generator)
    return coarsen(images, 0.5, generator)


def restyle(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Give some images a part of another one's amplitude spectrum, their own phase kept.

    What tells scanner, processing and compression apart lies mostly in the amplitudes, what
    lies where in the phases (Xu et al. 2021, Fourier-based domain generalization).
    """
    count = len(images)
    spectrum = torch.fft.rfft2(images)
    amplitude, other = (
        spectrum.abs(),
        torch.randperm(count, generator=generator, device=images.device),
    )
    chosen = torch.rand(count, generator=generator, device=images.device) < share
    mix = torch.rand(count, generator=generator, device=images.device) * chosen
    part = mix.view(-1, 1, 1, 1)
    mixed = torch.polar(amplitude + part * (amplitude[other] - amplitude), spectrum.angle())
    restyled: Tensor = torch.fft.irfft2(mixed, s=images.shape[-2:])
    return restyled.clamp(0, 1)


def refilter(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Give some images another texture, by a random linear filter (Xu et al. 2021, RandConv).

    One size of filter for a batch, another filter for each image, mixed with the original by
    chance. As there, a filter may turn the film to its negative: of real crops every tenth comes
    out darker where it was brighter, so that only shape and place are left to learn from.
    """
    count = len(images)
    draw = torch.rand(1, generator=generator, device=images.device)
    side = 1 + 2 * int(draw * 4)
    shape = (count, 1, side, side)
    filters = torch.randn(shape, generator=generator, device=images.device) / side
    centered = (images - 0.5).transpose(0, 1)
    filtered = functional.conv2d(centered, filters, padding=side // 2, groups=count).transpose(0, 1)
    spread = filtered.std((2, 3), keepdim=True) + 1e-4
    filtered = 0.5 + filtered / spread * images.std((2, 3), keepdim=True)
    chosen = torch.rand(count, generator=generator, device=images.device) < share
    part = torch.rand(count, generator=generator, device=images.device) * chosen
    return (images + part.view(-1, 1, 1, 1) * (filtered - images)).clamp(0, 1)


def coarsen(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Take away resolution, down to two fifths: public sets differ in it and would be known by it.

    One factor for the whole batch, for a share of the batches.
    """
    draw = torch.rand(2, generator=generator, device=images.device).tolist()
    if draw[0] >= share:
        return images
    side = max(1, round(images.shape[-1] * (0.4 + 0.5 * draw[1])))
    small = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return functional.interpolate(small, images.shape[-2:], mode="bilinear")


def roughen(inside: Tensor, generator: Generator) -> Tensor:
    """Another outline of the same lungs, wider here and narrower there; boolean as it came.

    The shape of what was cut out tells size and position of the heart, and the segmenter's
    troubles with a source, more than what the lungs show.
    """
    count, _, rows, columns = inside.shape
    soft = functional.avg_pool2d(inside.float(), 13, 1, 6, count_include_pad=False)
    level = 0.5 + _between(count, 0.2, generator).view(-1, 1, 1, 1)
    coarse = torch.rand(count, 1, 6, 6, generator=generator, device=inside.device) - 0.5
    waves = functional.interpolate(coarse, (rows, columns), mode="bicubic")
    return soft > (level + 0.5 * waves).clamp(0.15, 0.95)


def invert_some(images: Tensor, share: float, generator: Generator) -> Tensor:
    """A wrong photometric interpretation: dark and bright exchanged."""
    chosen = (
        torch.rand(len(images), generator=generator, device=generator.device).view(-1, 1, 1, 1)
        < share
    )
    return torch.where(chosen, 1.0 - images, images)


def consolidate(images: Tensor, lungs: Tensor, share: float, generator: Generator) -> Tensor:
    """A part of one lung, more often of its base, as white as the mediastinum, with a soft edge.

    `images` and `lungs`, 0 to 1, are (batch, 1, side, side); `share` of the batch is changed. Few
    outlined films show what the outline is needed for most: a lung without air is still lung.
    """
    count, _, side, _ = images.shape
    axis = torch.linspace(-1, 1, side, device=images.device)
    rows, columns = axis.view(1, 1, side, 1), axis.view(1, 1, 1, side)
    area = lungs.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
    middle = (lungs * columns).sum((1, 2, 3), keepdim=True) / area
    height = (lungs * rows).sum((1, 2, 3), keepdim=True) / area
    draw = torch.rand(6, count, 1, 1, 1, generator=generator, device=images.device)
    half = lungs * ((columns - middle) * (draw[0] - 0.5) > 0)
    center, reach = height - 0.4 + 1.2 * draw[1], 0.1 + 0.5 * draw[2]
    band = torch.sigmoid((reach - (rows - center).abs()) / 0.04)
    soft = functional.avg_pool2d(half, 9, 1, 4) * band
    opaque = soft * (0.4 + 0.6 * draw[3]) * (draw[4] < share)
    white = 0.6 + 0.35 * draw[5]
    return images + opaque * (white - images).clamp_min(0.0)


def border(
    images: Tensor, masks: Tensor, share: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A share of the films smaller, in a border of any gray, too noisy to be cut away.

    `images` and `masks`, 0 to 1, are (batch, 1, side, side), and so is what is returned.
    """
    count, _, side, _ = images.shape
    device = images.device
    draw = torch.rand(6, count, generator=generator, device=device)
    chosen = draw[0] < share
    scale = 1.0 + 0.7 * draw[1:3] * chosen
    shift = (2 * draw[3:5] - 1) * (scale - 1.0)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = scale[0], scale[1]
    theta[:, 0, 2], theta[:, 1, 2] = shift[0], shift[1]
    grid = functional.affine_grid(theta, [count, 3, side, side], align_corners=False)
    stack = torch.cat([images, masks, torch.ones_like(images)], 1)
    placed = functional.grid_sample(stack, grid, align_corners=False)
    picture, mask, film = placed[:, :1], placed[:, 1:2], placed[:, 2:]
    gray = (1.4 * draw[5] - 0.2).clamp(0, 1).view(-1, 1, 1, 1)
    dirt = 0.1 * torch.randn(images.shape, generator=generator, device=device)
    framed = picture + (1.0 - film) * (gray + dirt).clamp(0, 1)
    kept = chosen.view(-1, 1, 1, 1)
    return torch.where(kept, framed, images), torch.where(kept, mask, masks)


def cover(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Clouds over the lungs, devices and letters: the outline must be found all the same."""
    side = images.shape[-1]
    axis = torch.linspace(-1, 1, side, device=images.device)
    rows, columns = axis.view(1, 1, side, 1), axis.view(1, 1, 1, side)
    covered = images
    for _ in range(2):
        place = _between(2 * len(images), 0.7, generator).view(2, -1, 1, 1, 1)
        width = 0.1 + 0.35 * torch.rand(
            2, len(images), 1, 1, 1, generator=generator, device=generator.device
        )
        distance = ((rows - place[0]) / width[0]) ** 2 + ((columns - place[1]) / width[1]) ** 2
        cloud = torch.exp(-distance) * torch.rand(
            len(images), 1, 1, 1, generator=generator, device=generator.device
        )
        cloud = cloud * (
            torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device) < share
        )
        covered = covered + (0.85 - covered) * cloud
    return _letters(covered, share, generator)


def _letters(images: Tensor, share: float, generator: Generator) -> Tensor:
    """One bright or dark block per chosen image, as markers and collimator edges are."""
    side = images.shape[-1]
    axis = torch.linspace(-1, 1, side, device=images.device)
    rows, columns = axis.view(1, 1, side, 1), axis.view(1, 1, 1, side)
    place = _between(2 * len(images), 1.0, generator).view(2, -1, 1, 1, 1)
    half = (
        0.02
        + 0.15
        * torch.rand(2, len(images), 1, 1, 1, generator=generator, device=generator.device) ** 2
    )
    block = ((rows - place[0]).abs() < half[0]) & ((columns - place[1]).abs() < half[1])
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device) < share
    gray = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device).round()
    return torch.where(block & chosen, gray, images)


def _between(count: int, limit: float, generator: Generator) -> Tensor:
    return (torch.rand(count, generator=generator, device=generator.device) * 2 - 1) * limit
