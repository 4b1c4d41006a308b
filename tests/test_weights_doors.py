"""Weights are data: whatever stands in their files, nothing of it is executed."""

import hashlib
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from covidnet_node.errors import BadConfig
from covidnet_node.models.manifest import load_manifest
from covidnet_node.models.networks import load_networks
from tests.tiny_medicine import tiny_weights

FILE = "member-b.safetensors"


class Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return Path.touch, (self.trace,)


@pytest.fixture(scope="module")
def weights(module_path: Path) -> Path:
    return tiny_weights(module_path / "tiny")


@pytest.fixture
def copy(weights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights, tmp_path / "weights"))


def vouch_for(folder: Path) -> None:
    """Put the file's own hash into the manifest."""
    manifest = folder / "manifest.toml"
    lines = manifest.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if FILE in line)
    sha256 = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    assert lines[at + 1].startswith("sha256")
    lines[at + 1] = f'sha256 = "{sha256}"'
    manifest.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_a_pickle_is_refused_even_if_the_manifest_vouches_for_it(
    copy: Path, tmp_path: Path, by: str
) -> None:
    trace = tmp_path / "executed"
    if by == "pickle":
        (copy / FILE).write_bytes(pickle.dumps(Bomb(trace)))
    else:
        torch.save({"weights": Bomb(trace)}, copy / FILE)
    vouch_for(copy)
    with pytest.raises(BadConfig):
        load_networks(load_manifest(copy), copy, "cpu")
    assert not trace.exists()


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, (2**63).to_bytes(8, "little"), b"\x08" + b"\0" * 7 + b"{" * 8]
)
def test_a_file_that_lies_about_its_length_is_refused(copy: Path, data: bytes) -> None:
    (copy / FILE).write_bytes(data)
    vouch_for(copy)
    with pytest.raises(BadConfig):
        load_networks(load_manifest(copy), copy, "cpu")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/hostname", "..", "."])
def test_no_name_leads_out_of_the_folder(copy: Path, name: str) -> None:
    manifest = copy / "manifest.toml"
    manifest.write_text(manifest.read_text().replace(f'file = "{FILE}"', f'file = "{name}"'))
    with pytest.raises(BadConfig):
        load_manifest(copy)


def test_a_link_counts_by_what_is_in_it(copy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (copy / FILE).rename(elsewhere)
    (copy / FILE).symlink_to(elsewhere)
    load_networks(load_manifest(copy), copy, "cpu")
    elsewhere.write_bytes(elsewhere.read_bytes()[:-1] + b"\0")
    with pytest.raises(BadConfig, match="sha256"):
        load_manifest(copy)
