"""The carried identity in UTF-8, for destinations that want every object in ISO_IR 192.

All or nothing: one Specific Character Set governs a whole object. What cannot be decoded exactly
as it is declared is not touched at all: the source's bytes and its declaration go out as they
are, and the report says so. Nothing is replaced by question marks.

pydicom's own decoding is not used, because it replaces what it cannot read.
"""

import re
from contextlib import suppress
from dataclasses import replace

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from covidnet_node.reports.identity import (
    CARRIED,
    NAMED_CHARSET,
    UNREADABLE,
    items,
    raw_element,
    tag_of,
    text,
    value_bytes,
)
from covidnet_node.reports.order import Order

UTF8 = "ISO_IR 192"
NOT_CONVERTED = (
    "Not converted to UTF-8, because it cannot be decoded as the source declares it: "
    "the patient's and study's text has the source's bytes and character set"
)

_ALSO_CARRIED = ("RequestAttributesSequence",)
_ASCII_FIRST = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})
_DECLARATION = tag_of("SpecificCharacterSet")
_PIXELS = 0x7FE0
_ESCAPE = re.compile(rb"(\x1b(?:\$[()][A-Z]|\$[A-Z@]|[()-][A-Z]))")
_DOUBLE_BYTE = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Designated to G0: Python reads the escape sequence itself."""
_DELIMITERS = re.compile(rb"[\\^=\r\n\f\t]")
"""Where the character set returns to the first one declared (PS3.5 6.1.2.5.3)."""


def in_character_set(order: Order) -> Order:
    """Prepare the source as the profile wants its text; note it where that cannot be done.

    To be done before a result of the order is named, because its UID depends on it. Doing it
    again changes nothing.
    """
    if order.profile.character_set == "source" or NOT_CONVERTED in order.admission_notes:
        return order
    converted = in_utf8(order.source)
    if converted is None:
        return replace(order, admission_notes=(*order.admission_notes, NOT_CONVERTED))
    if converted is order.source:
        return order
    return replace(order, source=converted, original=order.source)


def in_utf8(source: Dataset) -> Dataset | None:
    """Copy a header with what is carried of it converted to UTF-8 and declared ISO_IR 192.

    The source itself if it is declared so already. None if something cannot be decoded under its
    declaration (PS3.3 C.12.1.1.2, PS3.5 6.1.2).
    """
    declared = text(source, "SpecificCharacterSet")
    if declared == UTF8:
        return source
    copy = Dataset()
    for tag in source.keys():  # noqa: SIM118 - iterating a data set would decode its elements
        if tag.group == _PIXELS:
            continue  # nobody reads them here, and broken ones cannot be read
        with suppress(*UNREADABLE):  # then it cannot be carried either
            copy[tag] = source.get_item(tag)
    if hasattr(source, "file_meta"):
        copy.file_meta = source.file_meta
    try:
        for keyword in (*CARRIED, *_ALSO_CARRIED):
            if keyword in source:
                _convert(source, copy, keyword, declared)
    except (ValueError, LookupError):
        return None
    copy[_DECLARATION] = raw_element(_DECLARATION, UTF8.encode("ascii"))
    return copy


def decode(value: bytes, declared: str) -> str:
    """Decode a text value exactly as declared, code extensions included.

    Raises ValueError or LookupError where the declaration is unknown or does not fit.
    """
    names = [name.strip() for name in declared.split("\\")]
    encodings = [python_encoding[name] for name in names]
    first = "ascii" if names[0] in _ASCII_FIRST else encodings[0]
    if b"\x1b" not in value:
        return value.decode(first)
    if len(names) == 1 and not names[0].startswith("ISO 2022"):
        raise ValueError("an escape sequence without code extensions")
    before, *escaped = _ESCAPE.split(value)
    words = [before.decode(first)]
    for escape, part in zip(escaped[::2], escaped[1::2], strict=True):
        words.append(_decode_part(escape, part, first, encodings))
    whole = "".join(words)
    if "\x1b" in whole:
        raise ValueError("an unknown escape sequence")
    return whole


def _decode_part(escape: bytes, part: bytes, first: str, encodings: list[str]) -> str:
    encoding = CODES_TO_ENCODINGS[escape]
    if escape == b"\x1b(B":
        return part.decode(first)
    if encoding not in encodings:
        raise ValueError("an escape sequence to a character set that is not declared")
    if encoding in _DOUBLE_BYTE:
        return (escape + part).decode(encoding)
    end = _DELIMITERS.search(part)
    if end is not None and not part[end.start() :].isascii():
        # The standard has the first character set again here, many writers do not.
        raise ValueError("not designated again behind a delimiter")
    return part.decode("gb2312" if encoding == "iso_ir_58" else encoding)


def _convert(source: Dataset, copy: Dataset, keyword: str, declared: str) -> None:
    tag = tag_of(keyword)
    vr = dictionary_VR(tag)
    if vr == "SQ":
        inner = [_convert_item(item, declared) for item in items(source, keyword)]
        if inner:
            copy[tag] = DataElement(tag, "SQ", Sequence(inner))
    elif vr in NAMED_CHARSET:
        value = value_bytes(source, keyword)
        if value is not None:
            copy[tag] = raw_element(tag, _recode(value, declared))


def _convert_item(item: Dataset, inherited: str) -> Dataset:
    """Convert an item under its own declaration, if it has one, which it then needs no more."""
    own = text(item, "SpecificCharacterSet") or inherited
    made = Dataset()
    for tag in item.keys():  # noqa: SIM118 - iterating a data set would decode its elements
        if tag != _DECLARATION:
            with suppress(*UNREADABLE):
                made[tag] = item.get_item(tag)
    for tag in list(made.keys()):
        if not dictionary_has_tag(tag) or not dictionary_keyword(tag):
            del made[tag]
        elif dictionary_VR(tag) in {*NAMED_CHARSET, "SQ"}:
            _convert(item, made, dictionary_keyword(tag), own)
    return made


def _recode(value: bytes, declared: str) -> bytes:
    if value.isascii() and b"\x1b" not in value:
        return value
    recoded = decode(value.rstrip(b" \0"), declared).encode("utf-8")
    return recoded + b" " * (len(recoded) % 2)
