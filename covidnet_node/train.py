"""`covidnet-node train`: the stages of training, each resumable, and all of them in one go."""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import NOTICE

app = typer.Typer(
    help="Remake the weights from a folder of images with a manifest.csv; every stage resumes.",
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option("--data", help="Folder with manifest.csv, images/, masks/.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of checkpoints and caches.")]
Weights = Annotated[Path, typer.Option("--weights", help="Folder to export to.")]
Minutes = Annotated[float, typer.Option("--minutes", min=0.1, help="Time budget of the stage.")]
Budget = Annotated[float, typer.Option("--budget", min=1, help="Time budget of all, in minutes.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Default: the shipped recipe.")]
ProbesCard = Annotated[
    Path | None, typer.Option("--card", help="Model card whose probes are to be replaced.")
]
ProbesJson = Annotated[
    Path | None, typer.Option("--json", help="Write the probes' figures to this file.")
]

RUNS, WEIGHTS = Path("runs"), Path("weights")

SEGMENTER_SHARE, SELFSUPERVISE_SHARE, PRETRAIN_SHARE, CLASSIFIER_SHARE = 0.3, 0.2, 0.1, 0.4
"""Of the budget of `train all`. Cutting the crops, calibration and export come on top."""


@app.command()
def segmenter(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 20, recipe: RecipeFile = None
) -> None:
    """Learn where the lungs are, and cut them out of every image."""
    from covidnet_node.training import recipe as recipes
    from covidnet_node.training import stages

    stages.segmenter(data, runs, minutes, recipes.load_recipe(recipe or recipes.SHIPPED))


@app.command()
def selfsupervise(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 20, recipe: RecipeFile = None
) -> None:
    """Teach both members, without labels, to restore masked images; pretrain starts from there."""
    from covidnet_node.training import recipe as recipes
    from covidnet_node.training import stages

    stages.selfsupervise(data, runs, minutes, recipes.load_recipe(recipe or recipes.SHIPPED))


@app.command()
def pretrain(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 10, recipe: RecipeFile = None
) -> None:
    """Teach both members pneumonia: A on whole images, B on lung crops."""
    from covidnet_node.training import recipe as recipes
    from covidnet_node.training import stages

    stages.pretrain(data, runs, minutes, recipes.load_recipe(recipe or recipes.SHIPPED))


@app.command()
def classifier(
    data: Data, runs: Runs = RUNS, minutes: Minutes = 30, recipe: RecipeFile = None
) -> None:
    """Fine-tune both members on lung crops into COVID-19, pneumonia and normal."""
    from covidnet_node.training import recipe as recipes
    from covidnet_node.training import stages

    stages.classifier(data, runs, minutes, recipes.load_recipe(recipe or recipes.SHIPPED))


@app.command()
def calibrate(data: Data, runs: Runs = RUNS, recipe: RecipeFile = None) -> None:
    """Fit temperature, thresholds and out-of-distribution distance on the validation split."""
    from covidnet_node.training import recipe as recipes
    from covidnet_node.training import stages

    stages.calibrate(data, runs, recipes.load_recipe(recipe or recipes.SHIPPED))


@app.command()
def export(
    data: Data, runs: Runs = RUNS, weights: Weights = WEIGHTS, recipe: RecipeFile = None
) -> None:
    """Write safetensors and manifest.toml, measured on the test split as the node runs them."""
    from covidnet_node.training import recipe as recipes
    from covidnet_node.training import stages

    manifest = stages.export(data, runs, weights, recipes.load_recipe(recipe or recipes.SHIPPED))
    typer.echo(f"{weights}: {manifest.algorithm.name} {manifest.algorithm.version}. {NOTICE}.")


@app.command()
def probes(
    data: Data,
    runs: Runs = RUNS,
    minutes: Minutes = 30,
    card: ProbesCard = None,
    json_file: ProbesJson = None,
    recipe: RecipeFile = None,
) -> None:
    """Ask what fresh networks learn from what should not matter: hospitals, black lungs, shapes."""
    from covidnet_node.training import recipe as recipes
    from covidnet_node.training import stages
    from covidnet_node.training.evaluation.card import check_card, write_block
    from covidnet_node.training.probing.probes import Order, as_json
    from covidnet_node.training.probing.report import PROBES, lines

    if card is not None:
        check_card(card, PROBES)
    _make_room(json_file)
    order = Order(minutes, shlex.join(["covidnet-node", *sys.argv[1:]]), datetime.now(UTC))
    found = stages.probes(data, runs, order, recipes.load_recipe(recipe or recipes.SHIPPED))
    if json_file is not None:
        json_file.write_text(as_json(found) + "\n", encoding="utf-8")
    if card is not None:
        write_block(card, PROBES, lines(found))
    typer.echo("\n".join(lines(found)))


@app.command("all")
def every_stage(
    data: Data,
    runs: Runs = RUNS,
    weights: Weights = WEIGHTS,
    budget: Budget = 60,
    recipe: RecipeFile = None,
) -> None:
    """All stages in order within a time budget."""
    segmenter(data, runs, SEGMENTER_SHARE * budget, recipe)
    selfsupervise(data, runs, SELFSUPERVISE_SHARE * budget, recipe)
    pretrain(data, runs, PRETRAIN_SHARE * budget, recipe)
    classifier(data, runs, CLASSIFIER_SHARE * budget, recipe)
    calibrate(data, runs, recipe)
    export(data, runs, weights, recipe)


def _make_room(file: Path | None) -> None:
    """Before the long run and not after it; raises BadConfig."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = f"{file.parent} cannot be made a folder: {error.strerror}"
        raise BadConfig("train", "--json", remedy) from error
