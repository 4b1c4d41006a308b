"""The command line. Each command reads node.toml once and passes it down.

Exit codes follow sysexits.h: 0 well, 1 something found wrong, 64 wrong use, 69 not now (disk full,
journal busy), 78 bad configuration.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from covidnet_node import train
from covidnet_node.case import State
from covidnet_node.config import Config, load_config
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.evaluate import evaluate
from covidnet_node.intended_use import NOTICE, PRODUCT

EX_OK, EX_FOUND, EX_USAGE, EX_UNAVAILABLE, EX_CONFIG = 0, 1, 64, 69, 78
CLICK_USAGE = 2
"""What the command line library ends with after wrong use."""
DEFAULT_CONFIG = Path("/etc/covidnet-node/node.toml")

app = typer.Typer(
    name="covidnet-node",
    help=f"{PRODUCT}: chest X-rays in, report and heatmap back. {NOTICE}.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
queue = typer.Typer(help="Look at cases, requeue or discard them.", no_args_is_help=True)
app.add_typer(queue, name="queue")
app.add_typer(train.app, name="train")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help=f"node.toml; if not given {DEFAULT_CONFIG}, or else the defaults.",
        metavar="FILE",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]

out = Console()
err = Console(stderr=True)


def read_config(path: Path | None) -> Config:
    """The configuration named, or the system's, or the defaults."""
    if path is not None:
        return load_config(path)
    return load_config(DEFAULT_CONFIG) if DEFAULT_CONFIG.exists() else Config()


@contextmanager
def open_journal(config: Config) -> Iterator[Any]:
    """The journal of an installed node; says so plainly if there is none yet."""
    from covidnet_node.journal.journal import Journal

    path = config.node.data / "journal.db"
    try:
        there = path.exists()
    except OSError as error:
        remedy = f"{path} cannot be reached ({error.strerror}); run this as the node's own user"
        raise BadConfig("node.toml", "node.data", remedy) from error
    if not there:
        raise BadConfig("node.toml", "node.data", f"no journal at {path}; has the node run yet?")
    with Journal.open(path) as journal:
        yield journal


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Run the node in the foreground until SIGTERM (systemd: Type=notify)."""
    from covidnet_node.service.logs import configure_logs
    from covidnet_node.service.run import serve as run

    settings = read_config(config)
    configure_logs(settings.log)
    run(settings)


@app.command()
def check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Check configuration, weights, device, disk, ports and every destination."""
    from covidnet_node.check import check_node

    findings = list(check_node(read_config(config)))
    if as_json:
        print(json.dumps([{"what": f.what, "ok": f.ok, "words": f.words} for f in findings]))
    else:
        for finding in findings:
            mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
            out.print(f"{mark} [bold]{finding.what}[/]: {finding.words}", highlight=False)
    raise typer.Exit(EX_OK if all(finding.ok for finding in findings) else EX_FOUND)


@app.command()
def analyze(
    files: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the result objects.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Analyze files without network or journal, and write their result objects."""
    from covidnet_node.analyze_files import analyze_files
    from covidnet_node.service.logs import configure_logs
    from covidnet_node.service.medicine import open_medicine
    from covidnet_node.service.workers import devices

    settings = read_config(config)
    configure_logs(settings.log.model_copy(update={"level": "WARNING"}))
    medicine = open_medicine(settings.analyze, devices(settings)[0])
    table = Table("file", "outcome", "COVID-19", "pneumonia", "normal", "seconds", "objects")
    answers = []
    for answer in analyze_files(files, out_dir, settings, medicine):
        answers.append(answer.as_json())
        table.add_row(*_answer_cells(answers[-1]))
        if not as_json:
            err.print(f"{answer.file}: {answers[-1]['outcome']}", highlight=False)
    if as_json:
        print(json.dumps(answers, indent=2))
    else:
        out.print(table)
        out.print(f"{NOTICE}. {medicine.algorithm.notice}", highlight=False)


def _answer_cells(answer: dict[str, Any]) -> list[str]:
    said = answer["probabilities"] or {}
    shares = [
        f"{100 * said[name]:.1f} %" if said else "-" for name in ("covid19", "pneumonia", "normal")
    ]
    outcome = answer["outcome"] + (f": {answer['reason']}" if answer["reason"] else "")
    kinds = " ".join(each["kind"] for each in answer["objects"])
    seconds = f"{answer['seconds']['total']:.2f}"
    return [Path(answer["file"]).name, outcome, *shares, seconds, kinds or "-"]


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the heatmaps.")] = Path("demo"),
) -> None:
    """Start a node and a throw-away PACS, send synthetic chest X-rays, show what comes back."""
    from covidnet_node.demo.run import run_demo

    raise typer.Exit(EX_OK if run_demo(out_dir, out) else EX_FOUND)


app.command()(evaluate)


@app.command()
def conformance(
    page: Annotated[Path, typer.Argument(metavar="FILE")] = Path("docs/conformance.md"),
    *,
    write: Annotated[bool, typer.Option("--write", help="Write the tables into FILE.")] = False,
) -> None:
    """Compare the tables of the DICOM conformance statement with what the node does."""
    from covidnet_node.conformance.example import build_examples
    from covidnet_node.conformance.statement import fill

    try:
        before = page.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(str(page), "file", f"cannot be read: {error.strerror}") from error
    after = fill(before, page.name, build_examples())
    if write:
        page.write_text(after, encoding="utf-8")
    same = write or before == after
    words = "is up to date" if same else "differs from what the node does; run again with --write"
    out.print(f"{page} {words}", highlight=False, soft_wrap=True)
    raise typer.Exit(EX_OK if same else EX_FOUND)


@app.command()
def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Counts and oldest age per state, what is owed to whom, last errors."""
    from covidnet_node.service.http import condition

    with open_journal(read_config(config)) as journal:
        told = condition(journal, datetime.now(UTC))
    if as_json:
        print(json.dumps(told))
        return
    for title, rows in told.items():
        if rows:
            table = make_table(rows[0], title)
            for row in rows:
                table.add_row(*("-" if value is None else str(value) for value in row.values()))
            out.print(table)


@queue.command("list")
def queue_list(
    config: ConfigOption = None,
    state: Annotated[State | None, typer.Option(help="Only cases in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    *,
    as_json: JsonOption = False,
) -> None:
    """Cases, newest first."""
    from covidnet_node.service.http import summary

    with open_journal(read_config(config)) as journal:
        cases = [summary(case) for case in journal.cases(state, limit)]
    if as_json:
        print(json.dumps(cases))
    else:
        _print_cases(cases, "cases")


@queue.command("show")
def queue_show(
    case_id: Annotated[str, typer.Argument(help="As `queue list` and every log line give it.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """One case: its history, its results, and where each was delivered."""
    from covidnet_node.journal.transitions import UnknownCase
    from covidnet_node.service.http import story

    with open_journal(read_config(config)) as journal:
        try:
            told = story(journal, case_id)
        except UnknownCase as error:
            err.print(str(error), highlight=False)
            raise typer.Exit(EX_FOUND) from error
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for key, value in told["case"].items():
        out.print(f"[bold]{key}[/]: {value}", highlight=False)
    for title in ("history", "results", "deliveries"):
        if told[title]:
            table = make_table(told[title][0], title)
            for row in told[title]:
                table.add_row(*(str(value) for value in row.values()))
            out.print(table)


@queue.command("requeue")
def queue_requeue(
    case_ids: Annotated[list[str], typer.Argument()],
    config: ConfigOption = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Analyze anew, not only send.")] = False,
) -> None:
    """Send a case's results again, or analyze it again."""

    def act(journal: Any, case_id: str) -> str:  # noqa: ANN401 - Journal, imported late
        case = journal.requeue(case_id, datetime.now(UTC), again=again)
        return f"{case_id}: {case.state.value}"

    _act_on(case_ids, config, act)


@queue.command("discard")
def queue_discard(
    case_ids: Annotated[list[str], typer.Argument()],
    why: Annotated[str, typer.Option(help="Goes into the case's history.")],
    config: ConfigOption = None,
) -> None:
    """Close a case without (further) answer."""

    def act(journal: Any, case_id: str) -> str:  # noqa: ANN401 - Journal, imported late
        case = journal.discard(case_id, datetime.now(UTC), why)
        return f"{case_id}: {case.state.value}"

    _act_on(case_ids, config, act)


def _act_on(case_ids: list[str], config: Path | None, act: Callable[[Any, str], str]) -> None:
    from covidnet_node.journal.transitions import IllegalTransition, UnknownCase

    failed = False
    with open_journal(read_config(config)) as journal:
        for case_id in case_ids:
            try:
                out.print(act(journal, case_id), highlight=False)
            except (IllegalTransition, UnknownCase) as error:
                err.print(str(error), highlight=False)
                failed = True
    raise typer.Exit(EX_FOUND if failed else EX_OK)


def _print_cases(cases: list[dict[str, Any]], title: str) -> None:
    if not cases:
        return
    table = make_table(("case", "state", "outcome", "reason", "from", "received"), title)
    for case in cases:
        reason = ": ".join(word for word in (case["reason"], case["detail"]) if word)
        table.add_row(
            case["id"],
            case["state"],
            case["outcome"] or "",
            reason,
            case["calling_ae"],
            case["received_at"],
        )
    out.print(table)


def make_table(columns: Iterable[str], title: str) -> Table:
    """A table whose cells stay whole: a case id cut short is of no use."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("case", "at", "state"))
    return table


def main() -> None:
    """Entry point: verdicts become exit codes and one clear sentence."""
    try:
        app()
    except SystemExit as leaving:
        sys.exit(EX_USAGE if leaving.code == CLICK_USAGE else leaving.code)
    except BadConfig as error:
        err.print(f"covidnet-node: {error}", style="red", highlight=False, soft_wrap=True)
        sys.exit(EX_CONFIG)
    except RetryLater as error:
        err.print(f"covidnet-node: {error}", style="red", highlight=False, soft_wrap=True)
        sys.exit(EX_UNAVAILABLE)
