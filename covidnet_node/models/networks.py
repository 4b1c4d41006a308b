"""Load the networks that the manifest describes, onto the device that the config names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from covidnet_node.case import Reason
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.models.distance import Distance
from covidnet_node.models.manifest import FILE, Manifest, WeightsFile
from covidnet_node.models.nets import (
    Classifier,
    LungNet,
    build_classifier,
    build_segmenter,
    to_device,
)


@dataclass(frozen=True, slots=True)
class Networks:
    """Everything that answers, loaded and ready; weights do not change after this."""

    manifest: Manifest
    device: torch.device
    segmenter: LungNet
    members: tuple[Classifier, ...]
    """In the manifest's order."""
    distance: Distance
    view: Distance | None
    """Of what the segmenter makes of frontal films; None for weights that are without."""


def load_networks(manifest: Manifest, folder: Path, device: str) -> Networks:
    """Build and fill the networks; `device` is auto, cpu or cuda:N.

    `manifest` must come from load_manifest(folder), which verified the files. Nothing is
    downloaded and nothing is unpickled. Raises BadConfig for an unknown architecture, for
    weights that do not fit it and for a device that is not there.
    """
    place = _device(device)
    return Networks(
        manifest=manifest,
        device=place,
        segmenter=_segmenter(manifest, folder, place),
        members=tuple(
            _member(folder, entry.architecture, entry.file, place) for entry in manifest.members
        ),
        distance=_distance(folder, manifest.distance.file),
        view=_distance(folder, manifest.view.file) if manifest.view else None,
    )


@contextmanager
def memory_verdict() -> Iterator[None]:
    """Turn a device that is out of memory into RetryLater(OUT_OF_MEMORY)."""
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise RetryLater(Reason.OUT_OF_MEMORY, "the GPU has too little free memory") from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it is torch's own error, or one of cuBLAS, cuDNN or the driver for the same."""
    words = str(error).lower()
    told = "alloc_failed" in words or "out of memory" in words
    return isinstance(error, torch.OutOfMemoryError) or told


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    place = torch.device(name)
    if place.type == "cuda":
        count = torch.cuda.device_count()
        if (place.index or 0) >= count:
            raise BadConfig(
                "node.toml", "analyze.device", f"{name} is not there: CUDA sees {count} device(s)"
            )
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return place


def _segmenter(manifest: Manifest, folder: Path, place: torch.device) -> LungNet:
    entry = manifest.segmenter
    try:
        network = build_segmenter(entry.architecture)
    except KeyError as error:
        raise _unknown(folder, entry.architecture) from error
    _filled(network, folder / entry.file.name, place)
    return network


def _member(folder: Path, architecture: str, file: WeightsFile, place: torch.device) -> Classifier:
    try:
        network = build_classifier(architecture)
    except KeyError as error:
        raise _unknown(folder, architecture) from error
    _filled(network, folder / file.name, place)
    return network


def _filled(network: nn.Module, path: Path, place: torch.device) -> None:
    tensors = _tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadConfig(
            str(path), "tensors", "do not fit the architecture the manifest names"
        ) from error
    to_device(network, place)


def _distance(folder: Path, file: WeightsFile) -> Distance:
    path = folder / file.name
    tensors = _tensors(path)
    try:
        return Distance(**tensors)
    except TypeError as error:
        raise BadConfig(str(path), "tensors", "are not those of a distance file") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """Half precision is for the disk only: networks run in single precision."""
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadConfig(str(path), "file", f"is not readable as safetensors: {error}") from error
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in stored.items()
    }


def _unknown(folder: Path, architecture: str) -> BadConfig:
    return BadConfig(
        str(folder / FILE), "architecture", f"{architecture!r} is not known to this program"
    )
