"""Training: the rules of the data, one CPU step of every stage, resume, export."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from covidnet_node.cli import app
from covidnet_node.errors import BadConfig
from covidnet_node.models.manifest import load_manifest
from covidnet_node.models.nets import LUNG_AND_HEART, LUNG_FIELD, build_classifier
from covidnet_node.models.networks import load_networks
from covidnet_node.training import begun, stages
from covidnet_node.training.calibrate import load_calibration
from covidnet_node.training.classifier import load_member, share_outside, train_member
from covidnet_node.training.crops import cut_crops, load_crops
from covidnet_node.training.dataset import (
    LABELS,
    Split,
    balanced_weights,
    for_classes,
    for_pretraining,
    open_folder,
    with_masks,
)
from covidnet_node.training.export import export_weights
from covidnet_node.training.lungs import load_lung_limits
from covidnet_node.training.mix_styles import mixed_styles
from covidnet_node.training.recipe import load_recipe
from covidnet_node.training.segmenter import segmentation_loss, train_segmenter
from covidnet_node.training.view import fit_view, vary
from tests.tiny_medicine import (
    copy_runs,
    draw_folder,
    tiny_recipe,
    tiny_recipe_file,
    train_everything,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data, module_path):
    folder = module_path / "runs"
    train_everything(data, folder, tiny_recipe())
    return folder


def test_children_only_pretrain(data):
    assert {film.source for film in for_pretraining(data, Split.TRAIN)} >= {"kermany"}
    for split in Split:
        assert "kermany" not in {film.source for film in for_classes(data, split)}


def test_other_disease_is_never_normal(data):
    labels = {film.label for split in Split for film in for_classes(data, split)}
    assert labels == set(LABELS)
    assert "other" not in {film.label for film in for_pretraining(data, Split.TRAIN)}


def test_splits_stay_apart(data):
    sides = [{film.patient for film in for_classes(data, split)} for split in Split]
    assert all(a.isdisjoint(b) for i, a in enumerate(sides) for b in sides[i + 1 :])
    assert not sides[3]


def test_labels_are_drawn_alike_and_small_sources_more_often(data):
    films = for_classes(data, Split.TRAIN)
    mixed = (*films, *(replace(films[0], id=str(n), source="hannover") for n in range(8)))
    weights = balanced_weights(mixed)
    for label in LABELS:
        share = sum(w for w, film in zip(weights, mixed, strict=True) if film.label == label)
        assert share == pytest.approx(1 / 3)
    cohen, hannover = weights[0], weights[-1]
    assert cohen > hannover


def test_a_folder_without_manifest_is_named(tmp_path):
    with pytest.raises(BadConfig, match=r"manifest\.csv"):
        open_folder(tmp_path)
    (tmp_path / "manifest.csv").write_text("id,source\n1,cohen\n")
    with pytest.raises(BadConfig, match="patient_id"):
        open_folder(tmp_path)


def test_a_film_that_was_cropped_by_hand_counts_once(data, tmp_path):
    header, *_ = (data.path / "manifest.csv").read_text().splitlines()
    names = header.split(",")
    for keys in (["covidcxnet/297", "radiography/COVID-852"], ["radiography/COVID-852"]):
        rows = [dict.fromkeys(names, "") | {"has_mask": "0", "split": "train"} for _ in keys]
        for row, key in zip(rows, keys, strict=True):
            row["source"], row["id"] = key.split("/")
        lines = [",".join(row[name] for name in names) for row in rows]
        (tmp_path / "manifest.csv").write_text("\n".join([header, *lines]))
        assert [film.key for film in open_folder(tmp_path).films] == keys[:1]


def test_a_wrong_recipe_is_named(tmp_path):
    path = tmp_path / "recipe.toml"
    with pytest.raises(BadConfig, match="cannot be read"):
        load_recipe(path)
    path.write_text("seed = 1\n")
    with pytest.raises(BadConfig, match="segmenter"):
        load_recipe(path)


def test_each_outline_style_teaches_what_it_knows():
    """lung+heart says nothing of the lung field inside its outline, only outside."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    image = torch.zeros(1, 1, 8, 8)

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(1, 2, 8, 8))

        def forward(self, _images):
            return self.logits

    for style, other, silent in (
        (1, LUNG_FIELD, mask[0, 0] == 1),
        (0, LUNG_AND_HEART, mask[0, 0] == 0),
    ):
        network = Fixed()
        segmentation_loss(network, (image, mask, torch.tensor([style]))).backward()
        gradient = network.logits.grad[0, other]
        assert (gradient[silent] == 0).all()
        assert (gradient[~silent] != 0).all()


def test_evidence_is_charged_for_where_it_lies():
    lungs = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    lungs[..., :32] = True
    left, right = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    left[..., :4], right[..., 4:] = 1.0, -2.0
    assert share_outside(left, lungs) == 0.0
    assert share_outside(right, lungs) == 1.0
    assert share_outside(left + right, lungs) == pytest.approx(2 / 3)
    assert share_outside(torch.zeros(2, 3, 8, 8), lungs) == 0.0


@pytest.mark.parametrize("member", load_recipe().members, ids=lambda member: member.name)
def test_logits_are_the_sum_of_what_the_places_say(member):
    torch.manual_seed(1)
    network = build_classifier(member.architecture).eval()
    films = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        logits, evidence = network.with_evidence(films)
        assert evidence.shape == (2, 3, 8, 8)
        assert torch.allclose(evidence.mean((2, 3)) + network.head.bias, logits, atol=1e-5)
        assert torch.allclose(network(films), logits, atol=1e-5)


def test_every_stage_steps_and_leaves_its_curve(runs):
    for stage in ("segmenter", "pretrain-A", "member-A", "pretrain-B", "member-B"):
        assert (runs / stage / "best.pt").is_file()
        assert len((runs / stage / "curve.csv").read_text().splitlines()) == 2


def test_crops_hold_nothing_from_outside(runs):
    crops = load_crops(runs)
    assert crops.ids
    assert (crops.lungs[~crops.inside] == 128).all()
    assert crops.whole.shape == crops.lungs.shape


def test_a_finished_run_is_not_trained_again(data, runs):
    before = (runs / "member-A" / "curve.csv").read_text()
    train_member(data, runs, "A", 1.0, tiny_recipe())
    assert (runs / "member-A" / "curve.csv").read_text() == before


def test_a_stopped_run_goes_on(data, tmp_path):
    recipe = tiny_recipe()
    train_segmenter(data, tmp_path, 1.0, recipe)
    stage = replace(recipe.segmenter.stage, epochs=2)
    longer = replace(recipe, segmenter=replace(recipe.segmenter, stage=stage))
    train_segmenter(data, tmp_path, 1.0, longer)
    lines = (tmp_path / "segmenter" / "curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2"]


def test_one_command_makes_the_weights_folder(data, tmp_path):
    """`make train`: every stage through its own door, an epoch each."""
    words = ["train", "all", "--data", str(data.path), "--runs", str(tmp_path / "runs")]
    words += ["--weights", str(tmp_path / "weights"), "--budget", "1"]
    words += ["--recipe", str(tiny_recipe_file(tmp_path / "recipe.toml"))]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    manifest = load_manifest(tmp_path / "weights")
    assert manifest.data_sha256 == data.sha256
    assert [member.self_supervised for member in manifest.members] == [True, True]
    assert load_networks(manifest, tmp_path / "weights", "cpu").segmenter is not None


def test_styles_are_mixed_in_training_only_and_only_in_the_block():
    torch.manual_seed(1)
    network = build_classifier("regnet_y_400mf")
    films = torch.rand(4, 1, 64, 64)
    with torch.no_grad():
        network.eval()
        before = network(films)
        with mixed_styles(network):
            assert torch.equal(network(films), before)
            network.trunk.stages.train()
            drawn = {round(float(network.trunk(films).std()), 5) for _ in range(12)}
            assert len(drawn) > 2
        plain = {round(float(network.trunk(films).std()), 5) for _ in range(3)}
    assert len(plain) == 1


def test_the_same_seed_trains_the_same_weights(data, tmp_path):
    recipe = tiny_recipe()
    for run in ("one", "two"):
        train_segmenter(data, tmp_path / run, 1.0, recipe)
    one, two = (torch.load(tmp_path / run / "segmenter" / "best.pt") for run in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_member_starts_from_its_pretraining(runs):
    taught = torch.load(runs / "pretrain-B" / "best.pt")
    fresh = build_classifier(tiny_recipe().member("B").architecture).state_dict()
    tuned = load_member(runs, "B", tiny_recipe()).state_dict()
    name = "trunk.stages.0.0.0.weight"
    assert (tuned[name] - taught[name]).abs().mean() < (tuned[name] - fresh[name]).abs().mean()


@pytest.mark.parametrize("member", load_recipe().members, ids=lambda member: member.name)
def test_films_are_told_apart_after_a_short_run(member):
    """In eval mode too: else validation scores chance and the first epoch is kept."""
    torch.manual_seed(1)
    network = build_classifier(member.architecture).train()
    films = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        for _ in range(120):
            in_training = network.pooled(films).std(dim=0).mean()
        assert network.eval().pooled(films).std(dim=0).mean() > 0.2 * in_training


def test_a_runs_folder_stays_with_its_data_and_recipe(data, runs, tmp_path):
    """Else weights could ship under the name of data that they never saw."""
    recipe = tiny_recipe()
    others = (
        (replace(data, sha256="another"), recipe),
        (data, replace(recipe, crop=replace(recipe.crop, margin=0.3))),
        (data, replace(recipe, seed=99)),
    )
    for folder, changed in others:
        with pytest.raises(BadConfig, match="begun with another"):
            train_member(folder, runs, "B", 1.0, changed)
        with pytest.raises(BadConfig, match="begun with another"):
            export_weights(folder, runs, tmp_path / "weights", changed)
    assert not (tmp_path / "weights").exists()


def test_what_was_learned_from_films_prepared_otherwise_is_not_gone_on_with(
    data, runs, monkeypatch
):
    monkeypatch.setattr(begun, "PREPARATION", 99)
    with pytest.raises(BadConfig, match="begun with another"):
        train_segmenter(data, runs, 1.0, tiny_recipe())


def test_crops_are_cut_again_only_if_what_they_are_made_of_has_changed(data, runs, tmp_path):
    shutil.copytree(runs / "segmenter", tmp_path / "segmenter")
    shutil.copy(runs / "lungs.json", tmp_path)
    recipe = tiny_recipe()
    first = cut_crops(data, tmp_path, recipe)
    before = (tmp_path / "crops.npz").stat().st_mtime_ns
    again = cut_crops(data, tmp_path, recipe)
    assert (tmp_path / "crops.npz").stat().st_mtime_ns == before
    assert np.array_equal(again.lungs, first.lungs)
    smaller = cut_crops(data, tmp_path, replace(recipe, crop=replace(recipe.crop, side=48)))
    assert smaller.lungs.shape[1:] == (48, 48)


def test_without_limits_nothing_is_exported(data, runs, tmp_path):
    """Not a part of it either: the folder may hold weights that a node runs."""
    copy = copy_runs(runs, tmp_path / "runs")
    (copy / "lungs.json").unlink()
    with pytest.raises(BadConfig, match=r"lungs\.json.*train segmenter"):
        export_weights(data, copy, tmp_path / "weights", tiny_recipe())
    assert not list(tmp_path.glob("weights/*.safetensors"))


@pytest.mark.parametrize("part", ["view", "limits"])
def test_what_was_calibrated_otherwise_is_not_exported(data, runs, tmp_path, part):
    recipe = tiny_recipe()
    other = {
        "view": replace(recipe.view, directions=recipe.view.directions + 1),
        "limits": replace(recipe.limits, disagreement_quantile=0.5),
    }
    changed = replace(recipe, **{part: other[part]})
    with pytest.raises(BadConfig, match="train calibrate"):
        export_weights(data, runs, tmp_path / "weights", changed)
    assert not (tmp_path / "weights").exists()


def test_too_few_films_teach_no_view(data, runs):
    few = replace(data, films=data.films[:4])
    with pytest.raises(BadConfig, match="5 frontal films"):
        fit_view(few, runs, tiny_recipe())


def test_the_view_is_taught_films_as_they_may_come():
    squares = torch.rand(10, 64, 64, generator=torch.Generator().manual_seed(1)).numpy()
    before = squares.copy()
    varied, again = (vary(squares, torch.Generator().manual_seed(2)) for _ in range(2))
    assert varied.shape == squares.shape
    assert np.array_equal(varied, again)
    assert np.array_equal(squares, before)
    assert np.array_equal(varied[6:], 1 - squares[6:])
    changed = (varied[:6] != squares[:6]).any(axis=(1, 2))
    assert changed[2:].all()
    assert 0 <= varied.min() <= varied.max() <= 1


def test_an_unknown_member_is_named(data, runs):
    with pytest.raises(BadConfig, match="'C'"):
        train_member(data, runs, "C", 1.0, tiny_recipe())


def test_calibration_is_sane(runs):
    found = load_calibration(runs)
    assert 0.1 < found.temperature < 8
    assert 0.333 <= found.covid19_threshold <= 0.5
    assert (found.distance.quantiles.diff() >= 0).all()


def test_exported_weights_load_and_are_measured(data, runs, tmp_path):
    recipe = tiny_recipe()
    manifest = stages.export(data.path, runs, tmp_path / "weights", recipe)
    assert manifest.data_sha256 == data.sha256
    assert manifest == load_manifest(tmp_path / "weights")
    load_networks(manifest, tmp_path / "weights", "cpu")
    assert manifest.lungs == load_lung_limits(runs)
    figures = {metric.name: metric for metric in manifest.metrics}
    assert 0.0 <= figures["lung Dice, lung-field"].value <= 1.0
    assert (
        "goal: at least 0.97; 10 films of split test" in figures["lung Dice, lung+heart"].measured
    )
    assert len(with_masks(data, Split.TEST)) == 6
    assert all(
        0.0 <= metric.value <= 1.0 for metric in manifest.metrics if "minus" not in metric.name
    )
