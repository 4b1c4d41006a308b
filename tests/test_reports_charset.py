"""UTF-8 where a destination wants it: the same words in other bytes, or nothing touched."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from covidnet_node.case import Analysis
from covidnet_node.config import Results
from covidnet_node.errors import Park
from covidnet_node.reports import gate
from covidnet_node.reports.charset import NOT_CONVERTED, decode, in_character_set, in_utf8
from covidnet_node.reports.encode import encode
from covidnet_node.reports.identity import tag_of, value_bytes
from covidnet_node.reports.order import Order
from covidnet_node.reports.results import build_results
from tests.orders import NOT_ANALYZED, OUTCOMES, header, items, order, raw, report, reread

UTF8 = Results(character_set="utf8")
KANJI = b"\x1b$B"
ASCII = b"\x1b(B"
KOREAN = b"\x1b$)C"


def japanese(*parts: str) -> bytes:
    return b"^".join(part.encode("iso2022_jp") for part in parts)


NAMES = {
    "plain": (None, b"Phantom^Chest", "Phantom^Chest"),
    "latin1": (b"ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
    "latin2": (b"ISO_IR 101", "Wałęsa^Lech".encode("iso8859_2"), "Wałęsa^Lech"),
    "cyrillic": (b"ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
    "utf8": (b"ISO_IR 192", "Вишневская^Ольга=山田".encode(), "Вишневская^Ольга=山田"),
    "japanese": (
        b"\\ISO 2022 IR 87 ",
        b"Yamada^Tarou=" + japanese("山田", "太郎") + b"=" + japanese("やまだ", "たろう"),
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    # The first byte of "spring" is an equals sign, which is no delimiter there.
    "japanese spring": (
        b"\\ISO 2022 IR 87 ",
        b"Haruyama^Hanako=" + japanese("春山", "花子"),
        "Haruyama^Hanako=春山^花子",
    ),
    "half-width": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87 ",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3="
        + japanese("山田", "太郎").replace(ASCII, b"\x1b(J"),
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    "chinese": (b"GB18030 ", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    # The second byte of the family name is a backslash, which parts no values there.
    "chinese backslash": (b"GBK ", "Cheng^An=乗^安".encode("gbk"), "Cheng^An=乗^安"),
    "chinese escaped": (
        b"\\ISO 2022 IR 58 ",
        b"Zhang^XiaoDong=\x1b$)A"
        + "张".encode("gb2312")
        + b"^\x1b$)A"
        + "小东".encode("gb2312"),
        "Zhang^XiaoDong=张^小东",
    ),
    "korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong="
        + KOREAN + "洪".encode("euc_kr") + b"^" + KOREAN + "吉洞".encode("euc_kr")
        + b"=" + KOREAN + "홍".encode("euc_kr") + b"^" + KOREAN + "길동".encode("euc_kr"),
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
}  # fmt: skip
UNDECODABLE = {
    "undeclared": (None, "Müller^Jörg".encode("latin-1")),
    "unknown declaration": (b"ISO-8859-1", "Müller^Jörg".encode("latin-1")),
    "not what it says": (b"ISO_IR 192", "王^小东".encode("gb18030")),
    "undeclared escape": (b"ISO_IR 100", japanese("山田", "太郎")),
    "other escape": (b"\\ISO 2022 IR 149", japanese("山田", "太郎")),
    "unknown escape": (b"\\ISO 2022 IR 87 ", b"\x1b%G" + "山田".encode()),
    "half a character": (b"\\ISO 2022 IR 87 ", KANJI + b";3E" + ASCII),
    "not designated again": (
        b"\\ISO 2022 IR 149",
        KOREAN + "洪".encode("euc_kr") + b"^" + "吉洞".encode("euc_kr"),
    ),
}


def named_source(charset: bytes | None, name: bytes, **changes: object) -> Dataset:
    return header(SpecificCharacterSet=charset, PatientName=name, **changes)


@pytest.mark.parametrize("language", NAMES)
@OUTCOMES
def test_every_object_reads_the_same_in_utf8(language: str, analysis: Analysis) -> None:
    charset, name, words = NAMES[language]
    source = named_source(charset, name, ReferringPhysicianName=name, StudyDescription=b"Thorax")
    for built in build_results(order(source, analysis=analysis, profile=UTF8)):
        gate.check(built.dataset, source, UTF8)
        written = reread(encode(built.dataset))
        assert written.SpecificCharacterSet == "ISO_IR 192"
        for keyword in ("PatientName", "ReferringPhysicianName"):
            carried = value_bytes(written, keyword)
            assert carried is not None
            assert carried.decode("utf-8").rstrip() == words
        assert str(written.PatientName) == words


@pytest.mark.parametrize("language", UNDECODABLE)
def test_what_cannot_be_decoded_is_left_alone_and_noted(language: str) -> None:
    charset, name = UNDECODABLE[language]
    source = named_source(charset, name)
    for built in build_results(order(source, profile=UTF8)):
        gate.check(built.dataset, source, UTF8)
        for keyword in ("SpecificCharacterSet", "PatientName"):
            assert value_bytes(built.dataset, keyword) == value_bytes(source, keyword)
    if charset != b"ISO_IR 192":
        assert NOT_CONVERTED in notes(report(order(source, profile=UTF8)))


def notes(document: Dataset) -> str:
    return " ".join(item.get("TextValue", "") for item in items(document))


def test_sequences_are_converted_under_their_own_declaration() -> None:
    inner = Dataset()
    inner.RequestedProcedureID = "RP1"
    inner.SpecificCharacterSet = "ISO_IR 144"
    tag = tag_of("RequestedProcedureDescription")
    inner[tag] = raw(tag, "Люкc".encode("iso8859_5"))
    outer = Dataset()
    outer.ScheduledProcedureStepDescription = "Größe"
    source = header(SpecificCharacterSet="ISO_IR 100", RequestAttributesSequence=[inner, outer])
    document, picture = (
        reread(encode(built.dataset)) for built in build_results(order(source, profile=UTF8))
    )
    first, second = picture.RequestAttributesSequence
    assert first.RequestedProcedureDescription == "Люкc"
    assert "SpecificCharacterSet" not in first
    assert second.ScheduledProcedureStepDescription == "Größe"
    assert document.ReferencedRequestSequence[0].RequestedProcedureDescription == "Люкc"


def test_one_undecodable_word_in_a_sequence_leaves_everything_alone() -> None:
    inner = Dataset()
    inner.RequestedProcedureDescription = "Größe"
    declared = header(SpecificCharacterSet="ISO_IR 100", RequestAttributesSequence=[inner])
    del declared.SpecificCharacterSet
    assert in_utf8(declared) is None


def test_other_bytes_have_another_name_and_equal_bytes_the_same() -> None:
    latin = named_source(b"ISO_IR 100", "Müller^Jörg".encode("latin-1"))
    assert report(order(latin)).SOPInstanceUID != report(order(latin, profile=UTF8)).SOPInstanceUID
    modern = named_source(b"ISO_IR 192", "Müller^Jörg".encode())
    first, second = build_results(order(modern)), build_results(order(modern, profile=UTF8))
    assert [encode(each.dataset) for each in first] == [encode(each.dataset) for each in second]


@pytest.mark.parametrize("language", ["latin1", "undeclared"])
def test_preparing_twice_changes_nothing_more(language: str) -> None:
    charset, name = (NAMES | UNDECODABLE)[language][:2]
    made = order(named_source(charset, name), profile=UTF8)
    once = in_character_set(made)
    assert bytes_of(in_character_set(once)) == bytes_of(once) == bytes_of(made)


def test_a_prepared_order_keeps_what_the_gate_compares_with() -> None:
    charset, name, _ = NAMES["latin1"]
    source = named_source(charset, name)
    prepared = in_character_set(order(source, profile=UTF8))
    assert prepared.original is source
    assert prepared.source is not source
    assert in_character_set(order(source)).original is None


def bytes_of(made: Order) -> list[bytes]:
    return [encode(each.dataset) for each in build_results(made)]


def test_a_header_somebody_has_looked_at_is_converted_alike() -> None:
    charset, name, _ = NAMES["chinese"]
    source = named_source(charset, name)
    before = bytes_of(order(source, profile=UTF8))
    assert str(source.PatientName)
    assert list(source)
    assert bytes_of(order(source, profile=UTF8)) == before


def test_the_gate_stops_another_name_and_a_mere_declaration() -> None:
    charset, name, _ = NAMES["latin1"]
    source = named_source(charset, name)
    made = order(source, analysis=NOT_ANALYZED, profile=UTF8)
    whole = encode(report(made))
    for keyword, value in (("PatientName", "Müller^Jorg"), ("PatientID", "PH-2")):
        damaged = reread(whole)
        setattr(damaged, keyword, value)
        with pytest.raises(Park, match=keyword):
            gate.check(damaged, source, UTF8)
    undone = report(replace(made, profile=Results()))
    undone.SpecificCharacterSet = "ISO_IR 192"
    with pytest.raises(Park, match="PatientName"):
        gate.check(reread(encode(undone)), source, UTF8)


def test_without_the_option_no_other_character_set_passes() -> None:
    source = named_source(None, b"Phantom^Chest")
    converted = report(order(source, profile=UTF8))
    gate.check(converted, source, UTF8)
    with pytest.raises(Park, match="SpecificCharacterSet"):
        gate.check(converted, source)


@settings(deadline=None)
@given(
    st.text(
        st.characters(codec="euc_kr", exclude_categories=["Cc"], exclude_characters="\u3164"),
        max_size=12,
    )
)
def test_every_korean_word_survives(words: str) -> None:
    value = b"".join(
        letter.encode() if letter.isascii() else KOREAN + letter.encode("euc_kr") + ASCII
        for letter in words
    )
    assert decode(value, "\\ISO 2022 IR 149") == words


@settings(deadline=None)
@given(st.binary(max_size=30), st.sampled_from(sorted({str(n[0] or b"") for n in NAMES.values()})))
def test_no_value_breaks_the_conversion(value: bytes, declared: str) -> None:
    source = named_source(declared.encode().replace(b"\0", b""), value)
    converted = in_utf8(source)
    if converted is not None and converted is not source:
        carried = value_bytes(converted, "PatientName")
        assert carried is not None
        carried.decode("utf-8")
