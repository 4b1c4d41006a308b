"""The page: "not analyzed: why" as an image, for viewers that show no SR text.

It shows no anatomy, so it carries nothing over from the source that would make a viewer measure,
orient or hang it as one; and no word on it identifies the patient.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from covidnet_node.case import ResultKind
from covidnet_node.intended_use import NOTICE, PRODUCT, STATEMENT
from covidnet_node.reports import uids
from covidnet_node.reports.codes import reason_words
from covidnet_node.reports.identity import carry, text
from covidnet_node.reports.narrative import NOTHING_SAID, ascii_text
from covidnet_node.reports.order import Order
from covidnet_node.reports.pixel_encoding import set_pixels
from covidnet_node.reports.series import Series
from covidnet_node.reports.source_image import refer_to_source

WIDTH, HEIGHT = 1024, 768
DERIVATION = "A page of text about the source image; none of its pixels"
_MARGIN = 64
_PAPER, _INK, _QUIET, _ALARM = (16, 16, 16), (240, 240, 240), (175, 175, 175), (255, 214, 64)
_Line = tuple[str, int, tuple[int, int, int]]
"""Words, size in pixels, color."""

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def build_page(order: Order, series: Series) -> Dataset:
    """Build the page with an empty identity (PS3.3 A.8.1), `WIDTH` x `HEIGHT` RGB."""
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = uids.instance_uid(order, ResultKind.PAGE)
    image.Modality = "OT"
    image.SeriesInstanceUID = series.uid
    image.SeriesNumber = series.number
    image.SeriesDescription = series.description
    image.InstanceNumber = uids.instance_number(order, ResultKind.PAGE)
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.ImageComments = f"{PRODUCT} AI: NOT ANALYZED. {NOTHING_SAID} {NOTICE}."
    image.DerivationDescription = DERIVATION
    image.BurnedInAnnotation = "NO"
    image.RecognizableVisualFeatures = "NO"
    image.PatientOrientation = None
    carry(order.source, image, "BodyPartExamined")
    if text(image, "BodyPartExamined") != "CHEST":
        # Type 2C (PS3.3 C.7.3.1): present where there may be two of the body part, or none is
        # named; a page has no side.
        image.Laterality = None
    carry(order.source, image, "RequestAttributesSequence")
    refer_to_source(image)
    set_pixels(image, draw_page(order), order.profile.heatmap_syntax)
    return image


_LONGEST_NUMBER = 12
"""Characters of an IS (PS3.5 6.2). To wrap 2,000 took a minute."""


def draw_page(order: Order) -> NDArray[np.uint8]:
    """Set the words on a page: (`HEIGHT`, `WIDTH`, 3) RGB. Long ones shrink until they fit."""
    scale = 1.0
    while True:
        rows = _rows(order, scale)
        if sum(height for _, height, _, _ in rows) <= HEIGHT - 2 * _MARGIN or scale < 0.4:
            break
        scale *= 0.9
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    top = _MARGIN
    for words, height, font, color in rows:
        draw.text((_MARGIN, top), words, fill=color, font=font)
        top += height
    return np.asarray(image)


def _lines(order: Order) -> list[_Line]:
    analysis, algorithm = order.analysis, order.algorithm
    why = "" if analysis.reason is None else reason_words(analysis.reason)
    detail = f" ({analysis.detail})" if analysis.detail else ""
    numbers = [
        f"{what} {number}"
        for what, number in (
            ("series", text(order.source, "SeriesNumber")),
            ("image", text(order.source, "InstanceNumber")),
        )
        if 0 < len(number) <= _LONGEST_NUMBER
    ]
    about = f"About {', '.join(numbers)} of this study." if numbers else ""
    weights = "" if algorithm is None else f", {algorithm.name} {algorithm.version}"
    return [
        (f"{PRODUCT} AI", 36, _QUIET),
        ("NOT ANALYZED", 84, _ALARM),
        (f"Why: {why}{detail}.", 40, _INK),
        (NOTHING_SAID, 40, _INK),
        (about, 28, _QUIET),
        (f"Intended for: {STATEMENT}.", 28, _QUIET),
        (f"{NOTICE}.", 40, _ALARM),
        (f"{PRODUCT} {order.program}".strip() + weights, 24, _QUIET),
    ]


def _rows(order: Order, scale: float) -> list[tuple[str, int, _Font, tuple[int, int, int]]]:
    """Wrap the lines; of each row its words, the height it takes, font and color."""
    rows = []
    for words, size, color in _lines(order):
        font = ImageFont.load_default(size * scale)
        wrapped = _wrap(ascii_text(words), font)
        for number, row in enumerate(wrapped, 1):
            gap = 0.75 if number == len(wrapped) else 0.25
            rows.append((row, round((1 + gap) * size * scale), font, color))
    return rows


def _wrap(words: str, font: _Font) -> list[str]:
    """Break words into rows that fit the page, a word too long for a row within itself."""
    rows: list[str] = []
    for word in words.split():
        longer = f"{rows[-1]} {word}" if rows else word
        if rows and font.getlength(longer) <= WIDTH - 2 * _MARGIN:
            rows[-1] = longer
            continue
        rest = word
        while font.getlength(rest) > WIDTH - 2 * _MARGIN:
            fits = next(n for n in range(len(rest) - 1, 0, -1)
                        if n == 1 or font.getlength(rest[:n]) <= WIDTH - 2 * _MARGIN)  # fmt: skip
            rows.append(rest[:fits])
            rest = rest[fits:]
        rows.append(rest)
    return rows
