"""How the outline holds when films come badly, and whether what is no frontal chest is refused.

Changes are made to the display image of the folder's outlined films, by a fixed seed; what moves
the lungs moves the reference outline along.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from covidnet_node.errors import NotAnalyzed
from covidnet_node.imaging.prepare import segmenter_input
from covidnet_node.look import look_at_picture
from covidnet_node.models.networks import Networks
from covidnet_node.models.segment import segment
from covidnet_node.training.evaluation.answers import channel_outline, read_reference
from covidnet_node.training.evaluation.exams import Exam
from covidnet_node.training.evaluation.intervals import Estimate, mean_estimate, share_estimate
from covidnet_node.training.evaluation.outlines import overlap

Display = NDArray[np.uint8]
Outline = NDArray[np.bool_]
Change = Callable[[Display, Outline, Generator], tuple[Display, Outline]]
SEED = 20_261
DRAWN = 20
"""Images of each kind that are drawn from nothing."""


@dataclass(frozen=True, slots=True)
class Strained:
    """Outlined films after one change."""

    change: str
    convention: str
    films: int
    dice: Estimate
    """Of the network's channel of that convention, whether found plausible or not."""
    refused: Estimate
    """Share for which the node finds no plausible lungs."""


@dataclass(frozen=True, slots=True)
class Impostors:
    """Images that are no whole, upright frontal chest film."""

    what: str
    images: int
    refused: Estimate


@dataclass(frozen=True, slots=True)
class Strain:
    """Both, in the order of CHANGES and IMPOSTORS."""

    strained: tuple[Strained, ...]
    impostors: tuple[Impostors, ...]


@dataclass(frozen=True, slots=True)
class _Outlined:
    exam: Exam
    display: Display
    reference: Outline


def strain(exams: Sequence[Exam], networks: Networks, done: Callable[[], None]) -> Strain:
    """Every change on every outlined film; nothing for a folder without outlines.

    `done` is called after each change. Raises RetryLater when the device is out of memory.
    """
    outlined = tuple(_outlined(exams))
    if not outlined:
        return Strain((), ())
    strained: list[Strained] = []
    for name, change in CHANGES.items():
        strained += _strained(name, change, outlined, networks)
        done()
    impostors = []
    for name, make in IMPOSTORS.items():
        images = [make(each.display) for each in outlined]
        patients = [each.exam.patient for each in outlined]
        impostors.append(_impostors(name, images, patients, networks))
        done()
    for name, draw in DRAWINGS.items():
        lots = np.random.default_rng(SEED)
        images = [draw(lots) for _ in range(DRAWN)]
        impostors.append(_impostors(name, images, list(map(str, range(DRAWN))), networks))
        done()
    return Strain(tuple(strained), tuple(impostors))


def steps() -> int:
    """How often strain calls `done`."""
    return len(CHANGES) + len(IMPOSTORS) + len(DRAWINGS)


def _outlined(exams: Sequence[Exam]) -> Iterator[_Outlined]:
    for exam in exams:
        try:
            display = look_at_picture(exam.image).display
        except NotAnalyzed:
            continue
        reference = read_reference(exam.mask, display.shape)
        if reference is not None and reference.any():
            yield _Outlined(exam, display, reference)


def _strained(
    name: str, change: Change, outlined: Sequence[_Outlined], networks: Networks
) -> Iterator[Strained]:
    lots = np.random.default_rng(SEED)
    dice, refused = [], []
    for each in outlined:
        display, reference = change(each.display, each.reference, lots)
        found = channel_outline(networks, display, each.exam.mask_style)
        dice.append(overlap(found, reference).dice)
        refused.append(_refuses(networks, display))
    for style in sorted({each.exam.mask_style for each in outlined}):
        rows = [row for row, each in enumerate(outlined) if each.exam.mask_style == style]
        patients = [outlined[row].exam.patient for row in rows]
        yield Strained(
            name,
            style,
            len(rows),
            mean_estimate([dice[row] for row in rows], patients),
            share_estimate([refused[row] for row in rows], patients),
        )


def _impostors(
    name: str, images: Sequence[Display], patients: Sequence[str], networks: Networks
) -> Impostors:
    refused = [_refuses(networks, image) for image in images]
    return Impostors(name, len(images), share_estimate(refused, patients))


def _refuses(networks: Networks, display: Display) -> bool:
    square = segmenter_input(display, networks.manifest.segmenter.side)
    return not segment(networks, square.image).plausible


def _as_it_is(display: Display, outline: Outline, _lots: Generator) -> tuple[Display, Outline]:
    return display, outline


def _negative(display: Display, outline: Outline, _lots: Generator) -> tuple[Display, Outline]:
    return 255 - display, outline


def _turned(display: Display, outline: Outline, lots: Generator) -> tuple[Display, Outline]:
    angle = float(lots.choice([-15.0, 15.0]))
    turned = ndimage.rotate(display, angle, reshape=False, order=1)
    moved = ndimage.rotate(outline.astype(np.float32), angle, reshape=False, order=1) >= 0.5
    return turned, moved


def _bordered(display: Display, outline: Outline, lots: Generator) -> tuple[Display, Outline]:
    """A collimated field: a fifth of each side, black or white, around the whole film."""
    wide = [(side // 5, side // 5) for side in display.shape]
    gray = int(lots.choice([0, 255]))
    return np.pad(display, wide, constant_values=gray), np.pad(outline, wide)


def _framed(display: Display, outline: Outline, lots: Generator) -> tuple[Display, Outline]:
    """A page around the film: wide, shaded from side to side, grainy, with letters on it."""
    wide = [(side // 5, side // 5) for side in display.shape]
    page = np.pad(np.ones(display.shape, np.bool_), wide)
    left, right = lots.uniform(0.0, 255.0, 2)
    paper = np.linspace(left, right, page.shape[1])[None] + lots.normal(0.0, 8.0, page.shape)
    letters = np.kron(lots.random((8, 40)) < 0.5, np.ones((2, 2), np.bool_))
    paper[: letters.shape[0], : letters.shape[1]][letters[:, : page.shape[1]]] = 255.0
    return np.where(page, np.pad(display, wide), _uint8(paper)), np.pad(outline, wide)


def _clouded(display: Display, outline: Outline, lots: Generator) -> tuple[Display, Outline]:
    """The lower half of one lung as white as the mediastinum, with a soft edge."""
    rows, columns = np.nonzero(outline)
    middle = (columns.min() + columns.max()) / 2
    right = bool(lots.integers(2))
    lung = outline & ((np.arange(outline.shape[1]) > middle) == right)
    base = lung & (np.arange(outline.shape[0])[:, None] > (rows.min() + rows.max()) / 2)
    soft = ndimage.gaussian_filter(base.astype(np.float32), 0.02 * outline.shape[0])
    white = float(np.quantile(display, 0.9))
    return _uint8(display + 0.9 * soft * np.maximum(white - display, 0.0)), outline


def _wired(display: Display, outline: Outline, lots: Generator) -> tuple[Display, Outline]:
    """Three bright cables across the film, a square box and a side marker."""
    down, across = np.mgrid[0 : 1 : display.shape[0] * 1j, 0 : 1 : display.shape[1] * 1j]
    bright = np.zeros(display.shape, bool)
    for _ in range(3):
        start, slope, bend = lots.uniform((0.1, -0.5, 0.0), (0.9, 0.5, 0.2))
        path = start + slope * (down - 0.5) + bend * np.sin(6 * down)
        bright |= np.abs(across - path) < 0.006
    top, left = lots.uniform(0.2, 0.7, 2)
    bright |= (np.abs(down - top) < 0.06) & (np.abs(across - left) < 0.05)
    bright |= (down < 0.08) & (across < 0.08)
    return np.where(bright, np.uint8(255), display), outline


def _pale(display: Display, outline: Outline, _lots: Generator) -> tuple[Display, Outline]:
    """A fifth of the gray scale, with the rounding that this costs."""
    return _uint8(100 + display / 5.0), outline


def _noisy(display: Display, outline: Outline, lots: Generator) -> tuple[Display, Outline]:
    return _uint8(display + lots.normal(0.0, 25.0, display.shape)), outline


def _uint8(values: NDArray[np.float64]) -> Display:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _gradient(lots: Generator) -> Display:
    down, across = np.mgrid[0:256, 0:256] / 255.0
    angle = lots.uniform(0.0, 2 * np.pi)
    slope = np.cos(angle) * (down - 0.5) + np.sin(angle) * (across - 0.5)
    return _uint8(127.5 + 170.0 * slope)


def _blobs(lots: Generator) -> Display:
    smooth = ndimage.gaussian_filter(lots.normal(0.0, 1.0, (256, 256)), lots.uniform(6.0, 24.0))
    return _uint8(127.5 + 50.0 * smooth / smooth.std())


CHANGES: dict[str, Change] = {
    "as it is": _as_it_is,
    "negative": _negative,
    "turned by 15 degrees": _turned,
    "wide border, black or white": _bordered,
    "wide border, shaded, grainy, with letters": _framed,
    "base of one lung white": _clouded,
    "cables, box and marker": _wired,
    "a fifth of the gray scale": _pale,
    "noise (10 % of the gray scale)": _noisy,
}
IMPOSTORS: dict[str, Callable[[Display], Display]] = {
    "lying on its side": lambda display: np.rot90(display).copy(),
    "upside down": lambda display: np.rot90(display, 2).copy(),
    "upside down, mirrored": lambda display: display[::-1].copy(),
    "left half alone": lambda display: display[:, : display.shape[1] // 2].copy(),
    "upper half alone": lambda display: display[: display.shape[0] // 2].copy(),
    "lower half alone": lambda display: display[display.shape[0] // 2 :].copy(),
}
DRAWINGS: dict[str, Callable[[Generator], Display]] = {
    "even gray": lambda lots: np.full((256, 256), lots.integers(256), np.uint8),
    "gradient": _gradient,
    "noise": lambda lots: lots.integers(0, 256, (256, 256), np.uint8),
    "soft blobs": _blobs,
}
