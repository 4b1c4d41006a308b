"""What is in the objects that the node creates, told in the words of PS3.2 N.9."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.datadict import dictionary_description, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from covidnet_node.conformance.example import FULL, Example

MODULES = {
    "Patient": "PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence "
    "PatientBirthDate PatientSex",
    "General Study": "StudyInstanceUID StudyDate StudyTime ReferringPhysicianName StudyID "
    "AccessionNumber IssuerOfAccessionNumberSequence StudyDescription",
    "Patient Study": "PatientAge",
    "General Series (SR Document Series, Presentation Series)": "Modality SeriesInstanceUID "
    "SeriesNumber SeriesDescription BodyPartExamined Laterality RequestAttributesSequence "
    "ReferencedPerformedProcedureStepSequence",
    "General Equipment": "Manufacturer ManufacturerModelName DeviceSerialNumber SoftwareVersions",
    "Frame of Reference": "FrameOfReferenceUID PositionReferenceIndicator",
    "SR Document General": "PreliminaryFlag CompletionFlag VerificationFlag "
    "PredecessorDocumentsSequence ReferencedRequestSequence PerformedProcedureCodeSequence "
    "CurrentRequestedProcedureEvidenceSequence",
    "SR Document Content": "ValueType ConceptNameCodeSequence ContinuityOfContent "
    "ContentTemplateSequence",
    "Presentation State Identification": "ContentLabel ContentDescription ContentCreatorName "
    "PresentationCreationDate PresentationCreationTime",
    "Presentation State Relationship, Common Instance Reference": "ReferencedSeriesSequence",
    "Graphic Annotation, Graphic Layer, Displayed Area": "GraphicAnnotationSequence "
    "GraphicLayerSequence DisplayedAreaSelectionSequence",
    "Modality LUT, Softcopy VOI LUT, Softcopy Presentation LUT": "RescaleIntercept RescaleSlope "
    "RescaleType ModalityLUTSequence SoftcopyVOILUTSequence PresentationLUTShape",
    "General Image, General Reference, SC Equipment": "ConversionType InstanceNumber "
    "ImageType ContentDate ContentTime "
    "PatientOrientation ImageComments BurnedInAnnotation RecognizableVisualFeatures "
    "LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod "
    "SourceImageSequence DerivationDescription DerivationCodeSequence",
    "Image Pixel, Floating Point Image Pixel": "SamplesPerPixel PhotometricInterpretation "
    "PlanarConfiguration Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation "
    "PixelData FloatPixelData",
    "Segmentation Image, Parametric Map Image": "SegmentationType SegmentSequence SegmentsOverlap "
    "PixelPresentation ContentQualification",
    "Multi-frame Functional Groups, Multi-frame Dimension": "NumberOfFrames "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence "
    "DimensionOrganizationSequence DimensionIndexSequence",
    "Acquisition Context": "AcquisitionContextSequence",
    "SOP Common": "SOPClassUID SOPInstanceUID SpecificCharacterSet InstanceCreationDate "
    "InstanceCreationTime CodingSchemeIdentificationSequence TimezoneOffsetFromUTC "
    "ContributingEquipmentSequence",
}
"""Attributes under the module that tells most about them (PS3.3 C); others come last."""

OTHER = "Other"

CONDITIONS = {
    "PredecessorDocumentsSequence": "the report replaces an earlier one",
    "LossyImageCompression": "the source says so, or the profile asks for JPEG Baseline",
    "LossyImageCompressionRatio": "lossy",
    "LossyImageCompressionMethod": "lossy",
    "Laterality": "the source's body part is paired",
    "RequestAttributesSequence": "the source has one",
    "ReferencedRequestSequence": "the source has Request Attributes",
    "PlanarConfiguration": "three samples per pixel",
    "CodingSchemeIdentificationSequence": "private codes are used",
}

COMMON = ("Patient", "General Study", "Patient Study", "General Equipment", "SOP Common")
"""Modules that every object has alike (PS3.2 N.9.1.1)."""

_HEAD = ("| Attribute | Tag | VR | Source | Presence | Value |", "|---|---|---|---|---|---|")
_MOST_VALUES = 4
_LONGEST = 72
_CLOCKS = frozenset({"DA", "TM", "DT"})
_BULK = frozenset({"OB", "OW", "OF", "OD", "UN"})

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One attribute in one data set or item: there, perhaps empty."""

    example: Example
    element: DataElement


class Objects:
    """Every attribute of the examples given, by the path of tags that leads to it."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self._found: dict[Path, list[Found]] = {}
        self._of_sources = {id(each.source): _all_values(each.source) for each in examples}
        for example in examples:
            self._walk(example, example.dataset, ())

    def lines(self, modules: Iterable[str]) -> Iterator[str]:
        """One table a module, in the order of tags."""
        known = {word: name for name, words in MODULES.items() for word in words.split()}
        for module in modules:
            paths = [
                path
                for path in sorted(self._found)
                if known.get(keyword_for_tag(path[0]), OTHER) == module
            ]
            if paths:
                yield from (f"*{module}*", "", *_HEAD)
                yield from map(self._row, paths)
                yield ""

    def _walk(self, example: Example, level: Dataset, path: Path) -> None:
        for element in level:
            if element.keyword == "ContentSequence" or element.tag.element == 0:
                continue
            here = (*path, int(element.tag))
            self._found.setdefault(here, []).append(Found(example, element))
            copied = not path and element.keyword in example.source
            if element.VR == "SQ" and not copied and not _codes(element):
                for item in element.value:
                    self._walk(example, item, here)

    def _row(self, path: Path) -> str:
        found = self._found[path]
        source = self._source(path)
        cells = (
            ">" * (len(path) - 1) + dictionary_description(path[-1]),
            f"({path[-1] >> 16:04X},{path[-1] & 0xFFFF:04X})",
            found[0].element.VR,
            source,
            self._presence(path, source),
            _value(found, source),
        )
        return "| " + " | ".join(cells) + " |"

    def _source(self, path: Path) -> str:
        """Say whence the value comes (PS3.2 N.9), by how it varies."""
        filled = [each for each in self._found[path] if not _is_empty(each.element)]
        if not filled:
            return "EMPTY"
        copied = self._copied_below(filled) if len(path) > 1 else self._copied(path[0])
        if copied is not None:
            return copied
        first = filled[0].element
        if (first.VR == "SQ" and not _codes(first)) or first.VR in {*_BULK, *_CLOCKS}:
            return "GENERATED"
        if len({_told(each.element) for each in filled}) == 1:
            # Of a value seen once it cannot be told whether it is always the same.
            return "FIXED" if len(filled) > 1 or first.VR == "CS" else "GENERATED"
        return "CONFIGURATION" if len(path) == 1 and _configured(filled) else "GENERATED"

    def _copied(self, tag: int) -> str | None:
        """Say so if the object has what the source has, wherever that has something."""
        told = {id(each.example): _told(each.element) for each in self._found[(tag,)]}
        given = {id(example): _told(example.source.get(tag)) for example in self._examples}
        if len(set(given.values())) == 1:
            return None
        if any(value and told.get(key, "") != value for key, value in given.items()):
            return None
        alone = any(value and not given[key] for key, value in told.items())
        return f"SRC_INSTANCE{_ELSE}" if alone else "SRC_INSTANCE"

    def _copied_below(self, filled: Sequence[Found]) -> str | None:
        """The same inside sequences, where the source may have it under another name."""
        told = {_told(each.element) for each in filled}
        if len(told) == 1 or filled[0].element.VR == "SQ":
            return None
        known = (
            _told(each.element) in self._of_sources[id(each.example.source)] for each in filled
        )
        return "SRC_INSTANCE" if all(known) else None

    def _presence(self, path: Path, source: str) -> str:
        found = self._found[path]
        above = self._found[path[:-1]] if len(path) > 1 else []
        parents = sum(len(each.element.value) for each in above) or len(self._examples)
        filled = [each for each in found if not _is_empty(each.element)]
        if len(found) == parents and (not filled or len(filled) == parents):
            return "ALWAYS" if filled else "EMPTY"
        if len(found) == parents:
            return f"ALWAYS; value {'SRC_COPY' if source == 'SRC_INSTANCE' else 'CONDITIONAL'}"
        if source == "SRC_INSTANCE":
            return "SRC_COPY"
        condition = CONDITIONS.get(keyword_for_tag(path[-1]), "")
        return f"CONDITIONAL: {condition}" if condition else "CONDITIONAL"


_ELSE = "; else FIXED"


def unplaced(examples: Sequence[Example]) -> set[str]:
    """Keywords of top-level attributes that no module of this page names."""
    known = {word for words in MODULES.values() for word in words.split()} | {"ContentSequence"}
    return {element.keyword for each in examples for element in each.dataset} - known


def code_text(code: Dataset) -> str:
    """A code as (value, scheme, "meaning"), the notation of PS3.16."""
    value = code.get("CodeValue", code.get("LongCodeValue", ""))
    return f'({value}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def cell(value: str) -> str:
    """A value as the cell of a table, cut where it is long."""
    short = value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "..."
    return short.replace("|", "\\|").replace("\n", " ")


def _configured(filled: Sequence[Found]) -> bool:
    """Whether the profile alone changes it."""
    element = filled[0].element
    if element.VR == "UI" or element.keyword == "InstanceNumber":
        return False
    of_first = [each for each in filled if each.example.source is filled[0].example.source]
    default = {_told(each.element) for each in of_first if each.example.profile == FULL}
    other = {_told(each.element) for each in of_first if each.example.profile != FULL}
    return bool(default) and not other <= default


def _value(found: Sequence[Found], source: str) -> str:
    """The value if it is fixed; the few there are if it is one of few; the default."""
    element = found[0].element
    filled = [each for each in found if not _is_empty(each.element)]
    if source == "CONFIGURATION":
        filled = [each for each in filled if each.example.profile == FULL]
    elif source.endswith(_ELSE):
        filled = [each for each in filled if element.keyword not in each.example.source]
    elif source in {"SRC_INSTANCE", "EMPTY"} or element.VR in _BULK:
        return ""
    values = sorted({_told(each.element) for each in filled})
    few = len(values) <= _MOST_VALUES and (element.VR == "CS" or _codes(element))
    if source == "GENERATED" and not few:
        return ""
    shown = "; ".join(cell(value) for value in values[:_MOST_VALUES])
    return f"default: {shown}" if source == "CONFIGURATION" else shown


def _codes(element: DataElement) -> bool:
    """Whether it is a sequence of plain codes."""
    return element.VR == "SQ" and all("CodeMeaning" in item for item in element.value)


def _all_values(dataset: Dataset) -> set[str]:
    """Every value of a data set, at any depth, as text."""
    return {_told(element) for element in dataset.iterall() if element.VR not in {"SQ", *_BULK}}


def _told(element: DataElement | None) -> str:
    """A value as text, to compare and to show."""
    if element is None or _is_empty(element):
        return ""
    if element.VR in _BULK:
        return f"{len(element.value)} bytes"
    if element.VR == "SQ":
        return "; ".join(map(code_text, element.value)) if _codes(element) else repr(element.value)
    several = isinstance(element.value, MultiValue | list)
    return "\\".join(map(_plain, element.value)) if several else _plain(element.value)


def _plain(value: object) -> str:
    return f"{value:g}" if type(value) is float else str(value)


def _is_empty(element: DataElement) -> bool:
    value = element.value
    return value is None or (hasattr(value, "__len__") and len(value) == 0)
