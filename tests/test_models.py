"""The weights manifest, the networks, segmentation and classification."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from covidnet_node.case import Reason
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.imaging.prepare import segmenter_input
from covidnet_node.models.classify import classify, vector
from covidnet_node.models.manifest import load_manifest, weights_folder
from covidnet_node.models.nets import build_segmenter
from covidnet_node.models.networks import load_networks
from covidnet_node.models.segment import judge_lungs, segment
from covidnet_node.phantom.film import draw_phantom
from tests.tiny_medicine import DarkIsLung, drawn_chest, sighted, tiny_weights

LIMITS = load_manifest(weights_folder(None)).lungs


@pytest.fixture(scope="module")
def weights(module_path):
    return tiny_weights(module_path / "tiny")


@pytest.fixture
def copy(weights, tmp_path):
    return shutil.copytree(weights, tmp_path / "weights")


def change(folder, old, new):
    path = folder / "manifest.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_manifest_names_the_algorithm(weights):
    algorithm = load_manifest(weights).algorithm
    assert (algorithm.name, algorithm.version) == ("Tiny", "0.0-tiny")
    assert len(algorithm.digest) == 64
    assert algorithm.notice == "For tests only"


def test_any_change_of_the_manifest_is_another_algorithm(weights, copy):
    change(copy, "For tests only", "For tests alone")
    assert load_manifest(copy).algorithm.digest != load_manifest(weights).algorithm.digest


def test_a_file_that_is_not_the_manifests_refuses(copy):
    file = copy / "member-b.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadConfig, match=r"member-b\.safetensors: sha256"):
        load_manifest(copy)


def test_a_missing_file_refuses(copy):
    (copy / "distance.safetensors").unlink()
    with pytest.raises(BadConfig, match=r"distance\.safetensors"):
        load_manifest(copy)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("format = 1", "format = 2", "format"),
        ('"covid19", "pneumonia"', '"pneumonia", "covid19"', "classes"),
        ("temperature =", "temprature =", "temprature"),
        ("least_trust = ", "least_trust = = ", "TOML"),
        ("[crop]", "[cropped]", "crop"),
        ('file = "segmenter.safetensors"', 'file = "../segmenter.safetensors"', "beside"),
    ],
)
def test_a_wrong_manifest_is_named(copy, old, new, complaint):
    change(copy, old, new)
    with pytest.raises(BadConfig, match=complaint):
        load_manifest(copy)


def test_no_manifest_at_all(tmp_path):
    with pytest.raises(BadConfig, match="cannot be read"):
        load_manifest(tmp_path)
    assert weights_folder(tmp_path) == tmp_path


def test_the_manifest_is_read_without_torch():
    program = "import sys, covidnet_node.models.manifest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("known", ["unet-regnety_002", "regnet_y_400mf"])
def test_an_unknown_architecture_refuses(copy, known):
    change(copy, known, "vgg99")
    with pytest.raises(BadConfig, match="vgg99"):
        load_networks(load_manifest(copy), copy, "cpu")


def test_weights_of_another_architecture_refuse(copy):
    change(copy, "regnet_y_400mf", "mobilenet_v3_large")
    with pytest.raises(BadConfig, match="do not fit"):
        load_networks(load_manifest(copy), copy, "cpu")


@pytest.mark.skipif(torch.cuda.device_count() > 8, reason="has that many GPUs")
def test_a_gpu_that_is_not_there_refuses(weights):
    with pytest.raises(BadConfig, match="cuda:9"):
        load_networks(load_manifest(weights), weights, "cuda:9")


def test_the_shipped_weights_are_small_enough_to_be_sent_along():
    files = list(weights_folder(None).glob("*.safetensors"))
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) < 30e6


def probabilities_of(mask):
    return np.stack([np.where(mask, 0.97, 0.02)] * 2).astype(np.float32)


def test_two_lungs_are_plausible():
    _, mask = drawn_chest(96, 96)
    lungs = judge_lungs(probabilities_of(mask), LIMITS)
    assert lungs.plausible, lungs.remark
    assert lungs.mask.mean() == pytest.approx(mask.mean())


def test_crumbs_and_holes_are_cleaned():
    _, mask = drawn_chest(96, 96)
    spoiled = mask.copy()
    spoiled[2:5, 2:5] = True
    spoiled[48:52, 24:28] = False
    assert np.array_equal(judge_lungs(probabilities_of(spoiled), LIMITS).mask, mask)


def test_lungs_that_touch_are_still_two():
    _, mask = drawn_chest(96, 96)
    joined = mask.copy()
    joined[40:48] = mask.any(axis=0)[None]
    joined[40:48, 24:72] = True
    assert judge_lungs(probabilities_of(joined), LIMITS).plausible


def _ellipse(x, y, wide, high):
    down, across = np.mgrid[0:96, 0:96] / 96
    return ((across - x) / wide) ** 2 + ((down - y) / high) ** 2 < 1


IMPLAUSIBLE = {
    "nothing": np.zeros((96, 96), np.bool_),
    "everything": np.ones((96, 96), np.bool_),
    "one lung": _ellipse(0.3, 0.5, 0.15, 0.35),
    "a small second": _ellipse(0.3, 0.5, 0.17, 0.35) | _ellipse(0.75, 0.4, 0.05, 0.08),
    "tiny": _ellipse(0.3, 0.5, 0.07, 0.12) | _ellipse(0.7, 0.5, 0.07, 0.12),
    "at the edges": _ellipse(0.0, 0.5, 0.2, 0.5) | _ellipse(1.0, 0.5, 0.2, 0.5),
    "ragged": _ellipse(0.3, 0.5, 0.15, 0.35) & (np.indices((96, 96))[0] % 12 < 4)
    | _ellipse(0.3, 0.5, 0.03, 0.35)
    | _ellipse(0.7, 0.5, 0.15, 0.35),
}


@pytest.mark.parametrize("name", IMPLAUSIBLE)
def test_what_cannot_be_lungs_is_said_so(name):
    lungs = judge_lungs(probabilities_of(IMPLAUSIBLE[name]), LIMITS)
    assert not lungs.plausible
    assert lungs.remark


def test_doubt_is_said():
    _, mask = drawn_chest(96, 96)
    assert not judge_lungs(probabilities_of(mask) * 0.55, LIMITS).plausible


def test_segment_finds_what_was_drawn(weights):
    networks = sighted(weights)
    display, true = drawn_chest()
    found = segment(networks, segmenter_input(display, 64).image)
    assert found.plausible, found.remark
    assert found.mask.mean() == pytest.approx(true.mean(), abs=0.03)


class Glance(DarkIsLung):
    """Sees where the lungs are, and takes every film for what it is told to."""

    def __init__(self, seen):
        super().__init__()
        self.seen, self.shown = seen, None

    def with_view(self, images):
        self.shown = images
        return self(images), self.seen


def glancing(weights, *, far, turned_over=2e3):
    """Networks to which a film looks this far from a chest, as it lies and turned over."""
    networks = load_networks(load_manifest(weights), weights, "cpu")
    center, scale = networks.view.center, networks.view.scale
    seen = torch.stack([center + far * scale, center + turned_over * scale])
    manifest = replace(networks.manifest, lungs=LIMITS)
    return replace(networks, manifest=manifest, segmenter=Glance(seen))


def test_what_does_not_look_like_a_chest_is_said_so(weights):
    square = segmenter_input(drawn_chest()[0], 64).image
    usual = segment(glancing(weights, far=0.0), square)
    assert usual.plausible
    assert usual.strangeness < 0.5
    strange = segment(glancing(weights, far=1e3), square)
    assert strange.remark == "the image does not look like a frontal chest radiograph"
    assert strange.strangeness == 1.0
    assert not strange.plausible
    assert np.array_equal(strange.mask, usual.mask)


def test_a_film_that_looks_more_like_a_chest_turned_over_lies_upside_down(weights):
    square = segmenter_input(drawn_chest()[0], 64).image
    for far in (1e-3, 1e3):
        networks = glancing(weights, far=far, turned_over=0.0)
        found = segment(networks, square)
        assert not found.plausible
        assert found.remark == "the film seems to be upside down"
        as_it_lies, turned_over = networks.segmenter.shown
        assert torch.equal(turned_over, as_it_lies.flip(-2))
        assert not torch.equal(turned_over, as_it_lies)


def test_a_film_that_looks_the_same_turned_over_is_let_through(weights):
    square = segmenter_input(drawn_chest()[0], 64).image
    assert segment(glancing(weights, far=0.1, turned_over=0.1), square).plausible


def test_what_is_no_chest_either_way_is_not_said_to_lie_upside_down(weights):
    square = segmenter_input(drawn_chest()[0], 64).image
    for far, turned_over in ((2e3, 1e3), (float("nan"), float("nan"))):
        found = segment(glancing(weights, far=far, turned_over=turned_over), square)
        assert found.remark == "the image does not look like a frontal chest radiograph"


def test_the_shipped_weights_refuse_a_phantom_turned_over():
    folder = weights_folder(None)
    networks = load_networks(load_manifest(folder), folder, "cpu")
    display = (draw_phantom(1).image >> 8).astype(np.uint8)
    side = networks.manifest.segmenter.side
    assert segment(networks, segmenter_input(display, side).image).plausible
    for turned in (display[::-1], np.rot90(display, 2)):
        assert not segment(networks, segmenter_input(turned.copy(), side).image).plausible


def test_what_is_wrong_with_the_lungs_is_said_first(weights):
    found = segment(glancing(weights, far=1e3), np.ones((64, 64), np.float32))
    assert found.remark == "no lungs were found"


def test_weights_without_a_view_judge_the_lungs_alone(copy):
    path = copy / "manifest.toml"
    head, tail = path.read_text().split("[view]")
    assert "[[metric]]" not in tail
    path.write_text(head)
    manifest = load_manifest(copy)
    networks = load_networks(manifest, copy, "cpu")
    assert manifest.view is networks.view is None
    assert segment(networks, np.full((64, 64), 0.5, np.float32)).strangeness == 0.0


def test_older_limits_of_the_lungs_are_passed_over(copy):
    change(copy, "[lungs]", "[lungs]\nmost_tilt = 0.16")
    manifest = load_manifest(copy)
    assert not hasattr(manifest.lungs, "most_tilt")


def test_a_view_is_taken_in_passing():
    torch.manual_seed(1)
    network = build_segmenter("unet-regnety_002").eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        logits, seen = network.with_view(images)
        assert torch.allclose(logits, network(images), atol=1e-5)
    assert seen.shape == (2, 576)


def test_classification_is_calibrated_and_repeatable(weights):
    networks = sighted(weights)
    crops = [np.random.default_rng(n).random((64, 64), np.float32) for n in range(3)]
    first, second = classify(networks, crops), classify(networks, crops)
    assert first == second
    for answer in first:
        parts = [vector(answer.probabilities), *(vector(m.probabilities) for m in answer.members)]
        assert all(part.sum() == pytest.approx(1.0, abs=1e-9) for part in parts)
        assert np.allclose(parts[0], np.mean(parts[1:], axis=0))
        assert answer.disagreement == pytest.approx(np.abs(parts[1] - parts[2]).sum() / 2)
        assert 0.0 <= answer.out_of_distribution <= 1.0
    assert [member.name for member in first[0].members] == ["A", "B"]
    assert classify(networks, []) == ()


def test_a_batch_answers_as_one_by_one(weights):
    networks = sighted(weights)
    crops = [np.random.default_rng(n).random((64, 64), np.float32) for n in range(3)]
    together = classify(networks, crops)
    alone = [classify(networks, [crop])[0] for crop in crops]
    for one, other in zip(together, alone, strict=True):
        assert vector(one.probabilities) == pytest.approx(vector(other.probabilities), abs=1e-5)


def test_far_from_training_scores_high(weights):
    networks = sighted(weights)
    checkers = np.indices((64, 64)).sum(axis=0).astype(np.float32) % 2
    assert classify(networks, [checkers])[0].out_of_distribution > 0.95


class Full(torch.nn.Module):
    def forward(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_full_gpu_means_later(weights):
    networks = replace(sighted(weights), segmenter=Full())
    with pytest.raises(RetryLater) as caught:
        segment(networks, np.zeros((64, 64), np.float32))
    assert caught.value.reason is Reason.OUT_OF_MEMORY
