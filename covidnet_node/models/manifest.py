"""The weights manifest: what the networks are, what they expect and how far they are trusted.

Read and verified before a single tensor is loaded, without torch, so that the listener, `check`
and the reports can name the weights. A file that is not the one the manifest describes refuses
to start. Thresholds live here, never in code or site config.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from covidnet_node.case import Algorithm, CropRecipe
from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import CLASSES

FILE = "manifest.toml"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A safetensors file beside the manifest."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class SegmenterEntry:
    """The lung segmenter."""

    architecture: str
    file: WeightsFile
    side: int
    """Pixels of the square it sees."""


@dataclass(frozen=True, slots=True)
class LungLimits:
    """What counts as two lungs that can be read; shares of the segmenter's square unless said."""

    threshold: float
    """Probability at and above which a pixel is lung."""
    least_area: float
    """Of both lungs."""
    least_lung: float
    """Area of the smaller lung: less is a lung missing."""
    most_bridge: float
    """Height of the mask where the lungs are nearest, by its greatest height: one, cut in two."""
    most_on_border: float
    """Share of the square's border that is lung: cut off."""
    least_trust: float
    """Mean probability inside the mask times the more ragged lung's solidity, about 0 to 1."""


@dataclass(frozen=True, slots=True)
class MemberEntry:
    """One network of the ensemble."""

    name: str
    architecture: str
    file: WeightsFile
    weight: float
    """In the ensemble's mean; the members' weights sum to 1."""
    self_supervised: bool = False
    """Whether its trunk first learned to restore masked films, without labels."""


@dataclass(frozen=True, slots=True)
class EnsembleEntry:
    """How the members' answers become one."""

    temperature: float
    """Divides every member's logits before softmax."""
    covid19_threshold: float
    least_confidence: float
    """Below this probability of the called class there is no conclusion."""
    most_disagreement: float
    """Half the L1 distance between members above which there is no conclusion."""
    calibration: str
    """In a few words, for reports."""


@dataclass(frozen=True, slots=True)
class DistanceEntry:
    """How far an image is from the training data: by the members, or by the segmenter's view."""

    file: WeightsFile
    limit: float
    """Score, 0 to 1, above which there is no conclusion, or no answer at all."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure and exactly how it was measured."""

    name: str
    value: float
    measured: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of weights/manifest.toml."""

    name: str
    version: str
    provisional: bool
    notice: str
    """What a reader of a report must know of these weights; empty if nothing."""
    licence: str
    sources: tuple[str, ...]
    data_sha256: str
    code_version: str
    segmenter: SegmenterEntry
    lungs: LungLimits
    crop: CropRecipe
    members: tuple[MemberEntry, ...]
    ensemble: EnsembleEntry
    distance: DistanceEntry
    view: DistanceEntry | None
    """None for weights that cannot tell a frontal chest film by its looks."""
    metrics: tuple[Metric, ...]
    digest: str
    """SHA-256 of the manifest file, hex: it covers every weight through its hash."""

    @property
    def algorithm(self) -> Algorithm:
        """The identity that reports name."""
        return Algorithm(
            name=self.name,
            version=self.version,
            digest=self.digest,
            covid19_threshold=self.ensemble.covid19_threshold,
            calibration=self.ensemble.calibration,
            notice=self.notice,
        )


def weights_folder(configured: Path | None) -> Path:
    """The configured folder, or the weights that came with the program; raises BadConfig.

    In an installed wheel they lie inside the package, in a checkout beside it.
    """
    if configured is not None:
        return configured
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / FILE).is_file():
            return folder
    raise BadConfig(
        str(package / "weights" / FILE),
        "file",
        "does not exist; name a weights folder in [analyze] weights, or train and export one",
    )


def load_manifest(folder: Path) -> Manifest:
    """Read manifest.toml and verify every file it names; raises BadConfig.

    Nothing is trusted by name: each file's SHA-256 must be the manifest's.
    """
    path = folder / FILE
    try:
        content = path.read_bytes()
        raw = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise BadConfig(str(path), "file", f"cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(str(path), "file", f"is not valid TOML: {error}") from error
    manifest = _manifest(path, raw, hashlib.sha256(content).hexdigest())
    for key, file in _files(manifest):
        _verify(folder / file.name, path, key, file)
    return manifest


def _manifest(path: Path, raw: Mapping[str, Any], digest: str) -> Manifest:
    if raw.get("format") != FORMAT:
        raise BadConfig(
            str(path), "format", f"is {raw.get('format')!r}; this program reads format {FORMAT}"
        )
    if tuple(raw.get("classes", ())) != CLASSES:
        raise BadConfig(str(path), "classes", f"must be {list(CLASSES)}, in this order")
    try:
        return Manifest(
            name=raw["name"],
            version=raw["version"],
            provisional=raw["provisional"],
            notice=raw["notice"],
            licence=raw["licence"],
            sources=tuple(raw["sources"]),
            data_sha256=raw["data_sha256"],
            code_version=raw["code_version"],
            segmenter=SegmenterEntry(**_with_file(raw["segmenter"])),
            lungs=_lungs(raw["lungs"]),
            crop=CropRecipe(**raw["crop"]),
            members=tuple(MemberEntry(**_with_file(member)) for member in raw["member"]),
            ensemble=EnsembleEntry(**raw["ensemble"]),
            distance=DistanceEntry(**_with_file(raw["distance"])),
            view=_view(raw),
            metrics=tuple(Metric(**metric) for metric in raw.get("metric", ())),
            digest=digest,
        )
    except KeyError as error:
        raise BadConfig(str(path), str(error.args[0]), "is missing; export the weights") from error
    except TypeError as error:
        raise BadConfig(str(path), "keys", f"are not this program's: {error}") from error


def _lungs(table: Mapping[str, Any]) -> LungLimits:
    """Older weights name limits that the view has made needless; they are passed over."""
    return LungLimits(**{field.name: table[field.name] for field in fields(LungLimits)})


def _view(raw: Mapping[str, Any]) -> DistanceEntry | None:
    """Optional: weights exported before it load, and judge the lungs' outline alone."""
    return DistanceEntry(**_with_file(raw["view"])) if "view" in raw else None


def _with_file(table: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in table.items() if key not in {"file", "sha256"}}
    return rest | {"file": WeightsFile(table["file"], table["sha256"])}


def _files(manifest: Manifest) -> tuple[tuple[str, WeightsFile], ...]:
    members = tuple((f"member {entry.name}", entry.file) for entry in manifest.members)
    return (
        ("segmenter", manifest.segmenter.file),
        *members,
        ("distance", manifest.distance.file),
        *((("view", manifest.view.file),) if manifest.view else ()),
    )


def _verify(file: Path, manifest: Path, key: str, expected: WeightsFile) -> None:
    if Path(expected.name).name != expected.name:
        raise BadConfig(str(manifest), f"{key}.file", "must be a name beside the manifest")
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadConfig(str(file), "file", f"cannot be read: {error.strerror}") from error
    if found != expected.sha256:
        raise BadConfig(
            str(file),
            "sha256",
            "is not the file its manifest describes; restore the weights folder as a whole",
        )
