"""The heatmap picture: the original, with color where the networks looked.

No color on pixels where the map is silent, none for the class "normal" (there is no pattern to
point at) and little for a class that is unlikely. None outside the lungs either, because the
networks saw nothing there; how much of the map lies inside is said in words. All text stands in a
strip added on top, so that it covers no lung; the picture below keeps size, aspect and
orientation of the original. The bottom stays free, because some viewers print there. No torch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from covidnet_node.case import Algorithm, Analysis, Outcome, Reason
from covidnet_node.intended_use import CLASSES, FINDINGS, LIKELY, NOTICE, PRODUCT, UNLIKELY

Picture = NDArray[np.uint8]
Share = NDArray[np.float64]

_SILENT = 0.30
"""Part of the map's maximum below which nothing is drawn."""
_STRONGEST = 0.55
"""Opacity at the maximum: anatomy must stay readable below."""

_ANCHORS = np.array(
    [
        [76, 40, 170],
        [136, 56, 176],
        [192, 78, 148],
        [234, 110, 96],
        [250, 152, 52],
        [252, 204, 80],
        [255, 250, 180],
    ],
    dtype=np.float64,
)
"""Violet over red to light yellow. Lightness rises throughout, for normal eyes and for those blind
to red, green or blue (Machado 2009), so the order is plain to all and in gray print too. The weak
end is light enough to tint a dark lung: darkened, it would look like more air."""

_CONTOUR = (64, 200, 255)
_TEXT = (235, 235, 235)
_QUIET = (175, 175, 175)
_ALARM = (255, 214, 64)

_SHORT = {"covid19": "COVID-19", "pneumonia": "other pneumonia", "normal": "no pattern"}
_WHY = {
    Reason.MEMBERS_DISAGREE: "networks disagree",
    Reason.OUT_OF_DISTRIBUTION: "unlike the training data",
    Reason.LOW_CONFIDENCE: "no class likely enough",
}


@dataclass(frozen=True, slots=True)
class _Line:
    words: str
    color: tuple[int, int, int]
    scale: float = 1.0


def draw_overlay(analysis: Analysis, algorithm: Algorithm) -> Picture:
    """Draw the heatmap of an analyzed or inconclusive image.

    Returns RGB (strip + rows, columns, 3): a strip of text on top, then the source's display
    image, pixel for pixel where nothing is drawn. Raises ValueError if the analysis holds no
    display image.
    """
    if analysis.display is None:
        raise ValueError("an analysis without a display image has no heatmap")
    picture = _blend(analysis.display, _opacity(analysis), _strength(analysis))
    if analysis.lungs is not None:
        picture[_contour(analysis.lungs)] = _CONTOUR
    strip = _strip(_lines(analysis, algorithm), picture.shape[1], bar=_belief(analysis) > 0)
    return _joined(strip, picture)


def draw_plain(analysis: Analysis, algorithm: Algorithm) -> Picture:
    """Draw the same picture without color and contour, under a strip of the same height.

    Of the shape that `draw_overlay` returns, so that nothing moves when a reader toggles between
    the two. Raises ValueError if the analysis holds no display image.
    """
    if analysis.display is None:
        raise ValueError("an analysis without a display image has no picture")
    picture = np.repeat(analysis.display[:, :, None], 3, axis=2)
    width = picture.shape[1]
    strip = np.zeros_like(_strip(_lines(analysis, algorithm), width, bar=_belief(analysis) > 0))
    words = _strip(_plain_lines(analysis, algorithm), width, bar=False)[: len(strip)]
    strip[: len(words)] = words
    return _joined(strip, picture)


def _joined(strip: Picture, picture: Picture) -> Picture:
    """Strip above picture, by one row more where rows and columns would both be odd.

    Encoders of RLE and JPEG Lossless stumble over a frame with an odd number of bytes.
    """
    rows, columns = len(strip) + len(picture), picture.shape[1]
    more = np.zeros((rows % 2 * (columns % 2), columns, 3), np.uint8)
    return np.concatenate([more, strip, picture])


def _strength(analysis: Analysis) -> Share:
    """Scale the map inside the lungs to its maximum there: where the networks looked most is 1."""
    if analysis.display is None or analysis.explanation is None:
        return np.zeros(() if analysis.display is None else analysis.display.shape)
    heat = np.nan_to_num(analysis.explanation.heatmap.astype(np.float64)).clip(min=0)
    if analysis.lungs is not None:
        heat = np.where(analysis.lungs, heat, 0.0)
    highest = float(heat.max(initial=0))
    return heat / highest if highest > 0 else heat


def _opacity(analysis: Analysis) -> Share:
    """Let weak places fade to nothing and an unlikely class hold back its color."""
    rising = ((_strength(analysis) - _SILENT) / (1 - _SILENT)).clip(0, 1)
    opacity: Share = _STRONGEST * _belief(analysis) * rising
    return opacity


def _belief(analysis: Analysis) -> float:
    if analysis.explanation is None or analysis.probabilities is None:
        return 0.0
    if analysis.explanation.target == "normal":
        return 0.0
    share = analysis.probabilities.of(analysis.explanation.target)
    return min(max((share - UNLIKELY) / (LIKELY - UNLIKELY), 0.0), 1.0)


def _blend(display: Picture, opacity: Share, strength: Share) -> Picture:
    gray = np.repeat(display[:, :, None], 3, axis=2)
    drawn = opacity > 0
    share = opacity[drawn][:, None]
    gray[drawn] = np.rint((1 - share) * gray[drawn] + share * _colors(strength[drawn]))
    return gray


def _colors(strength: Share) -> Share:
    """Colors of the visible part of the scale, `_SILENT` to 1."""
    place = (strength - _SILENT) / (1 - _SILENT) * (len(_ANCHORS) - 1)
    known = np.arange(len(_ANCHORS))
    return np.stack([np.interp(place, known, _ANCHORS[:, band]) for band in range(3)], axis=-1)


def _contour(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Outline just outside the lungs, about a pixel per 500, so that no lung is covered."""
    thickness = max(1, round(min(lungs.shape) / 500))
    grown: NDArray[np.bool_] = ndimage.binary_dilation(lungs, iterations=thickness)
    return grown & ~lungs


def _strip(lines: list[_Line], width: int, *, bar: bool) -> Picture:
    """Set the text, wrapped to the width; the last row holds the color bar, if there is one."""
    size = max(11, round(width / 40))
    margin = size // 2
    rows = [
        (row, line)
        for line in lines
        for row in _wrap(line.words, _font(size * line.scale), width - 2 * margin)
    ]
    scale_row = [("", _Line("", _TEXT))] if bar else []
    heights = [round(1.35 * size * line.scale) for _, line in [*rows, *scale_row]]
    image = Image.new("RGB", (width, sum(heights) + margin), (0, 0, 0))
    draw = ImageDraw.Draw(image)
    top = margin // 2
    for (row, line), height in zip(rows, heights, strict=False):
        draw.text((margin, top), row, fill=line.color, font=_font(size * line.scale))
        top += height
    if scale_row:
        _draw_scale(image, draw, (margin, top), size)
    return np.asarray(image)


def _draw_scale(
    image: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], size: int
) -> None:
    """Draw the color bar with its ends named."""
    left, top = corner
    font = _font(size)
    draw.text((left, top), "Attention: low", fill=_TEXT, font=font)
    start = left + round(draw.textlength("Attention: low ", font=font))
    room = image.width - start - round(draw.textlength(" highest", font=font)) - left
    length = max(8, min(10 * size, room))
    bar = _colors(np.linspace(_SILENT, 1, length))
    band = np.repeat(np.rint(bar)[None].astype(np.uint8), size, axis=0)
    image.paste(Image.fromarray(band), (start, top + size // 6))
    draw.text((start + length, top), " highest", fill=_TEXT, font=font)


def _lines(analysis: Analysis, algorithm: Algorithm) -> list[_Line]:
    return _around(analysis, algorithm, _key(analysis))


def _plain_lines(analysis: Analysis, algorithm: Algorithm) -> list[_Line]:
    return _around(analysis, algorithm, "Without color and lung line, to compare")


def _key(analysis: Analysis) -> str:
    """Say what color and line mean."""
    key = []
    if _belief(analysis) == 0:
        key.append("No color drawn: no likely pattern to point at")
    elif analysis.explanation is not None:
        key.append(f"Color: looked at for {_SHORT[analysis.explanation.target]}")
        if analysis.lungs is not None:
            inside = _percent(analysis.explanation.energy_in_lungs)
            key.append(f"{inside} of the attention lies in the lungs, the rest is not drawn")
    if analysis.lungs is not None:
        key.append("Blue line: lungs as found")
    return ". ".join(key)


def _around(analysis: Analysis, algorithm: Algorithm, key: str) -> list[_Line]:
    """Put notice and answer before the key, and what answered behind it."""
    lines = [
        _Line(f"{PRODUCT} AI. {NOTICE}", _ALARM),
        *_answer(analysis, algorithm),
        _Line(key, _QUIET),
        _Line(f"{algorithm.name} {algorithm.version}. {algorithm.notice}", _QUIET),
    ]
    return [_Line(_ascii(line.words), line.color, line.scale) for line in lines]


def _answer(analysis: Analysis, algorithm: Algorithm) -> list[_Line]:
    """Say the conclusion, or that there is none, and the probabilities."""
    lines = []
    if analysis.outcome is Outcome.INCONCLUSIVE:
        why = "" if analysis.reason is None else _WHY.get(analysis.reason, analysis.reason.value)
        lines.append(_Line(f"INCONCLUSIVE: no conclusion ({why.replace('_', ' ')})", _ALARM, 1.25))
    elif analysis.probabilities is not None:
        finding = FINDINGS[analysis.probabilities.called(algorithm.covid19_threshold)]
        lines.append(_Line(finding, _TEXT, 1.25))
    if analysis.probabilities is not None:
        likely = analysis.probabilities
        shares = [f"{_SHORT[name]} {_percent(likely.of(name))}" for name in CLASSES]
        lines.append(_Line(", ".join(shares), _TEXT))
    return lines


def _percent(share: float) -> str:
    if share > 0.99:
        return "> 99 %"
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _ascii(words: str) -> str:
    return words.encode("ascii", "replace").decode("ascii").strip()


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrap(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    rows = [""]
    for word in words.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and font.getlength(longer) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows
