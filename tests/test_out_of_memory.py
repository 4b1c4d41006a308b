"""A GPU without memory for an image: once more, then the CPU, in the same worker."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor, nn

from covidnet_node.case import Analysis, Outcome, Reason
from covidnet_node.config import Analyze
from covidnet_node.errors import RetryLater
from covidnet_node.look import Picture, look
from covidnet_node.models.manifest import Manifest
from covidnet_node.models.networks import Networks, load_networks
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.service import medicine as medicine_room
from covidnet_node.service.medicine import Medicine, open_medicine


def full(network: nn.Module, times: int) -> nn.Module:
    """The same segmenter on a device that is full so many times."""
    crowded: Any = copy.deepcopy(network)
    left = iter(range(times))

    def run(images: Tensor) -> Any:
        if next(left, None) is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return type(network).with_view(crowded, images)  # type: ignore[attr-defined]

    crowded.with_view = run
    return crowded  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def medicine() -> Iterator[Medicine]:
    before = torch.get_num_threads()
    yield open_medicine(Analyze(threads=1), "cpu")
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def picture() -> Picture:
    return look(phantom_dataset(1, rows=256, columns=256))


@pytest.fixture(scope="module")
def expected(medicine: Medicine, picture: Picture) -> Analysis:
    return medicine.analyze(picture)


def crowded(medicine: Medicine, times: int) -> tuple[Medicine, list[str]]:
    """The same networks as if on a GPU that is full so many times, and a log of spares loaded."""
    loaded: list[str] = []

    def spare():
        loaded.append("cpu")
        return medicine.networks

    segmenter: Any = full(medicine.networks.segmenter, times)
    networks = replace(medicine.networks, segmenter=segmenter)
    return replace(medicine, networks=networks, spare=spare), loaded


@pytest.mark.parametrize(("times", "spares"), [(1, []), (2, ["cpu"])])
def test_the_answer_is_the_same(
    medicine: Medicine, picture: Picture, expected: Analysis, times: int, spares: list[str]
) -> None:
    busy, loaded = crowded(medicine, times)
    analysis = busy.analyze(picture)
    assert loaded == spares
    assert analysis.outcome is not Outcome.NOT_ANALYZED
    assert analysis.probabilities == expected.probabilities


def test_without_a_spare_the_image_waits(medicine: Medicine, picture: Picture) -> None:
    busy, _ = crowded(medicine, 3)
    with pytest.raises(RetryLater) as caught:
        replace(busy, spare=None).analyze(picture)
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_a_cpu_without_memory_is_told_too(medicine: Medicine, picture: Picture) -> None:
    busy, _ = crowded(medicine, 9)
    with pytest.raises(RetryLater) as caught:
        replace(busy, spare=lambda: busy.networks).analyze(picture)
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_a_gpu_without_memory_for_the_networks_means_the_cpu(
    monkeypatch: pytest.MonkeyPatch, picture: Picture, expected: Analysis
) -> None:
    def load(manifest: Manifest, folder: Path, device: str) -> Networks:
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return load_networks(manifest, folder, device)

    monkeypatch.setattr(medicine_room, "load_networks", load)
    with capture_logs() as lines:
        opened = open_medicine(Analyze(threads=1, device="cuda:0"), "cuda:0")
    assert "GPU_out_of_memory_working_on_the_CPU" in {line["event"] for line in lines}
    assert opened.spare is None
    assert opened.analyze(picture).probabilities == expected.probabilities
