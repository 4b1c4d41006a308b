"""`covidnet-node train`: the stages of training, each resumable, and all of them in one go."""

import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import NOTICE
from covidnet_node.training.recipe import SHIPPED, load_recipe

if TYPE_CHECKING:
    from covidnet_node.training.evaluation.card import Block

app = typer.Typer(
    help="Remake the weights from a folder of images with a manifest.csv; every stage resumes.",
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option("--data", help="Folder with manifest.csv, images/, masks/.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of checkpoints and caches.")]
Weights = Annotated[Path, typer.Option("--weights", help="Folder to export to.")]
Minutes = Annotated[float, typer.Option("--minutes", min=0.1, help="Time budget of the stage.")]
Budget = Annotated[float, typer.Option("--budget", min=1, help="Time budget of all, in minutes.")]
RecipeFile = Annotated[
    Path, typer.Option("--recipe", help="TOML file.", show_default="the shipped recipe")
]
Member = Annotated[str, typer.Option("--member", help="The recipe's member to train aside.")]
Card = Annotated[
    Path | None, typer.Option("--card", help="Model card whose block of these is to be replaced.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
Selfsupervise = Annotated[
    bool,
    typer.Option(
        "--selfsupervise", help="Restore masked films first, without the group, in the same time."
    ),
]

RUNS, WEIGHTS = Path("runs"), Path("weights")

SEGMENTER_SHARE, SELFSUPERVISE_SHARE, PRETRAIN_SHARE, CLASSIFIER_SHARE = 0.3, 0.1, 0.1, 0.5
"""Of the budget of `train all`. Cutting the crops, calibration and export come on top."""


@app.command()
def segmenter(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 20, recipe: RecipeFile = SHIPPED
) -> None:
    """Learn where the lungs are, and cut them out of every image."""
    from covidnet_node.training import stages

    stages.segmenter(data, runs, minutes, load_recipe(recipe))


@app.command()
def selfsupervise(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 20, recipe: RecipeFile = SHIPPED
) -> None:
    """Teach both members, without labels, to restore masked images; pretrain starts from there."""
    from covidnet_node.training import stages

    stages.selfsupervise(data, runs, minutes, load_recipe(recipe))


@app.command()
def pretrain(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 10, recipe: RecipeFile = SHIPPED
) -> None:
    """Teach both members pneumonia: A on whole images, B on lung crops."""
    from covidnet_node.training import stages

    stages.pretrain(data, runs, minutes, load_recipe(recipe))


@app.command()
def classifier(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 30, recipe: RecipeFile = SHIPPED
) -> None:
    """Fine-tune both members on lung crops into COVID-19, pneumonia and normal."""
    from covidnet_node.training import stages

    stages.classifier(data, runs, minutes, load_recipe(recipe))


@app.command()
def calibrate(data: Data, runs: Runs = RUNS, recipe: RecipeFile = SHIPPED) -> None:
    """Fit temperature, thresholds and out-of-distribution distance on the validation split."""
    from covidnet_node.training import stages

    stages.calibrate(data, runs, load_recipe(recipe))


@app.command()
def export(
    data: Data, runs: Runs = RUNS, weights: Weights = WEIGHTS, recipe: RecipeFile = SHIPPED
) -> None:
    """Write safetensors and manifest.toml, measured on the test split as the node runs them."""
    from covidnet_node.training import stages

    manifest = stages.export(data, runs, weights, load_recipe(recipe))
    typer.echo(f"{weights}: {manifest.algorithm.name} {manifest.algorithm.version}. {NOTICE}.")


@app.command("leave-out")
def leave_out(
    data: Data,
    runs: Runs = RUNS,
    minutes: Minutes = 120,
    member: Member = "B",
    card: Card = None,
    json_file: Json = None,
    recipe: RecipeFile = SHIPPED,
    *,
    selfsupervise: Selfsupervise = False,
) -> None:
    """Score every film by a member that never saw its group of hospitals; ships nothing."""
    from covidnet_node.training import stages
    from covidnet_node.training.evaluation.leave_out_card import LEAVE_OUT, lines
    from covidnet_node.training.evaluation.leave_out_figures import as_json
    from covidnet_node.training.leave_out import LeaveOutOrder

    _make_room(LEAVE_OUT, card, json_file)
    order = LeaveOutOrder(member, minutes, selfsupervise, _command(), datetime.now(UTC))
    found = stages.leave_out(data, runs, order, load_recipe(recipe))
    _publish(as_json(found), lines(found), LEAVE_OUT, card, json_file)


@app.command()
def ablation(
    data: Data,
    runs: Runs = RUNS,
    minutes: Minutes = 60,
    member: Member = "B",
    card: Card = None,
    json_file: Json = None,
    recipe: RecipeFile = SHIPPED,
) -> None:
    """Fine-tune a member with and without the self-supervised trunk; ships nothing."""
    from covidnet_node.training import stages
    from covidnet_node.training.ablation import AblationOrder
    from covidnet_node.training.evaluation.ablation_card import ABLATION, as_json, lines

    _make_room(ABLATION, card, json_file)
    order = AblationOrder(member, minutes, _command(), datetime.now(UTC))
    found = stages.ablation(data, runs, order, load_recipe(recipe))
    _publish(as_json(found), lines(found), ABLATION, card, json_file)


@app.command()
def probes(
    data: Data,
    runs: Runs = RUNS,
    minutes: Minutes = 30,
    card: Card = None,
    json_file: Json = None,
    recipe: RecipeFile = SHIPPED,
) -> None:
    """Ask what fresh networks learn from what should not matter: hospitals, black lungs, shapes."""
    from covidnet_node.training import stages
    from covidnet_node.training.probing.probes import Order, as_json
    from covidnet_node.training.probing.report import PROBES, lines

    _make_room(PROBES, card, json_file)
    found = stages.probes(
        data, runs, Order(minutes, _command(), datetime.now(UTC)), load_recipe(recipe)
    )
    _publish(as_json(found), lines(found), PROBES, card, json_file)


@app.command("unseen-lungs")
def unseen_lungs(
    data: Data,
    runs: Runs = RUNS,
    minutes: Minutes = 20,
    card: Card = None,
    json_file: Json = None,
    recipe: RecipeFile = SHIPPED,
) -> None:
    """Outline lungs in a hospital whose films a segmenter never saw; ships nothing."""
    from covidnet_node.training import stages
    from covidnet_node.training.unseen_lungs import BLOCK, UnseenOrder, as_json, unseen_lines

    _make_room(BLOCK, card, json_file)
    order = UnseenOrder(minutes, _command(), datetime.now(UTC))
    found = stages.unseen_lungs(data, runs, order, load_recipe(recipe))
    _publish(as_json(found), unseen_lines(found, order), BLOCK, card, json_file)


@app.command("all")
def every_stage(
    data: Data,
    runs: Runs = RUNS,
    weights: Weights = WEIGHTS,
    budget: Budget = 60,
    recipe: RecipeFile = SHIPPED,
) -> None:
    """All stages in order within a time budget."""
    segmenter(data, runs, SEGMENTER_SHARE * budget, recipe)
    selfsupervise(data, runs, SELFSUPERVISE_SHARE * budget, recipe)
    pretrain(data, runs, PRETRAIN_SHARE * budget, recipe)
    classifier(data, runs, CLASSIFIER_SHARE * budget, recipe)
    calibrate(data, runs, recipe)
    export(data, runs, weights, recipe)


def _command() -> str:
    return shlex.join(["covidnet-node", *sys.argv[1:]])


def _make_room(block: "Block", card: Path | None, json_file: Path | None) -> None:
    """Before the long run and not after it; raises BadConfig."""
    from covidnet_node.training.evaluation.card import check_card

    if card is not None:
        check_card(card, block)
    if json_file is None:
        return
    try:
        json_file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = f"{json_file.parent} cannot be made a folder: {error.strerror}"
        raise BadConfig("train", "--json", remedy) from error


def _publish(
    figures: str, lines: Iterable[str], block: "Block", card: Path | None, json_file: Path | None
) -> None:
    """To the file, the card and the terminal."""
    from covidnet_node.training.evaluation.card import write_block

    text = tuple(lines)
    if json_file is not None:
        json_file.write_text(figures + "\n", encoding="utf-8")
    if card is not None:
        write_block(card, block, text)
    typer.echo("\n".join(text))
