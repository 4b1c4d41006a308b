"""Trained shortcut tests: they find a planted signature, and nothing where nothing is."""

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from covidnet_node.cli import app
from covidnet_node.errors import BadConfig
from covidnet_node.imaging.prepare import crop_lungs
from covidnet_node.training import crops as crops_room
from covidnet_node.training.crops import Crops, load_crops
from covidnet_node.training.dataset import CHILDREN, Film, Folder, Split, open_folder
from covidnet_node.training.evaluation.card import check_card, write_block
from covidnet_node.training.evaluation.shortcuts import blanked
from covidnet_node.training.probing import covid, features, sources
from covidnet_node.training.probing.black_lungs import outside_in_contrast, show_black_lungs
from covidnet_node.training.probing.probe import STAGE, Plan
from covidnet_node.training.probing.probes import Order, as_json, run_probes
from covidnet_node.training.probing.report import PROBES, lines
from covidnet_node.training.probing.sights import GRAY, SIDE, Sight, plain, show, vary
from covidnet_node.training.probing.sources import Part, tell_sources
from tests.tiny_medicine import (
    draw_folder,
    drawn_chest,
    tiny_recipe,
    tiny_recipe_file,
    train_everything,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CPU = torch.device("cpu")
CROPPED = 32


def film(number, source, patient, label="normal", split=Split.TRAIN):
    return Film(f"{number:03d}", source, f"p{patient}", label, "PA", split, False, "", "")


def two_hospitals(per_source=90):
    """Two films a patient, so that a division by film would show."""
    return tuple(
        film(number, source, number // 2)
        for source in ("left", "right")
        for number in range(per_source)
    )


def crops_of(films, sign):
    """Noise within a disk; `sign` changes one film's (lungs, inside, whole) in place."""
    random = np.random.default_rng(1)
    down, across = np.mgrid[0:CROPPED, 0:CROPPED] - CROPPED / 2
    stacks = {"lungs": [], "inside": [], "whole": []}
    for each in films:
        radius = random.uniform(0.3, 0.45) * CROPPED
        inside = down**2 + across**2 < radius**2
        whole = random.integers(40, 200, (CROPPED, CROPPED)).astype(np.uint8)
        lungs = whole.copy()
        sign(each, lungs, inside, whole)
        lungs[~inside] = GRAY
        for name, stack in (("lungs", lungs), ("inside", inside), ("whole", whole)):
            stacks[name].append(stack)
    ids = tuple(f"{each.source}/{each.id}" for each in films)
    stacked = {name: np.stack(stack) for name, stack in stacks.items()}
    return Crops(ids=ids, outline=stacked["inside"], **stacked)


def no_sign(each, lungs, inside, whole):
    """Both hospitals alike."""


def sign_of_right(each, lungs, inside, whole):
    """A bright corner of the film, and a bright patch in the lungs."""
    if each.source == "right":
        whole[:8, :8] = 255
        lungs[12:20, 12:20] = 255


def shape_of_right(each, lungs, inside, whole):
    """A narrower outline: nothing in the gray values."""
    if each.source == "right":
        inside[:, : CROPPED // 2] = False


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    draw_folder(path)
    _move_normals_apart(path)
    return open_folder(path)


def _move_normals_apart(path):
    """Half of the normals come from elsewhere; each source has one film for every part."""
    with (path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    normals = [row for row in rows if row["label"] == "normal"]
    for number, row in enumerate(normals):
        wanted = tuple(Part)[number // 2]
        if number % 2:
            for kind, ending in (("images", "jpg"), ("masks", "png")):
                name = f"{row['id']}.{ending}"
                (path / kind / "elsewhere").mkdir(exist_ok=True)
                shutil.move(path / kind / row["source"] / name, path / kind / "elsewhere" / name)
            row["source"] = "elsewhere"
        names = (str(name) for name in range(1000))
        row["patient_id"] = next(
            patient
            for patient in names
            if sources.part(replace(film(0, row["source"], 0), patient=patient)) is wanted
        )
    with (path / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def runs(data, module_path):
    folder = module_path / "runs"
    train_everything(data, folder, tiny_recipe())
    return folder


BRIEF = Plan(minutes=1.0, seed=1, stage=replace(STAGE, batch=8, epochs=4))


# --- the division


def test_a_patient_is_never_divided():
    films = two_hospitals()
    by_patient = {}
    for each in films:
        by_patient.setdefault(sources.patient_key(each), set()).add(sources.part(each))
    assert len(by_patient) == len(films) / 2
    assert all(len(parts) == 1 for parts in by_patient.values())
    assert {next(iter(parts)) for parts in by_patient.values()} == set(Part)


def test_patients_of_two_sources_are_two_though_named_alike():
    here, there = (film(1, source, 7) for source in ("left", "right"))
    assert sources.patient_key(here) != sources.patient_key(there)


def test_a_fifth_is_measured_whatever_the_split():
    films = [film(n, "left", n) for n in range(2000)]
    share = [sources.part(each) for each in films].count(Part.MEASURED) / len(films)
    assert share == pytest.approx(0.2, abs=0.03)
    moved = [replace(each, split=Split.TEST, id="x") for each in films]
    assert [sources.part(each) for each in moved] == [sources.part(each) for each in films]


def test_children_and_small_sources_are_not_asked_about(tmp_path):
    films = (
        *two_hospitals(20),
        *(film(n, CHILDREN, n) for n in range(20)),
        *(film(n, "tiny", n) for n in range(3)),
        *(film(n + 50, "left", n, label="covid") for n in range(20)),
    )
    folder = Folder(tmp_path, films, "")
    found = sources.films_of(folder, crops_of(films, no_sign), "normal", 10)
    assert found == two_hospitals(20)


# --- what is shown


def test_silhouettes_hold_no_gray_values():
    films = two_hospitals(10)
    crops = crops_of(films, sign_of_right)
    shown = show(films, crops, Sight.SILHOUETTE, CPU)
    rows, generator = torch.arange(len(films)), torch.Generator().manual_seed(1)
    for pictures in (plain(shown, rows, generator), vary(shown, rows, generator)):
        assert pictures.shape == (len(films), 1, SIDE, SIDE)
        assert pictures.unique().tolist() == [0.0, pytest.approx(GRAY / 255)]
    other = replace(crops, lungs=255 - crops.lungs, whole=255 - crops.whole)
    assert torch.equal(shown.images, show(films, other, Sight.SILHOUETTE, CPU).images)


def test_lung_crops_hold_nothing_from_outside_also_when_restyled():
    films = two_hospitals(10)
    crops = crops_of(films, no_sign)
    for sight in (Sight.CROP, Sight.STYLED):
        shown = show(films, crops, sight, CPU)
        pictures = plain(shown, torch.arange(len(films)), torch.Generator().manual_seed(1))
        outside = shown.inside < 128
        assert outside.any()
        assert pictures[outside].unique().tolist() == [pytest.approx(GRAY / 255)]
        assert len(pictures[~outside].unique()) > 2


def test_black_lungs_keep_the_outside_alone(data, runs, tmp_path, monkeypatch):
    shutil.copytree(runs / "segmenter", tmp_path / "segmenter")
    shutil.copy(runs / "lungs.json", tmp_path)
    films = data.films[:4]
    shown = show_black_lungs(data, films, tmp_path, tiny_recipe(), Sight.BLACK)
    silhouettes = show(films, load_crops(runs), Sight.SILHOUETTE, CPU).only(shown.films)
    assert shown.films
    assert shown.films == silhouettes.films
    black = silhouettes.images == 0
    assert float(shown.images[black].float().mean()) < 5
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("probes/*")}
    again = show_black_lungs(data, films, tmp_path, tiny_recipe(), Sight.BLACK)
    assert torch.equal(again.images, shown.images)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("probes/*")} == before
    monkeypatch.setattr(crops_room, "PREPARATION", 99)
    show_black_lungs(data, films, tmp_path, tiny_recipe(), Sight.BLACK)
    assert len(list(tmp_path.glob("probes/*"))) == 2 * len(before)


def test_outside_is_kept_in_its_own_contrast():
    """A letter on the mediastinum: white on the lungs' gray scale, told apart on its own."""
    display, lungs = drawn_chest()
    display[140:160, 95:105] = 255
    crop = crop_lungs(display, lungs, tiny_recipe().crop)
    black, _, _ = blanked(display, lungs, crop, tiny_recipe().crop)
    contrast = outside_in_contrast(display, crop)
    assert (contrast[crop.inside] == 0).all()
    assert contrast.max() <= 1
    outside = ~crop.inside
    assert contrast[outside].std() > 2 * black[outside].std()


# --- what is found


@pytest.mark.parametrize("sight", [Sight.WHOLE, Sight.CROP])
def test_a_planted_signature_is_found(sight, tmp_path):
    films = two_hospitals()
    found = tell_sources(films, crops_of(films, sign_of_right), sight, tmp_path, BRIEF)
    assert found.chance == 0.5
    assert found.balanced_accuracy.value > 0.9
    assert found.balanced_accuracy.low > 0.75
    assert found.auc.value > 0.9
    assert found.sources == ("left", "right")
    assert found.measured == sum(sources.part(each) is Part.MEASURED for each in films)
    assert found.patients <= found.measured / 2


def test_a_shape_is_found_in_silhouettes(tmp_path):
    films = two_hospitals()
    crops = crops_of(films, shape_of_right)
    found = tell_sources(films, crops, Sight.SILHOUETTE, tmp_path, BRIEF)
    assert found.auc.value > 0.9


@pytest.mark.parametrize("sight", [Sight.WHOLE, Sight.STYLED])
def test_without_a_signature_nothing_is_found(sight, tmp_path):
    films = two_hospitals()
    found = tell_sources(films, crops_of(films, no_sign), sight, tmp_path, BRIEF)
    assert 0.25 < found.auc.value < 0.75
    assert found.balanced_accuracy.low < 0.55


def test_a_stopped_probe_goes_on_and_a_finished_one_is_not_taught_again(tmp_path):
    films = two_hospitals(40)
    crops = crops_of(films, sign_of_right)
    short = replace(BRIEF, stage=replace(BRIEF.stage, epochs=2))
    first = tell_sources(films, crops, Sight.CROP, tmp_path, short)
    again = tell_sources(films, crops, Sight.CROP, tmp_path, short)
    assert first == again
    longer = replace(short, stage=replace(short.stage, epochs=3))
    assert first.teaching.epochs == 2
    assert tell_sources(films, crops, Sight.CROP, tmp_path, longer).teaching.epochs == 3


def test_linear_probe_reads_what_is_there_and_nothing_else():
    films = two_hospitals()
    random = np.random.default_rng(1)
    noise = random.normal(size=(len(films), 20))
    truth = sources.truths(films, ("left", "right"))
    planted = noise.copy()
    planted[:, 3] += 4 * truth
    for given, low, high in ((planted, 0.9, 1.0), (noise, 0.2, 0.8)):
        learned = np.array([sources.part(each) is not Part.MEASURED for each in films])
        network = features.fit_linear(given[learned], truth[learned], 2)
        with torch.inference_mode():
            said = network(torch.from_numpy(given[~learned])).argmax(dim=1).numpy()
        assert low <= (said == truth[~learned]).mean() <= high


def test_features_of_unseen_films_are_all_measured(runs):
    """Every fifth once, each by a regression that never saw its patients."""
    crops = load_crops(runs)
    films = tuple(
        film(n, source, n, split=split)
        for n, split in zip(range(30), (Split.TRAIN, Split.VAL, Split.TEST) * 10, strict=True)
        for source in ("left", "right")
    )
    rows = np.arange(len(films)) % len(crops.ids)
    ids = tuple(f"{each.source}/{each.id}" for each in films)
    many = Crops(ids, crops.lungs[rows], crops.inside[rows], crops.outline[rows], crops.whole[rows])
    found = features.tell_sources_from_features(films, many, runs, tiny_recipe())
    everything, unseen = found
    assert everything.measured == sum(sources.part(each) is Part.MEASURED for each in films)
    assert unseen.measured == sum(each.split is not Split.TRAIN for each in films)
    assert everything.teaching is None


# --- all of it


@pytest.fixture(scope="module")
def probed(data, runs):
    return run_probes(data, runs, order(data), tiny_recipe())


def order(data):
    return Order(
        1.0, "covidnet-node train probes", NOON, least=2, stage=replace(BRIEF.stage, epochs=1)
    )


def test_covid_is_taught_on_train_and_measured_on_test(data, probed):
    groups = {(each.probe, each.group): each for each in probed.covid19}
    assert set(groups) == {
        (sight, group)
        for sight in covid.SIGHTS
        for group in ("all adults", "all adults without nih")
    }
    test = {f for f in data.films if f.split is Split.TEST and f.source != CHILDREN}
    most = sum(each.label != "other" for each in test)
    assert 0 < groups["lung crop", "all adults"].films <= most
    films = {each.films for (_, group), each in groups.items() if group == "all adults"}
    assert len(films) == 1


def test_hospitals_are_asked_about_where_there_are_two(probed):
    """Normals have two here; COVID-19 has one only."""
    assert {each.label for each in probed.sources} == {"normal"}
    shown = [each.probe for each in probed.sources]
    assert shown == [*sources.SIGHTS, features.ALL_FILMS, features.UNSEEN_FILMS]
    assert {each.sources for each in probed.sources} == {("elsewhere", "shenzhen")}
    assert probed.minutes_each == pytest.approx(1 / 8)


def test_bad_folders_are_named(data, runs, tmp_path):
    with pytest.raises(BadConfig, match=r"crops\.npz: train segmenter first"):
        run_probes(data, tmp_path, order(data), tiny_recipe())
    old = dict(np.load(runs / "crops.npz"))
    del old["outline"]
    np.savez(tmp_path / "crops.npz", **old)
    with pytest.raises(BadConfig, match="older version"):
        run_probes(data, tmp_path, order(data), tiny_recipe())
    healthy = replace(data, films=tuple(each for each in data.films if each.label != "covid"))
    for name in ("crops.npz", "lungs.json"):
        shutil.copy(runs / name, tmp_path)
    shutil.copytree(runs / "segmenter", tmp_path / "segmenter")
    with pytest.raises(BadConfig, match="COVID-19"):
        run_probes(healthy, tmp_path, replace(order(data), least=50), tiny_recipe())


def test_probes_taught_on_other_crops_are_not_gone_on_with(data, runs, probed, monkeypatch):
    monkeypatch.setattr(crops_room, "PREPARATION", 99)
    with pytest.raises(BadConfig, match="begun with another"):
        run_probes(data, runs, order(data), tiny_recipe())


def test_json_and_card_say_how_it_was_made(data, probed, tmp_path):
    told = json.loads(as_json(probed))
    assert told["data_sha256"] == data.sha256
    assert told["command"] == "covidnet-node train probes"
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("before\n")
    with pytest.raises(BadConfig, match="probes"):
        check_card(card, PROBES)
    card.write_text(f"before\n{PROBES.start}\nyesterday\n{PROBES.end}\nafter\n")
    write_block(card, PROBES, lines(probed))
    text = card.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "yesterday" not in text
    how = (data.sha256, "2026-11-23 12:00", "seed 1", "at most 1 epoch")
    for words in (*how, "black lungs", "elsewhere (", "films they never learned from"):
        assert words in text


def test_the_command_writes_both_and_refuses_a_card_without_marks(data, runs, tmp_path):
    card, figures = tmp_path / "CARD.md", tmp_path / "new" / "probes.json"
    card.write_text("no marks\n")
    words = ["train", "probes", "--data", str(data.path), "--runs", str(runs), "--minutes", "0.1"]
    words += ["--recipe", str(tiny_recipe_file(tmp_path / "recipe.toml"))]
    refused = CliRunner().invoke(app, [*words, "--card", str(card)])
    assert isinstance(refused.exception, BadConfig)
    card.write_text(f"{PROBES.start}\n{PROBES.end}\n")
    done = CliRunner().invoke(app, [*words, "--card", str(card), "--json", str(figures)])
    assert done.exit_code == 0, done.output
    assert json.loads(figures.read_text())["covid19"]
    assert "Can the hospital be told?" in card.read_text()
