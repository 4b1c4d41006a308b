"""What a stage was begun with: it goes on with the same, or not at all.

A runs folder is used again and again. Without this, weights could ship under the name of data or
of a recipe that they never saw.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from covidnet_node.errors import BadConfig
from covidnet_node.training.dataset import Folder
from covidnet_node.training.recipe import Recipe, Stage

FILE = "begun.json"
CALIBRATED = "calibrated.txt"
CROPS = "crops.npz"
PREPARATION = 2
"""To be raised when imaging/prepare.py or borders.py change what is seen: no run goes on then."""
NO_CROPS = "run `covidnet-node train segmenter` first"


@dataclass(frozen=True, slots=True)
class Begun:
    """What shapes a stage, beside the program."""

    data_sha256: str
    recipe_sha256: str
    """Of what the recipe says of this stage."""
    crops_sha256: str
    """Of the lung crops; empty for the segmenter, which they come from."""


def begin_segmenter(data: Folder, runs: Path, recipe: Recipe) -> None:
    """Note in runs/segmenter what it is begun with; raises BadConfig if it was something else."""
    numbers = replace(recipe.segmenter, stage=_endless(recipe.segmenter.stage))
    said = digest_of_numbers(PREPARATION, recipe.seed, numbers)
    hold_to(runs / "segmenter" / FILE, Begun(data.sha256, said, ""))


def begin_stage(data: Folder, runs: Path, stage: str, name: str, recipe: Recipe) -> Path:
    """The same for `selfsupervise`, `pretrain` or `member` of a member; returns runs/STAGE-NAME."""
    numbers = {
        "selfsupervise": replace(recipe.selfsupervise, stage=_endless(recipe.selfsupervise.stage)),
        "pretrain": _endless(recipe.pretrain),
        "member": _endless(recipe.classifier),
    }[stage]
    folder = runs / f"{stage}-{name}"
    said = digest_of_numbers(recipe.seed, recipe.member(name), recipe.crop, numbers)
    hold_to(folder / FILE, Begun(data.sha256, said, digest_of_file(runs / CROPS)))
    return folder


def note_calibration(data: Folder, runs: Path, recipe: Recipe) -> None:
    """Note in runs/calibrated.txt what calibration and view were just fitted on."""
    (runs / CALIBRATED).write_text(_calibrated_on(data, runs, recipe))


def check_calibration(data: Folder, runs: Path, recipe: Recipe) -> None:
    """Raise BadConfig if they were fitted on other networks, films or numbers than these."""
    file = runs / CALIBRATED
    if not file.exists() or file.read_text() != _calibrated_on(data, runs, recipe):
        remedy = "calibration and view are of something else: run `covidnet-node train calibrate`"
        raise BadConfig(str(file), "runs", remedy)


def _calibrated_on(data: Folder, runs: Path, recipe: Recipe) -> str:
    folders = ["segmenter", *(f"member-{member.name}" for member in recipe.members)]
    networks = [digest_of_file(runs / folder / "best.pt") for folder in folders]
    numbers = (PREPARATION, data.sha256, recipe.seed, recipe.view, recipe.limits)
    return digest_of_numbers(*numbers, digest_of_file(runs / CROPS), networks)


def _endless(stage: Stage) -> Stage:
    """Without the limit of epochs: a stage may go on for longer, as with more minutes."""
    return replace(stage, epochs=0)


def hold_to(file: Path, said: object) -> None:
    """Write a dataclass into a file, or check that the one there is the same; raises BadConfig."""
    adapter = TypeAdapter(type(said))
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(adapter.dump_json(said, indent=1))
        return
    try:
        begun = adapter.validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadConfig(str(file), "file", "cannot be read; remove the folder") from error
    if begun != said:
        remedy = "was begun with another recipe, data or option; remove it to begin anew"
        raise BadConfig(str(file.parent), file.stem, remedy)


def digest_of_numbers(*parts: object) -> str:
    """SHA-256 of dataclasses and plain values."""
    return hashlib.sha256(repr([*parts]).encode()).hexdigest()


def digest_of_file(file: Path) -> str:
    """SHA-256; raises BadConfig where there are no crops yet."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise BadConfig(str(file), "runs", f"cannot be read: {NO_CROPS}") from error
