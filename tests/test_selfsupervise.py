"""Self-supervised pretraining: which films, which pixels, and that the member inherits."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from covidnet_node.models.nets import build_classifier
from covidnet_node.training import stages
from covidnet_node.training.classifier import load_member, pretrain_member
from covidnet_node.training.crops import load_crops, squares
from covidnet_node.training.dataset import Split, for_pretraining, for_selfsupervision
from covidnet_node.training.recipe import load_recipe
from covidnet_node.training.selfsupervise import (
    Autoencoder,
    restoring_loss,
    selfsupervise_member,
    share_restored,
    spoil,
)
from tests.tiny_medicine import draw_folder, tiny_recipe, train_everything


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data, module_path):
    folder = module_path / "runs"
    train_everything(data, folder, tiny_recipe())
    return folder


@pytest.fixture
def fresh(runs, tmp_path):
    """A runs folder in which only the lungs have been cut out."""
    shutil.copy(runs / "crops.npz", tmp_path)
    return tmp_path


@pytest.fixture
def masking():
    return load_recipe().selfsupervise


def half_inside(count=3, side=64):
    """Random squares whose right half is outside: mid-gray, as crops are."""
    generator = torch.Generator().manual_seed(1)
    inside = torch.zeros(count, 1, side, side, dtype=torch.bool)
    inside[..., : side // 2] = True
    images = torch.rand(count, 1, side, side, generator=generator)
    return torch.where(inside, images, 0.5), inside, generator


def longer(recipe, epochs):
    stage = replace(recipe.selfsupervise.stage, epochs=epochs)
    return replace(recipe, selfsupervise=replace(recipe.selfsupervise, stage=stage))


def epochs_of(folder):
    return [line.split(",")[0] for line in (folder / "curve.csv").read_text().splitlines()[1:]]


def test_every_training_film_is_shown_whatever_its_label(data):
    films = for_selfsupervision(data)
    assert set(films) == {film for film in data.films if film.split is Split.TRAIN}
    assert {film.label for film in films} >= {"other", "covid", "pneumonia", "normal"}
    assert "kermany" in {film.source for film in films}


def test_films_of_other_splits_change_nothing(data, fresh):
    """Blackened validation and test films: the same trunk, bit for bit, and the same curve."""
    recipe = tiny_recipe()
    scores = [selfsupervise_member(data, fresh, name, 1.0, recipe) for name in "AB"]
    crops = load_crops(fresh)
    splits = {film.key: film.split for film in data.films}
    train = np.array([splits[name] is Split.TRAIN for name in crops.ids])
    assert 0 < train.sum() < len(train)
    keep = train[:, None, None]
    other = fresh / "other"
    other.mkdir()
    np.savez(
        other / "crops.npz",
        ids=np.array(crops.ids),
        lungs=crops.lungs * keep,
        inside=crops.inside & keep,
        outline=crops.outline & keep,
        whole=crops.whole * keep,
    )
    assert scores == [selfsupervise_member(data, other, name, 1.0, recipe) for name in "AB"]
    for name in "AB":
        one, two = (torch.load(f / f"selfsupervise-{name}" / "best.pt") for f in (fresh, other))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_labels_are_not_used(data, fresh):
    recipe = tiny_recipe()
    blind = replace(data, films=tuple(replace(film, label="unknown") for film in data.films))
    (fresh / "blind").mkdir()
    shutil.copy(fresh / "crops.npz", fresh / "blind")
    assert selfsupervise_member(data, fresh, "B", 1.0, recipe) == selfsupervise_member(
        blind, fresh / "blind", "B", 1.0, recipe
    )


def test_a_member_restores_the_pictures_of_its_pneumonia_pretraining(data, runs):
    crops = load_crops(runs)
    right = np.arange(crops.inside.shape[-1]) >= crops.inside.shape[-1] // 2
    crops = replace(crops, inside=crops.inside & right, outline=crops.outline & right)
    here = torch.device("cpu")
    for whole, pixels in ((True, crops.whole), (False, crops.lungs)):
        shown = squares(for_selfsupervision(data), crops, here, whole=whole)
        again = squares(for_pretraining(data, Split.TRAIN), crops, here, whole=whole)
        rows = [shown.films.index(film) for film in again.films]
        assert torch.equal(shown.images[rows], again.images)
        assert torch.equal(shown.masks[rows], again.masks)
        first = crops.ids.index(f"{shown.films[0].source}/{shown.films[0].id}")
        assert np.array_equal(shown.images[0, 0].numpy(), pixels[first])
        assert bool((shown.masks == 255).all()) is whole


def test_patches_are_grayed_out_inside_and_only_there(masking):
    images, inside, generator = half_inside()
    everywhere = torch.ones_like(inside)
    spoiled, hidden = spoil(images, everywhere, masking, generator)
    assert (spoiled[hidden] == 0.5).all()
    patches = round(masking.mask_share * (64 // masking.patch) ** 2)
    assert (hidden.sum(dim=(1, 2, 3)) == patches * masking.patch**2).all()
    grid = hidden.float().unfold(2, masking.patch, masking.patch).unfold(3, masking.patch, 16)
    assert set(grid.mean(dim=(-2, -1)).unique().tolist()) == {0.0, 1.0}
    spoiled, hidden = spoil(images, inside, masking, generator)
    assert not (hidden & ~inside).any()
    assert (spoiled[~inside] == images[~inside]).all()
    visible = inside & ~hidden
    assert (spoiled[visible] - images[visible]).std() == pytest.approx(masking.noise, rel=0.3)
    assert spoiled.min() >= 0
    assert spoiled.max() <= 1


def test_sides_that_are_no_multiple_of_the_patch_are_covered(masking):
    images = torch.full((2, 1, 70, 50), 0.25)
    everywhere = torch.ones_like(images, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    _, hidden = spoil(images, everywhere, replace(masking, mask_share=1.0), generator)
    assert hidden.all()
    _, hidden = spoil(images, everywhere, replace(masking, mask_share=0.0), generator)
    assert hidden.any()
    network = Autoencoder("mobilenet_v3_large").eval()
    assert network(images).shape == images.shape


class Fixed(nn.Module):
    """A network that answers one picture, and can be asked for its gradient."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(answer.clone())

    def forward(self, images):
        return self.answer


def test_only_masked_pixels_count(masking):
    images, inside, generator = half_inside()
    spoiled, hidden = spoil(images, inside, masking, generator)
    network = Fixed(torch.zeros_like(images))
    loss = restoring_loss(network, (spoiled, hidden, images))
    loss.backward()
    assert ((network.answer.grad != 0) == (hidden & (images != 0.5))).all()
    elsewhere = torch.where(hidden, images, 1.0 - images)
    assert torch.equal(loss, restoring_loss(network, (spoiled, hidden, elsewhere)))


def test_nothing_masked_is_no_error():
    blank = torch.zeros(1, 1, 32, 32)
    batch = (blank, torch.zeros_like(blank, dtype=torch.bool), blank)
    assert restoring_loss(Fixed(blank), batch) == 0


def test_the_score_is_one_for_the_truth_and_nothing_for_gray(masking):
    images, inside, generator = half_inside()
    spoiled, hidden = spoil(images, inside, masking, generator)
    batches = ((spoiled, hidden, images),)
    assert share_restored(Fixed((images - 0.5) / 0.25), batches) == pytest.approx(1.0)
    gray = torch.full_like(images, float((images[hidden].mean() - 0.5) / 0.25))
    assert share_restored(Fixed(gray), batches) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("architecture", ["mobilenet_v3_large", "regnet_y_400mf"])
def test_steps_lower_the_loss(architecture, masking):
    torch.manual_seed(1)
    ramp = torch.linspace(0, 1, 64).view(1, 1, 64, 1).expand(4, 1, 64, 64)
    everywhere = torch.ones(4, 1, 64, 64, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    batch = (*spoil(ramp, everywhere, masking, generator), ramp)
    network = Autoencoder(architecture).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        loss = restoring_loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]


def test_the_stage_leaves_its_curve_and_goes_on_where_it_stopped(data, fresh):
    recipe = tiny_recipe()
    stages.selfsupervise(data.path, fresh, 1.0, recipe)
    for name in "AB":
        assert epochs_of(fresh / f"selfsupervise-{name}") == ["1"]
    stages.selfsupervise(data.path, fresh, 1.0, longer(recipe, 2))
    stages.selfsupervise(data.path, fresh, 1.0, longer(recipe, 2))
    for name in "AB":
        assert epochs_of(fresh / f"selfsupervise-{name}") == ["1", "2"]


@pytest.mark.parametrize("name", ["A", "B"])
def test_the_member_starts_from_the_restoring_trunk(name, data, fresh):
    """No learning rate, no change: what pretraining leaves is what it began with."""
    recipe = tiny_recipe()
    selfsupervise_member(data, fresh, name, 1.0, recipe)
    still = replace(recipe, pretrain=replace(recipe.pretrain, learning_rate=0.0))
    pretrain_member(data, fresh, name, 1.0, still)
    taught = torch.load(fresh / f"selfsupervise-{name}" / "best.pt")
    started = torch.load(fresh / f"pretrain-{name}" / "best.pt")
    learned = dict(build_classifier(recipe.member(name).architecture).trunk.named_parameters())
    assert learned
    assert all(torch.equal(taught[f"trunk.{key}"], started[f"trunk.{key}"]) for key in learned)
    assert not any(key.startswith("decoder.") for key in started)


def test_the_manifest_says_which_members_were_pretrained_so(data, runs, tmp_path):
    manifest = stages.export(data.path, runs, tmp_path / "weights", tiny_recipe())
    assert [member.self_supervised for member in manifest.members] == [True, True]


def test_a_member_finished_before_is_not_called_self_supervised(data, fresh, runs):
    """The trunk came too late: nothing was trained again, and the manifest says so."""
    recipe = tiny_recipe()
    pretrain_member(data, fresh, "A", 1.0, recipe)
    selfsupervise_member(data, fresh, "A", 1.0, recipe)
    pretrain_member(data, fresh, "A", 1.0, recipe)
    stages.classifier(data.path, _with_pretraining(fresh, runs), 1.0, recipe)
    shutil.copytree(runs / "segmenter", fresh / "segmenter")
    shutil.copy(runs / "lungs.json", fresh)
    stages.calibrate(data.path, fresh, recipe)
    manifest = stages.export(data.path, fresh, fresh / "weights", recipe)
    assert {m.name: m.self_supervised for m in manifest.members} == {"A": False, "B": True}
    assert load_member(fresh, "A", recipe)


def _with_pretraining(fresh, runs):
    shutil.copytree(runs / "pretrain-B", fresh / "pretrain-B")
    return fresh
