"""Write the weights folder that the node runs: safetensors in half precision and a manifest."""

import copy
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

import covidnet_node
from covidnet_node.intended_use import CLASSES
from covidnet_node.models.classify import member_outputs
from covidnet_node.models.manifest import (
    FILE,
    FORMAT,
    LungLimits,
    Manifest,
    Metric,
    load_manifest,
)
from covidnet_node.models.nets import Classifier
from covidnet_node.models.networks import Networks
from covidnet_node.training.begun import begin_segmenter, begin_stage, check_calibration
from covidnet_node.training.calibrate import Calibration, distance_tensors, load_calibration
from covidnet_node.training.classifier import load_member, was_self_supervised
from covidnet_node.training.crops import load_crops, prepared
from covidnet_node.training.dataset import Folder, Split
from covidnet_node.training.evaluation.evaluation import Order, evaluate
from covidnet_node.training.evaluation.goals import Goal
from covidnet_node.training.lungs import load_lung_limits
from covidnet_node.training.recipe import SHIPPED, Recipe
from covidnet_node.training.view import load_view

HALF_PRECISION_LIMIT = 1e-3
"""Largest change of a probability that storing weights in half precision may cause."""

TRIED = 256
"""Crops, from all over the data folder, that tell whether half precision will do."""

LICENCE = (
    "Non-commercial research only. Trained on public images under mixed terms, some of them "
    "non-commercial (CC BY-NC-SA, RSNA challenge); see sources."
)
SOURCES = (
    "Cohen et al., covid-chestxray-dataset: per image CC BY, CC BY-NC-SA, CC BY-NC-ND or none",
    "COVID-CXNet (Haghanifar et al.): CC BY 4.0, single images from their publishers",
    "COVID-19 image repository, Hannover Medical School: CC BY 3.0",
    "Kermany et al. 2018, pediatric chest X-rays (pretraining only): CC BY 4.0",
    "NIH ChestX-ray14 (Wang et al. 2017): free use with credit to the NIH Clinical Center",
    "COVID-19 Radiography Database (Chowdhury 2020, Rahman 2021): research use",
    "NLM Shenzhen set: research use; masks (Stirenko et al.) CC BY-NC-SA 4.0",
    "Lung outlines of Cohen's images: V7 Labs and GeneralBlockchain, CC BY 4.0",
)


def export_weights(
    data: Folder,
    runs: Path,
    folder: Path,
    recipe: Recipe,
    metrics: tuple[Metric, ...] = (),
) -> Manifest:
    """Write everything the node needs into `folder` and read it back as the node would.

    A member is stored in half precision only if that changes none of its probabilities by more
    than 1e-3. The segmenter never is: where the outline moves, so do the crop and its gray scale,
    and with them the probabilities (0.0035 were seen). Raises BadConfig if they were trained or
    calibrated with other data or another recipe than these, which the manifest names.
    """
    begin_segmenter(data, runs, recipe)
    for member in recipe.members:
        begin_stage(data, runs, "member", member.name, recipe)
    check_calibration(data, runs, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    calibration, view, limits = load_calibration(runs), load_view(runs), load_lung_limits(runs)
    state = torch.load(runs / "segmenter" / "best.pt", weights_only=True)
    files = {"segmenter": _write(folder / "segmenter.safetensors", state)}
    lungs = load_crops(runs).lungs
    crops = prepared(lungs[:: max(1, len(lungs) // TRIED)])
    for member in recipe.members:
        network = load_member(runs, member.name, recipe)
        path = folder / f"member-{member.name.lower()}.safetensors"
        files[member.name] = _write(path, _shipped(network, crops, calibration.temperature))
        files[member.name]["self_supervised"] = was_self_supervised(runs, member.name)
    tensors = distance_tensors(calibration.distance)
    files["distance"] = _write(folder / "distance.safetensors", tensors)
    files["view"] = _write(folder / "view.safetensors", distance_tensors(view))
    text = _manifest(data, limits, recipe, calibration, files, metrics)
    (folder / FILE).write_text(text, encoding="utf-8")
    return load_manifest(folder)


def figures_of(data: Folder, networks: Networks, recipe: Recipe) -> tuple[Metric, ...]:
    """The goals of `covidnet-node evaluate` on the test split, for the manifest.

    Empty for a folder without test films.
    """
    if not any(film.split is Split.TEST for film in data.films):
        return ()
    split = Split.TEST.value
    order = Order(data.path, split, None, "covidnet-node train export", datetime.now(UTC))
    found = evaluate(order, networks, None, Console(stderr=True), recipe.threads).evaluation
    told = f"{found.about.films} films of split {split}"
    return tuple(metric for goal in found.goals for metric in _metric(goal, told))


def _metric(goal: Goal, told: str) -> tuple[Metric, ...]:
    """Nothing where these films cannot tell."""
    value = goal.measured.value
    if value is None:
        return ()
    words = f"{goal.measured.words()}; goal: {goal.aim}; {told}, 95 % interval by patient"
    return (Metric(goal.what, round(value, 4), words),)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Save, and return the manifest's two keys of the file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels in half precision; biases and batch statistics are small and need their digits."""
    return {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in state.items()}


def _shipped(
    network: Classifier, crops: NDArray[np.float32], temperature: float
) -> dict[str, Tensor]:
    """The member's weights, halved if its probabilities allow."""
    state: dict[str, Tensor] = network.state_dict()
    rounded = copy.deepcopy(network)
    rounded.load_state_dict(_halved(state))
    exact, near = (
        torch.softmax(member_outputs([member], crops, torch.device("cpu"))[0] / temperature, -1)
        for member in (network, rounded)
    )
    return _halved(state) if float((exact - near).abs().max()) <= HALF_PRECISION_LIMIT else state


def _manifest(
    data: Folder,
    limits: LungLimits,
    recipe: Recipe,
    calibration: Calibration,
    files: Mapping[str, dict[str, object]],
    metrics: tuple[Metric, ...],
) -> str:
    head = {"format": FORMAT, "classes": list(CLASSES)} | asdict(recipe.label)
    head |= {
        "licence": LICENCE,
        "sources": list(SOURCES),
        "data_sha256": data.sha256,
        "code_version": _code_version(),
    }
    segmenter = {"architecture": recipe.segmenter.architecture, "side": recipe.segmenter.side}
    ensemble = {
        "temperature": calibration.temperature,
        "covid19_threshold": calibration.covid19_threshold,
        "least_confidence": recipe.limits.least_confidence,
        "most_disagreement": calibration.most_disagreement,
        "calibration": "one temperature on validation data",
    }
    distance = files["distance"] | {"limit": recipe.limits.distance_limit}
    members = [
        {"name": member.name, "architecture": member.architecture, "weight": weight}
        | files[member.name]
        for member, weight in zip(recipe.members, _equal(len(recipe.members)), strict=True)
    ]
    parts = [
        "# Written by `covidnet-node train export`. Every file is verified by its hash at start.",
        _table("", head),
        _table("[segmenter]", segmenter | files["segmenter"]),
        _table("[lungs]", asdict(limits)),
        _table("[crop]", asdict(recipe.crop)),
        *(_table("[[member]]", member) for member in members),
        _table("[ensemble]", ensemble),
        _table("[distance]", distance),
        _table("[view]", files["view"] | {"limit": recipe.view.limit}),
        *(_table("[[metric]]", asdict(metric)) for metric in metrics),
    ]
    return "\n\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


def _code_version() -> str:
    """Of the package, and the beginning of a SHA-256 of all its sources and the recipe."""
    package = Path(covidnet_node.__file__).parent
    files = sorted([*package.rglob("*.py"), SHIPPED])
    parts = [f"{path.relative_to(package)}:{path.read_text('utf-8')}" for path in files]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{importlib.metadata.version('covidnet-node')}+{digest[:12]}"


def _equal(count: int) -> list[float]:
    return [1.0 / count] * count


def _table(heading: str, values: Mapping[str, object]) -> str:
    """A TOML table of plain values: JSON's scalars and lists are TOML's."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join([heading, *lines] if heading else lines)
