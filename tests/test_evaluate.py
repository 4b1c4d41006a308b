"""`covidnet-node evaluate`: what is measured is what is shipped; whole runs on drawn films."""

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from covidnet_node.analyze import analyze
from covidnet_node.cli import app
from covidnet_node.errors import BadConfig
from covidnet_node.imaging.prepare import crop_lungs
from covidnet_node.intended_use import CLASSES
from covidnet_node.look import look_at_picture
from covidnet_node.models.classify import vector
from covidnet_node.models.manifest import load_manifest, weights_folder
from covidnet_node.training.evaluation import answers as answering
from covidnet_node.training.evaluation.answers import answer_all, answer_one
from covidnet_node.training.evaluation.card import FIGURES, write_card
from covidnet_node.training.evaluation.evaluation import Order, as_json, evaluate
from covidnet_node.training.evaluation.exams import read_exams
from covidnet_node.training.evaluation.groups import overall
from covidnet_node.training.evaluation.lungs import lung_figures
from covidnet_node.training.evaluation.occlusion import occlude
from covidnet_node.training.evaluation.report import write_report
from covidnet_node.training.evaluation.shortcuts import blanked
from tests.tiny_medicine import draw_folder, drawn_chest, sighted, tiny_weights

MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


# --- films without lungs, heatmaps


@pytest.fixture(scope="module")
def weights(module_path):
    return tiny_weights(module_path / "tiny")


@pytest.fixture(scope="module")
def networks(weights):
    return sighted(weights)


def test_blanked_films_hold_no_lung_and_all_the_rest(networks):
    display, lungs = drawn_chest()
    recipe = networks.manifest.crop
    crop = crop_lungs(display, lungs, recipe)
    black, gray, silhouette = blanked(display, lungs, crop, recipe)
    assert (black[crop.inside] == 0).all()
    assert (gray[crop.inside] == 0.5).all()
    outside = ~crop.inside
    assert np.array_equal(black[outside], gray[outside])
    assert (black[outside] != 0.5).any()
    assert set(np.unique(silhouette)) == {0.0, 0.5}
    assert np.array_equal(silhouette == 0, crop.inside)


def test_blanking_keeps_the_box_and_gray_scale_of_the_intact_film(networks):
    """Else the test would measure another picture than the one it blanks."""
    display, lungs = drawn_chest()
    recipe = networks.manifest.crop
    crop = crop_lungs(display, lungs, recipe)
    whole = crop_lungs(display, lungs, replace(recipe, dilation=2.0))
    assert whole.box == crop.box
    assert np.array_equal(whole.image[crop.inside], crop.image[crop.inside])


def test_occlusion_follows_the_explained_class(networks, monkeypatch):
    """With a classifier that counts bright pixels in a corner, a map of that corner is best."""
    display, lungs = drawn_chest()
    crop = crop_lungs(display, lungs, networks.manifest.crop)
    rows = np.flatnonzero(crop.inside.any(axis=1))
    heat = np.zeros(crop.image.shape, np.float32)
    heat[rows[0] : rows[len(rows) // 4]] = 1.0
    target = (heat > 0) & crop.inside
    full = np.abs(crop.image[target] - 0.5).sum()

    class Said:
        def __init__(self, image):
            self.probabilities = self
            self.share = float(np.abs(image[target] - 0.5).sum() / full)

        def of(self, _name):
            return self.share

    monkeypatch.setattr(
        "covidnet_node.training.evaluation.occlusion.classify",
        lambda _networks, crops: tuple(map(Said, crops)),
    )
    found = occlude(networks, crop, heat, "covid19")
    assert found.deletion < 0.25 < found.random_deletion
    assert found.insertion > 0.75 > found.random_insertion
    assert occlude(networks, crop, np.zeros_like(heat), "covid19") is None


# --- reading a folder


def write_manifest(folder, columns, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_only_the_id_is_needed(tmp_path):
    write_manifest(tmp_path, ["id"], [["one"], ["two"]])
    exams = read_exams(tmp_path, "test")
    assert [exam.key for exam in exams.frontal] == ["one", "two"]
    first = exams.frontal[0]
    assert (first.label, first.view, first.source) == ("unknown",) * 3
    assert first.patient == "one"
    assert first.truth is None
    assert first.mask is None


def test_spellings_of_labels_and_laterals(tmp_path):
    rows = [
        ["a", "COVID-19", "PA", "test"],
        ["b", "Normal", "L", "none"],
        ["c", "measles", "AP", "test"],
        ["d", "normal", "", "none"],
        ["e", "normal", "PA", "train"],
    ]
    write_manifest(tmp_path, ["id", "label", "view", "split"], rows)
    exams = read_exams(tmp_path, "test")
    assert [exam.label for exam in exams.frontal] == ["covid", "unknown"]
    assert [exam.key for exam in exams.lateral] == ["b", "d"]
    assert len(read_exams(tmp_path, "all").frontal) == 3


@pytest.mark.parametrize(
    ("columns", "rows", "word"),
    [
        (["id"], [["../../secret"]], "leads out"),
        (["name"], [["one"]], "id"),
        (["id", "split"], [["one", "train"]], "no row is in split"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path, columns, rows, word):
    write_manifest(tmp_path, columns, rows)
    with pytest.raises(BadConfig, match=word):
        read_exams(tmp_path, "test")


def test_an_unknown_split_and_no_folder_are_named(tmp_path):
    with pytest.raises(BadConfig, match="--split"):
        read_exams(tmp_path, "tets")
    with pytest.raises(BadConfig, match=r"manifest\.csv"):
        read_exams(tmp_path / "nowhere", "test")
    (tmp_path / "manifest.csv").write_bytes(b"id\n\xff\xfe\n")
    with pytest.raises(BadConfig, match="UTF-8"):
        read_exams(tmp_path, "test")


def test_a_sample_is_the_same_every_time_and_mixed(tmp_path):
    rows = [[f"{n}", "ab"[n // 50]] for n in range(100)]
    write_manifest(tmp_path, ["id", "source"], rows)
    one, two = (read_exams(tmp_path, "all", 20).frontal for _ in range(2))
    assert one == two
    assert len(one) == 20
    assert {exam.source for exam in one} == {"a", "b"}
    assert set(read_exams(tmp_path, "all", 10).frontal) < set(one)


# --- answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The drawn films, with a lateral, a broken picture and a missing one beside them."""
    path = tmp_path_factory.mktemp("folder") / "data"
    draw_folder(path)
    with (path / "manifest.csv").open(newline="") as file:
        columns, *rows = csv.reader(file)
    rows += [
        ["lateral", "cohen", "p1", "covid", "L", "none", "0", ""],
        ["broken", "nih", "p2", "normal", "AP", "test", "0", ""],
        ["missing", "nih", "p3", "unknown", "AP", "test", "0", ""],
    ]
    write_manifest(path, columns, rows)
    (path / "images" / "nih" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    blank = np.random.default_rng(1).integers(0, 255, (90, 70), dtype=np.uint8)
    Image.fromarray(blank).save(path / "images" / "cohen" / "lateral.jpg")
    # Lungs that DarkIsLung finds, in one film of each class.
    display, lungs = drawn_chest()
    for row in rows:
        if row[5] == "test" and row[0].isdigit():
            Image.fromarray(display).save(path / "images" / row[1] / f"{row[0]}.jpg")
            if row[6] == "1":
                mask = Image.fromarray(lungs.astype(np.uint8) * 255)
                mask.save(path / "masks" / row[1] / f"{row[0]}.png")
                if row[1] == "cohen":
                    other = path / "masks_alt" / "cohen" / f"{row[0]}.png"
                    other.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.roll(lungs, 2, 1).astype(np.uint8) * 255).save(other)
    return path


def test_what_is_measured_is_what_is_shipped(folder, networks):
    exam = next(e for e in read_exams(folder, "test").frontal if e.label == "covid")
    answer = answer_one(exam, networks)
    shipped = analyze(look_at_picture(exam.image), networks)
    assert answer.said == tuple(vector(shipped.probabilities))
    assert answer.distance == shipped.out_of_distribution
    assert answer.heat.own == shipped.explanation.energy_in_lungs
    assert answer.outlines.channel.dice > 0.9
    assert answer.heat.own_area_of_crop > answer.heat.own_area
    assert answer.heat.reference_area == pytest.approx(answer.heat.own_area, rel=0.1)
    assert len(answer.members) == 2


def test_a_stopped_run_goes_on_and_trusts_only_what_is_the_same(
    folder, networks, tmp_path, monkeypatch
):
    kept = tmp_path / "answers.jsonl"
    exams = read_exams(folder, "test").frontal[:3]
    asked = []
    real = answering.answer_one
    monkeypatch.setattr(answering, "answer_one", lambda e, n: asked.append(e.key) or real(e, n))
    first = list(answer_all(exams[:2], networks, kept, lambda: None))
    with kept.open("ab") as file:
        file.write(b'\n{"digest": "torn')
    again = list(answer_all(exams, networks, kept, lambda: None))
    assert again[:2] == first
    assert asked == [exam.key for exam in exams]
    list(answer_all(exams, networks, kept, lambda: None))
    assert len(asked) == 3
    others = replace(networks, manifest=replace(networks.manifest, digest="other"))
    list(answer_all(exams[:1], others, kept, lambda: None))
    assert len(asked) == 4


# --- whole runs


@pytest.fixture(scope="module")
def measured(folder, networks, tmp_path_factory):
    order = Order(folder, "test", None, "covidnet-node evaluate", MOMENT)
    return evaluate(order, networks, None, Console(quiet=True), 1)


def test_every_figure_is_there(measured):
    told = json.loads(as_json(measured.evaluation))
    assert set(told) == {
        "about", "goals", "outcomes", "classes", "members", "calibration", "lungs", "heatmaps",
        "shortcuts", "foreign", "laterals", "strain", "failures",
    }  # fmt: skip
    first = told["classes"][0]
    assert first["group"] == "all adults"
    assert first["per_class"] == [2, 2, 3]
    assert first["unanswered"] == 1
    for name in CLASSES:
        assert 0.0 <= first["auc"][name]["value"] <= 1.0
    for figure in ("accuracy", "accuracy_most_probable", "sensitivity_concluded", "specificity"):
        assert 0.0 <= first[figure]["low"] <= first[figure]["value"] <= first[figure]["high"] <= 1
    for figure in ("balanced_accuracy", "f1_macro", "sensitivity"):
        assert 0.0 <= first[figure]["value"] <= 1
        assert first[figure]["low"] is None  # two patients of a kind give no interval
    assert {each["convention"] for each in told["lungs"]} == {"lung-field", "lung+heart"}
    assert {each["what"] for each in told["lungs"]} == {"channel", "shipped", "annotators"}
    second = next(each for each in told["lungs"] if each["what"] == "annotators")
    assert second["convention"] == "lung+heart"
    assert 0.8 < second["dice"]["value"] < 1.0
    assert told["lungs"][0]["dice"]["value"] > 0.9
    assert told["heatmaps"][0]["with_reference"] == 6
    assert {each["test"] for each in told["shortcuts"]} == {
        "intact", "black lungs", "gray lungs", "silhouette"
    }  # fmt: skip
    assert told["laterals"]["without_probabilities"]["value"] == 1.0
    assert {each["reason"] for each in told["outcomes"][0]["why"]} >= {"undecodable"}
    groups = {each["group"] for each in told["classes"]}
    assert {"source nih", "source kermany", "view PA", "view AP"} <= groups
    assert {each["group"] for each in told["foreign"]} >= {"other disease", "children"}
    assert len(told["members"]) == 2
    assert told["about"]["films"] == 12


def test_the_report_can_be_read(measured, tmp_path):
    text = write_report(measured, tmp_path).read_text()
    assert "Research use only, not for diagnosis" in text
    for title in ("Classes", "Calibration", "Lung outlines", "Heatmaps", "Without lungs"):
        assert f"## {title}" in text
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert all(f"]({name})" in text for name in pictures)
    assert {"roc.png", "reliability.png", "confusion.png", "outlines.png"} <= set(pictures)
    lengths = {len(line.split("|")) for line in text.splitlines() if line.startswith("| all")}
    assert 0 not in lengths


def test_the_command_writes_json_and_report(folder, weights, tmp_path):
    words = ["evaluate", "--data", folder, "--weights", weights, "--device", "cpu", "--limit", 4]
    words += ["--json", tmp_path / "figures.json", "--report", tmp_path / "report"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "figures.json").read_text())
    assert told["about"]["limit"] == 4
    assert told["about"]["films"] == 4
    assert (tmp_path / "report" / "evaluation.md").is_file()
    assert len((tmp_path / "report" / "answers.jsonl").read_text().split("\n")) == 1 + 4 + 1


def test_a_folder_that_says_nothing_is_still_measured(networks, tmp_path):
    write_manifest(tmp_path, ["id"], [["one"]])
    (tmp_path / "images").mkdir()
    Image.fromarray(drawn_chest()[0]).save(tmp_path / "images" / "one.png")
    order = Order(tmp_path, "test", None, "", MOMENT)
    found = evaluate(order, networks, None, Console(quiet=True), 1)
    assert found.evaluation.classes == ()
    assert found.evaluation.outcomes[0].films == 1
    assert overall(found.seen).films[0].answer.said is not None
    assert lung_figures(found.seen) == ()
    write_report(found, tmp_path)


def test_where_nothing_can_be_written_nothing_is_measured(folder, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["evaluate", "--data", str(folder), "--report", str(tmp_path / "file")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, BadConfig)
    assert "--report" in str(result.exception)


def test_a_report_over_training_films_says_so(measured, tmp_path):
    about = replace(measured.evaluation.about, split="all", trained_on_this_folder=True)
    told = replace(measured, evaluation=replace(measured.evaluation, about=about))
    assert "films of its training split" in write_report(told, tmp_path).read_text()


# --- goals and card


def test_missed_goals_stay_in_the_table(measured):
    reached = {goal.what: goal.reached for goal in measured.evaluation.goals}
    assert reached["three-class accuracy, all adults"] == "no"
    assert "lung Dice, lung-field" in reached
    assert "AUC of COVID-19, black lungs, all adults" in reached


def test_a_card_keeps_what_a_person_wrote(measured, tmp_path):
    card = tmp_path / "CARD.md"
    block = f"{FIGURES.start}\nold figures\n{FIGURES.end}"
    card.write_text(f"# Mine\n\n{block}\n\n## Failures\n\nmine too\n")
    for _ in range(2):
        write_card(measured.evaluation, card)
        text = card.read_text()
        assert text.startswith("# Mine\n")
        assert text.endswith("## Failures\n\nmine too\n")
        assert "old figures" not in text
        assert text.count("### Goals") == 1


def test_a_card_without_marks_is_refused_before_the_long_run(folder, tmp_path):
    card = tmp_path / "CARD.md"
    for prepare in (lambda: None, lambda: card.write_text("# Mine\n")):
        prepare()
        words = ["evaluate", "--data", str(folder), "--card", str(card)]
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, BadConfig)
        assert "--card" in str(result.exception)


def test_the_shipped_card_tells_of_the_shipped_weights():
    """A new export needs a new measurement: covidnet-node evaluate --card."""
    manifest = load_manifest(weights_folder(None))
    card = (weights_folder(None) / "MODEL_CARD.md").read_text()
    assert manifest.digest in card
    assert "Research use only" in card
