"""A medicine small enough for tests: drawn films, one-step training, networks with known views."""

import csv
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from covidnet_node.models.manifest import load_manifest, weights_folder
from covidnet_node.models.networks import Networks, load_networks
from covidnet_node.phantom.film import draw_phantom
from covidnet_node.training import stages
from covidnet_node.training.dataset import open_folder
from covidnet_node.training.export import export_weights
from covidnet_node.training.recipe import SHIPPED, Label, LungsRecipe, load_recipe

COLUMNS = (
    "id source patient_id label view split has_mask mask_style".split()  # noqa: SIM905 - as a row
)
FILMS = (
    # source, label, opacity: two of each in every split
    ("cohen", "covid", "diffuse"),
    ("nih", "pneumonia", "lobar"),
    ("shenzhen", "normal", "none"),
    ("kermany", "pneumonia", "lobar"),
    ("shenzhen", "other", "lobar"),
)
STYLES = {"cohen": "lung+heart", "shenzhen": "lung-field"}


def draw_folder(path):
    """A data folder of phantoms, laid out as `--data` describes it."""
    rows, seed = [], 0
    for split in ("train", "val", "test"):
        for source, label, opacity in FILMS * 2:
            seed += 1
            name = f"{seed:03d}"
            phantom = draw_phantom(seed, opacity, 96, 80)
            _save(path / "images" / source / f"{name}.jpg", (phantom.image >> 8).astype(np.uint8))
            if source in STYLES:
                mask = phantom.lungs.astype(np.uint8) * 255
                _save(path / "masks" / source / f"{name}.png", mask)
            patient = f"{source}-{name}"
            style = STYLES.get(source, "")
            rows.append((name, source, patient, label, "PA", split, int(bool(style)), style))
    with (path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return open_folder(path)


def tiny_recipe():
    """The shipped recipe, shrunk to a step or two."""
    recipe = load_recipe()
    return replace(
        recipe,
        threads=1,
        segmenter=replace(
            recipe.segmenter, side=64, stage=replace(recipe.segmenter.stage, batch=4, epochs=1)
        ),
        crop=replace(recipe.crop, side=64),
        selfsupervise=replace(
            recipe.selfsupervise, stage=replace(recipe.selfsupervise.stage, batch=4, epochs=1)
        ),
        pretrain=replace(recipe.pretrain, batch=4, epochs=1),
        classifier=replace(recipe.classifier, batch=4, epochs=1),
        label=Label("Tiny", "0.0-tiny", provisional=True, notice="For tests only"),
        # An untrained network finds lungs nowhere or everywhere: both will do here.
        lungs=LungsRecipe(threshold=0.0, most_bridge=1.0, let_through=1.0),
    )


TINY_NUMBERS = {
    "threads": "1",
    "side": "64",
    "batch": "4",
    "epochs": "1",
    "threshold": "0.0",
    "most_bridge": "1.0",
    "let_through": "1.0",
}


def tiny_recipe_file(path: Path) -> Path:
    """The shipped recipe.toml with the numbers of tiny_recipe, for command lines."""
    text = SHIPPED.read_text(encoding="utf-8")
    for name, number in TINY_NUMBERS.items():
        text, count = re.subn(rf"(?m)^{name} = [\d.]+", f"{name} = {number}", text)
        assert count
    path.write_text(text, encoding="utf-8")
    return path


def train_everything(data, runs, recipe):
    """One step of every stage, as the command line runs them."""
    stages.segmenter(data.path, runs, 1.0, recipe)
    stages.selfsupervise(data.path, runs, 1.0, recipe)
    stages.pretrain(data.path, runs, 1.0, recipe)
    stages.classifier(data.path, runs, 1.0, recipe)
    stages.calibrate(data.path, runs, recipe)


def export_tiny(data, runs, folder, recipe):
    """Weights as the node loads them."""
    return export_weights(data, runs, folder, recipe)


def tiny_weights(path: Path) -> Path:
    """A weights folder made from nothing; the slow part of some tests, so make it once."""
    recipe = tiny_recipe()
    data = draw_folder(path / "data")
    train_everything(data, path / "runs", recipe)
    export_tiny(data, path / "runs", path / "weights", recipe)
    shutil.rmtree(path / "runs")
    return path / "weights"


def copy_runs(source: Path, target: Path) -> Path:
    """A runs folder to go on with; training replaces weights whole, so they are only linked."""

    def copy(old: str, new: str) -> None:
        (os.link if old.endswith(".pt") else shutil.copy2)(old, new)

    return Path(shutil.copytree(source, target, symlinks=True, copy_function=copy))


def sighted(folder: Path) -> Networks:
    """The tiny networks, with a segmenter that takes whatever is dark for lung and has no view."""
    manifest = load_manifest(folder)
    networks = load_networks(manifest, folder, "cpu")
    sane = replace(manifest, lungs=load_manifest(weights_folder(None)).lungs, view=None)
    return replace(networks, manifest=sane, segmenter=DarkIsLung(), view=None)


class DarkIsLung(nn.Module):
    """Both outline conventions: everything darker than a quarter of the gray scale."""

    def forward(self, images):
        return torch.cat([(-1.0 - images) * 20] * 2, dim=1)


def drawn_chest(rows=300, columns=200):
    """Two dark ellipses on gray: lungs that DarkIsLung finds. Display and true mask."""
    down, across = np.mgrid[0:rows, 0:columns]
    v, u = down / rows, across / columns
    lungs = sum(((u - x) / 0.15) ** 2 + ((v - 0.5) / 0.32) ** 2 < 1 for x in (0.27, 0.73)) > 0
    texture = np.random.default_rng(1).integers(0, 50, (rows, columns))
    display = np.where(lungs, 10 + texture, 170 + texture)
    display[: rows // 20] = 255
    return display.astype(np.uint8), lungs


def _save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=90)
