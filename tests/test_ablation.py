"""The self-supervision ablation: two arms that differ in one thing, compared on validation."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch
from typer.testing import CliRunner

from covidnet_node.cli import app
from covidnet_node.errors import BadConfig
from covidnet_node.training import stages
from covidnet_node.training.ablation import AblationOrder, Arm, ablate
from covidnet_node.training.classifier import was_self_supervised
from covidnet_node.training.dataset import Split, for_classes
from covidnet_node.training.evaluation import ablation_card
from covidnet_node.training.evaluation.ablation_card import ABLATION, lines, measure_ablation
from covidnet_node.training.scores import Score, read_scores
from covidnet_node.training.selfsupervise import selfsupervise_member
from tests.tiny_medicine import copy_runs, draw_folder, tiny_recipe, tiny_recipe_file

ORDER = AblationOrder(
    member="B",
    minutes=30.0,
    command="covidnet-node train ablation",
    at=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def measured(data, module_path):
    """Both arms, once: the runs folder and the figures."""
    folder = module_path / "runs"
    stages.segmenter(data.path, folder, 1.0, tiny_recipe())
    with pytest.raises(BadConfig, match="train selfsupervise"):
        ablate(data, folder, ORDER, tiny_recipe())
    assert not list(folder.rglob("pretrain-*"))
    selfsupervise_member(data, folder, "B", 1.0, tiny_recipe())
    return folder, measure_ablation(data, folder, ORDER, tiny_recipe())


@pytest.fixture
def runs(measured, tmp_path):
    """A copy of the finished runs, to be spoiled."""
    return copy_runs(measured[0], tmp_path / "runs")


def arms(runs):
    return (runs / "ablation" / name for name in ("with", "without"))


def test_only_one_arm_descends_from_the_self_supervised_trunk(measured):
    given, bare = arms(measured[0])
    assert was_self_supervised(given, "B")
    assert not was_self_supervised(bare, "B")
    assert [each.stage for each in measured[1].efforts_with] == [
        "selfsupervise",
        "pretrain",
        "member",
    ]
    assert [each.stage for each in measured[1].efforts_without] == ["pretrain", "member"]
    one, two = (torch.load(folder / "member-B" / "best.pt") for folder in (given, bare))
    assert not all(torch.equal(one[key], two[key]) for key in one)


def test_validation_films_are_asked_and_no_others(data, measured):
    wanted = {film.id for film in for_classes(data, Split.VAL)}
    for folder in arms(measured[0]):
        scores = read_scores(folder / "scores.csv")
        assert {score.id for score in scores} == wanted
        assert {score.split for score in scores} == {"val"}
    assert measured[1].films == len(wanted) == 6


def test_finished_arms_are_not_trained_again(data, runs):
    before = sorted((file, file.stat().st_mtime_ns) for file in runs.rglob("*.pt"))
    again = measure_ablation(data, runs, ORDER, tiny_recipe())
    assert again.films == 6
    assert sorted((file, file.stat().st_mtime_ns) for file in runs.rglob("*.pt")) == before


def test_a_stopped_arm_goes_on(data, runs):
    _, bare = arms(runs)
    scores, curve = (bare / "scores.csv").read_text(), (bare / "pretrain-B" / "curve.csv")
    before = curve.read_text()
    (bare / "scores.csv").unlink()
    shutil.rmtree(bare / "member-B")
    ablate(data, runs, ORDER, tiny_recipe())
    assert (bare / "scores.csv").read_text() == scores
    assert curve.read_text() == before


def test_another_member_in_the_same_folder_is_refused(data, runs):
    with pytest.raises(BadConfig, match="begun with another"):
        ablate(data, runs, replace(ORDER, member="A"), tiny_recipe())


def arm(measured, said):
    """Ten films of each class; the truth gets the probability `said`."""
    scores = []
    for index, label in enumerate(("covid", "pneumonia", "normal")):
        for number in range(10):
            rest = (1 - said) / 2
            vector = [said if each == index else rest for each in range(3)]
            patient = f"{label}{number}"
            scores.append(Score("cohen", patient, patient, label, "PA", "val", *vector))
    return Arm(measured[1].setup, (), tuple(scores))


def test_the_difference_is_paired(measured, monkeypatch):
    for good, bad, verdict in ((0.9, 0.1, "yes"), (0.1, 0.9, "no, it harms"), (0.9, 0.9, None)):
        both = (arm(measured, good), arm(measured, bad))
        monkeypatch.setattr(ablation_card, "ablate", lambda *_words, both=both: both)
        found = measure_ablation(None, None, ORDER, None)
        assert found.helps == (verdict or "not shown")
        assert found.gain.macro.value == (good > bad) - (good < bad)
        assert found.gain.macro.low == found.gain.macro.high == found.gain.macro.value


def test_the_card_tells_what_was_compared(measured):
    text = "\n".join(lines(measured[1]))
    assert "validation split" in text
    assert "20% of its time" in text
    assert measured[1].setup.data_sha256 in text
    assert "| difference |" in text


def test_the_command_writes_card_and_json(data, runs, tmp_path):
    """Both arms are finished: only their figures are made."""
    recipe = tiny_recipe_file(tmp_path / "recipe.toml")
    card, file = tmp_path / "CARD.md", tmp_path / "ablation.json"
    card.write_text(f"mine\n{ABLATION.start}\n{ABLATION.end}\nmine\n")
    words = ["train", "ablation", "--data", str(data.path), "--runs", str(runs)]
    words += ["--recipe", str(recipe), "--card", str(card), "--json", str(file)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    text = card.read_text()
    assert text.startswith("mine\n")
    assert text.endswith("\nmine\n")
    assert "Does it help" in text
    assert json.loads(file.read_text())["films"] == 6
