"""What every part of the gate asks: small questions to a finished object or its source."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from covidnet_node.reports.identity import count, items, text, undecoded


def missing(result: Dataset, keywords: tuple[str, ...]) -> Iterator[str]:
    """Complain of each attribute that is absent or empty."""
    for keyword in keywords:
        if undecoded(result, keyword) is None and count(result, keyword) is None:
            yield f"{keyword} is missing"


def names(source: Dataset) -> tuple[str, str, str]:
    """UIDs of study, series and instance."""
    return (
        text(source, "StudyInstanceUID"),
        text(source, "SeriesInstanceUID"),
        text(source, "SOPInstanceUID"),
    )


def code(item: Dataset, keyword: str) -> str:
    """Code value in the first item of a code sequence; "" if there is none."""
    named = items(item, keyword)
    return text(named[0], "CodeValue") if named else ""


def content(item: Dataset) -> Iterator[Dataset]:
    """All content items below one, a parent before its children."""
    for child in items(item, "ContentSequence"):
        yield child
        yield from content(child)


def named(item: Dataset) -> str:
    """Code value of the concept that names a content item."""
    return code(item, "ConceptNameCodeSequence")


def said(item: Dataset) -> str:
    """Code value that a CODE item holds."""
    return code(item, "ConceptCodeSequence")


def measured(item: Dataset) -> float:
    """Measured value; not a number where there is none, so that every bound rejects it."""
    values = items(item, "MeasuredValueSequence")
    try:
        return float(text(values[0], "NumericValue")) if values else float("nan")
    except ValueError:
        return float("nan")
