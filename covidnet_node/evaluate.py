"""`covidnet-node evaluate`: every figure of the model card, on any folder with a manifest."""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from covidnet_node.errors import BadConfig

Data = Annotated[Path, typer.Option("--data", help="Folder with manifest.csv, images/, masks/.")]
Chosen = Annotated[str, typer.Option("--split", help="train, val, test or all.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")]
Report = Annotated[
    Path | None,
    typer.Option("--report", help="Folder for a readable report, plots and resumable answers."),
]
Card = Annotated[
    Path | None, typer.Option("--card", help="Model card whose figures are to be replaced.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many films, drawn from all.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Weights folder; if not given the shipped one.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]


def evaluate(
    data: Data,
    split: Chosen = "test",
    json_file: Json = None,
    report: Report = None,
    card: Card = None,
    limit: Limit = None,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Measure the weights on a folder of films, through the node's own analysis; never trains."""
    from covidnet_node.models.manifest import load_manifest, weights_folder
    from covidnet_node.models.networks import load_networks
    from covidnet_node.training.evaluation.card import check_card, write_card
    from covidnet_node.training.evaluation.evaluation import Order, as_json
    from covidnet_node.training.evaluation.evaluation import evaluate as measure
    from covidnet_node.training.evaluation.report import summary, write_report

    _make_room(json_file.parent if json_file else None, "--json")
    _make_room(report, "--report")
    if card is not None:
        check_card(card)
    folder = weights_folder(weights)
    networks = load_networks(load_manifest(folder), folder, device)
    command = shlex.join(["covidnet-node", *sys.argv[1:]])
    order = Order(data, split, limit, command, datetime.now(UTC))
    kept = report / "answers.jsonl" if report else None
    measured = measure(order, networks, kept, Console(stderr=True), threads)
    if json_file is not None:
        json_file.write_text(as_json(measured.evaluation) + "\n", encoding="utf-8")
    if report is not None:
        typer.echo(f"Report: {write_report(measured, report)}")
    if card is not None:
        write_card(measured.evaluation, card)
    typer.echo(summary(measured.evaluation))


def _make_room(folder: Path | None, option: str) -> None:
    """Before the long run and not after it; raises BadConfig."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = f"{folder} cannot be made a folder: {error.strerror}"
        raise BadConfig("evaluate", option, remedy) from error
