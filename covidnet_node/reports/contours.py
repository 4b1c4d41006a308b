"""The presentation state: lungs and peaks drawn on the original, to be switched on and off.

A Grayscale Softcopy Presentation State takes the place of all that the image says about its own
display (PS3.4 N.2), so the image's own grayscale transformations are repeated here. Where they
cannot be repeated faithfully there is no presentation state: an original shown wrongly is worse
than an original without lines.
"""

import re

import numpy as np
from highdicom.color import CIELabColor
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    TextJustificationValues,
    TextObject,
)
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from covidnet_node.case import Outcome, ResultKind
from covidnet_node.intended_use import FINDINGS, MANUFACTURER, NOTICE, PRODUCT
from covidnet_node.reports import uids
from covidnet_node.reports.identity import carry, count, items, raw_element, tag_of, text
from covidnet_node.reports.narrative import ascii_text, percent
from covidnet_node.reports.order import Order
from covidnet_node.reports.regions import outline_lungs, pointed_at
from covidnet_node.reports.series import Series
from covidnet_node.reports.source_image import (
    has_shape,
    is_gray,
    name_body_part,
    numbers,
    plain_copy,
    stand_in,
)

Points = NDArray[np.float64]

_PIXEL, _DISPLAY = AnnotationUnitsValues.PIXEL, AnnotationUnitsValues.DISPLAY
_LAYERS = {
    "LUNGS": ("Lungs as found", (64, 200, 255)),
    "ATTENTION": ("Where the networks looked most", (255, 160, 40)),
    "NOTICE": ("What this is", (255, 214, 64)),
}
"""Order of drawing; description and recommended color, those of the heatmap."""
_LUT_MODULES = ("ModalityLUTSequence", "VOILUTSequence")


def build_contours(order: Order, series: Series) -> Dataset | None:
    """Build the presentation state with an empty identity (PS3.3 A.33.1).

    None where nothing was outlined, the image is not grayscale or its display cannot be repeated.
    """
    lungs = order.analysis.lungs
    if lungs is None or not (is_gray(order.source) and has_shape(order.source, lungs.shape)):
        return None
    outlines = outline_lungs(lungs)
    if not outlines or not _repeatable(order.source):
        return None
    image = stand_in(order.source)
    version = "none" if order.algorithm is None else ascii_text(order.algorithm.version)
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[image],
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=uids.instance_uid(order, ResultKind.CONTOURS),
        instance_number=uids.instance_number(order, ResultKind.CONTOURS),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PRODUCT,
        software_versions=version,
        device_serial_number=uids.algorithm_digest(order.algorithm)[:16],
        content_label="COVIDNET",
        content_description=f"AI outlines. {NOTICE}",
        graphic_layers=_layers(),
        graphic_annotations=[
            _lungs(image, outlines),
            *_peaks(image, order),
            _notice(image, order),
        ],
        series_description=series.description,
    )
    made = plain_copy(state)
    _complete(made, order)
    _repeat_display(order.source, made)
    return made


def _layers() -> list[GraphicLayer]:
    return [
        GraphicLayer(name, number, description=words, display_color=CIELabColor.from_rgb(*color))
        for number, (name, (words, color)) in enumerate(_LAYERS.items(), 1)
    ]


def _lungs(image: Dataset, outlines: tuple[Points, ...]) -> GraphicAnnotation:
    top = min((tuple(point) for outline in outlines for point in outline), key=lambda at: at[1])
    words = TextObject("Lungs as found", _PIXEL, anchor_point=top, anchor_point_visible=False)
    return GraphicAnnotation(
        referenced_images=[image],
        graphic_layer=_layers()[0],
        graphic_objects=[_line(outline) for outline in outlines],
        text_objects=[words],
    )


def _peaks(image: Dataset, order: Order) -> list[GraphicAnnotation]:
    """Outline each peak and say how much of the map it holds."""
    rows, columns = count(order.source, "Rows"), count(order.source, "Columns")
    regions = pointed_at(order.analysis, rows, columns)
    if not regions:
        return []
    words = [
        TextObject(
            f"{number}: {percent(region.share)} of the attention",
            _PIXEL,
            anchor_point=tuple(region.outline[region.outline[:, 1].argmax()]),
            anchor_point_visible=False,
        )
        for number, region in enumerate(regions, 1)
    ]
    return [
        GraphicAnnotation(
            referenced_images=[image],
            graphic_layer=_layers()[1],
            graphic_objects=[_line(region.outline) for region in regions],
            text_objects=words,
        )
    ]


def _notice(image: Dataset, order: Order) -> GraphicAnnotation:
    words = TextObject(
        "\r\n".join(ascii_text(line) for line in _sentences(order)),
        _DISPLAY,
        bounding_box=(0.01, 0.01, 0.99, 0.12),
        text_justification=TextJustificationValues.LEFT,
    )
    return GraphicAnnotation(
        referenced_images=[image], graphic_layer=_layers()[2], text_objects=[words]
    )


def _sentences(order: Order) -> tuple[str, ...]:
    analysis, algorithm = order.analysis, order.algorithm
    if analysis.outcome is Outcome.INCONCLUSIVE:
        conclusion = "INCONCLUSIVE: no conclusion"
    elif analysis.probabilities is not None and algorithm is not None:
        conclusion = FINDINGS[analysis.probabilities.called(algorithm.covid19_threshold)]
    else:
        conclusion = "No conclusion"
    return f"{PRODUCT} AI. {NOTICE}", conclusion


def _line(points: Points) -> GraphicObject:
    return GraphicObject(GraphicTypeValues.POLYLINE, points, _PIXEL)


def _complete(state: Dataset, order: Order) -> None:
    """Set what highdicom leaves to its user; `series.date` dates what it took from the clock."""
    name_body_part(order.source, state)
    shown = state.DisplayedAreaSelectionSequence[0]
    # Only whole slide images need it (PS3.3 C.10.4).
    del shown.PixelOriginInterpretation
    aspect = re.fullmatch(r"([1-9]\d*) *\\ *([1-9]\d*)", text(order.source, "PixelAspectRatio"))
    if aspect is not None:
        shown.PresentationPixelAspectRatio = [int(aspect[1]), int(aspect[2])]


def _repeatable(source: Dataset) -> bool:
    """Whether the source's lookup tables, if it has any, can be read."""
    return all(
        not items(source, keyword) or _lut(items(source, keyword)[0]) is not None
        for keyword in _LUT_MODULES
    )


def _repeat_display(source: Dataset, state: Dataset) -> None:
    """Repeat Modality LUT, VOI LUT and polarity of the image (PS3.3 C.11.1, C.11.8, C.11.6)."""
    table = items(source, "ModalityLUTSequence")
    slope, intercept = (numbers(source, word, 1) for word in ("RescaleSlope", "RescaleIntercept"))
    if table:
        modality = _lut(table[0])
        assert modality is not None  # noqa: S101 - `_repeatable` has looked
        modality.ModalityLUTType = text(table[0], "ModalityLUTType") or "US"
        state.ModalityLUTSequence = [modality]
    elif slope is not None and intercept is not None and slope[0] != 0:
        for keyword in ("RescaleIntercept", "RescaleSlope"):
            carry(source, state, keyword)
        state.RescaleType = text(source, "RescaleType") or "US"
    interest = _voi(source)
    if interest is not None:
        state.SoftcopyVOILUTSequence = [interest]
    dark = text(source, "PhotometricInterpretation") == "MONOCHROME1"
    inverted = dark or text(source, "PresentationLUTShape") == "INVERSE"
    # The transformations end in white for large values: MONOCHROME1 is undone here, once.
    state.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"


def _voi(source: Dataset) -> Dataset | None:
    """First VOI LUT or first window of the source, as its heatmap shows it."""
    table = items(source, "VOILUTSequence")
    if table:
        item = Dataset()
        item.VOILUTSequence = [_widened(table[0])]
        return item
    window = Dataset()
    for keyword in ("WindowCenter", "WindowWidth"):
        # As bytes: longer than a DS may be, it is still a number.
        first = text(source, keyword).split("\\")[0].strip()
        window[keyword] = raw_element(tag_of(keyword), (first + " " * (len(first) % 2)).encode())
    center, width = numbers(window, "WindowCenter", 1), numbers(window, "WindowWidth", 1)
    function = text(source, "VOILUTFunction")
    exact = function in {"LINEAR_EXACT", "SIGMOID"}
    if center is None or width is None or width[0] <= 0 or (width[0] < 1 and not exact):
        return None
    if exact or function == "LINEAR":
        window.VOILUTFunction = function
    return window


def _lut(item: Dataset) -> Dataset | None:
    """Copy one lookup table (PS3.3 C.11.1.1); None if it is not whole."""
    descriptor, entries = _words(item, "LUTDescriptor"), _words(item, "LUTData")
    if descriptor is None or entries is None or len(descriptor) != 3:
        return None
    length, bits = int(descriptor[0]) or 65536, int(descriptor[2])
    if not 8 <= bits <= 16 or len(entries) not in {length, -(-length // 2)}:
        return None
    copy = Dataset()
    first = int(descriptor[1])
    # A first value below zero is SS (PS3.3 C.11.1.1); the bytes are the same.
    signed = _vr(item, "LUTDescriptor") == "SS"
    copy.add_new("LUTDescriptor", "SS" if signed else "US", [
        _signed(int(descriptor[0])) if signed else int(descriptor[0]),
        _signed(first) if signed else first, bits,
    ])  # fmt: skip
    copy.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return copy


def _widened(item: Dataset) -> Dataset:
    """Copy a VOI LUT, its entries stretched to 16 bits where they have neither 8 nor 16.

    Both are the same grays: a VOI LUT ends in a range, not in a measurement (PS3.3 C.11.2.1.1).
    """
    copy = _lut(item)
    assert copy is not None  # noqa: S101 - `_repeatable` has looked
    length, first, bits = copy.LUTDescriptor
    if bits not in {8, 16}:
        entries = np.frombuffer(copy.LUTData, "<u2").astype(np.float64) * 65535 / (2**bits - 1)
        copy.LUTData = np.rint(entries).clip(0, 65535).astype("<u2").tobytes()
        copy.LUTDescriptor = [length, first, 16]
    return copy


def _signed(word: int) -> int:
    return word - 65536 if word > 32767 else word


def _vr(item: Dataset, keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return str(item.get_item(tag).VR) if tag is not None and tag in item else ""


def _words(item: Dataset, keyword: str) -> NDArray[np.uint16] | None:
    """Values of an element of 16-bit words, as they stand in the data set."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in item:
        return None
    element: DataElement | RawDataElement = item.get_item(tag)
    value = element.value
    if isinstance(value, bytes):
        little = not isinstance(element, RawDataElement) or element.is_little_endian
        return np.frombuffer(value[: len(value) // 2 * 2], "<u2" if little else ">u2")
    try:
        return np.array([int(word) % 65536 for word in value or ()], np.uint16)
    except (TypeError, ValueError):
        return None
