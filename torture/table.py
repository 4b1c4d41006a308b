"""All runs so far as one table, in docs/reliability.md."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- made by `make torture`: begin -->", "<!-- made by `make torture`: end -->"
Run = dict[str, Any]


def read_runs(file: Path) -> list[Run]:
    """Every run on record, oldest first."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def write_table(runs: list[Run], page: Path) -> None:
    """Put the table between its two marks; raises ValueError where they are missing."""
    text = page.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(f"{text[:begin]}\n\n{table(runs)}\n\n{text[end:]}")


def table(runs: list[Run]) -> str:
    """The whole block."""
    if not runs:
        return "No run is on record."
    parts = [_head(runs), _totals(runs), _faults(runs), _runs(runs)]
    return "\n\n".join(parts)


def _head(runs: list[Run]) -> str:
    hours = sum(run["minutes"] for run in runs) / 60
    dates = sorted({run["date"][:10] for run in runs})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    seeds = ", ".join(str(run["seed"]) for run in runs)
    machines = sorted({run["machine"].split(", load")[0] for run in runs})
    loads = [load_of(run) for run in runs]
    return (
        f"{len(runs)} runs, {when}, {hours:.1f} hours of torment; seeds {seeds}; on "
        f"{' and '.join(machines)}, shared with other work (load at the end of a run "
        f"{min(loads):.0f} to {max(loads):.0f})."
    )


def _totals(runs: list[Run]) -> str:
    def row(name: str, count: Any) -> str:
        cells = [count(group) for group in (_of(runs, "real"), _of(runs, "stand-in"), runs)]
        return f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |"

    def total(key: str) -> Any:
        return lambda group: sum(run.get(key, 0) for run in group)

    def faults(*names: str) -> Any:
        return lambda group: sum(
            number
            for run in group
            for fault, number in run["faults"].items()
            if not names or fault.startswith(names)
        )

    kills = ("node: SIGKILL",)
    lines = [
        f"| | {_real(runs)} | stand-in worker | together |",
        "|---|---|---|---|",
        row("faults injected", faults()),
        row("of these SIGKILL of a worker", faults("worker: SIGKILL")),
        row("of these SIGKILL of the node", faults(*kills)),
        row("images acknowledged (0000)", total("acknowledged")),
        row("refused at first, and sent again", total("refused_and_sent_again")),
        row("most in flight at once", _most_in_flight),
        row("delivered: their report is at the PACS", total("delivered")),
        row("of these parked, their report says technical failure", _failed),
        row("objects at the PACS", total("objects")),
        row("sent twice with the same bytes (harmless)", total("resent")),
        row("**duplicated**", total("duplicated")),
        row("**same UID, other bytes**", total("changed")),
        row("results made (in runs that counted them)", total("owed")),
        row("of these **not at the PACS**", total("missing")),
        row("analyzed **without a heatmap**", total("without_heatmap")),
        row("**lost**", total("lost")),
        row("C-ECHO asked while the node was up", lambda group: _echo(group, "asked", sum)),
        row("C-ECHO not answered", lambda group: _echo(group, "unanswered", sum)),
        row("C-ECHO later than 1 s", lambda group: _echo(group, "over_1_s", sum)),
    ]
    return "\n".join(lines)


def _real(runs: list[Run]) -> str:
    """The column's name: who answered what was left at the end is not always the real worker."""
    drained = [run["seed"] for run in _of(runs, "real") if run.get("drained_by", "real") != "real"]
    if not drained:
        return "real worker"
    seeds = ", ".join(map(str, drained))
    return f"real worker (the backlog of {seeds} answered by the stand-in)"


def _failed(runs: list[Run]) -> int:
    return sum(run["cases"].get("parked: technical_failure", 0) for run in runs)


def _faults(runs: list[Run]) -> str:
    counted: Counter[str] = Counter()
    for run in runs:
        counted.update(run["faults"])
    lines = ["| Fault | Times |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {number:,} |" for name, number in counted.items())])


def _runs(runs: list[Run]) -> str:
    head = (
        "| Seed | Worker | Minutes, load | Faults | Images | C-ECHO median, 99 %, longest; later "
        "than 1 s | a byte to "
        "another process, longest | Longest life | its memory | its threads, files |"
    )
    lines = [head, "|---" * 10 + "|"]
    for run in runs:
        echo, memory = run["echo"], run["memory"]
        held = rest = "too short to tell"
        if "rss_mib_first" in memory:
            held = f"{memory['rss_mib_first']:.0f} → {memory['rss_mib_last']:.0f} MiB"
            threads = f"{memory['threads_first']:.0f} → {memory['threads_last']:.0f}"
            rest = f"{threads}, {memory['files_first']:.0f} → {memory['files_last']:.0f}"
        spans = [f"{echo[key]:.2f}" for key in ("median_s", "p99_s", "longest_s")]
        lines.append(
            f"| {run['seed']} | {run['worker']} | {run['minutes']:.0f}, {load_of(run):.0f} | "
            f"{sum(run['faults'].values()):,} | {run['acknowledged']:,} | "
            f"{', '.join(spans)} s; {echo['over_1_s']} of {echo['asked']:,} | "
            f"{echo['machine_longest_s']:.2f} s | {memory['minutes']:.0f} min | {held} | {rest} |"
        )
    return "\n".join(lines)


def load_of(run: Run) -> float:
    """Of the machine, at the run's end."""
    return float(run["machine"].rsplit(" ", 1)[1])


def _of(runs: Iterable[Run], worker: str) -> list[Run]:
    return [run for run in runs if run["worker"] == worker]


def _most_in_flight(runs: list[Run]) -> int:
    return max((run["in_flight"] for run in runs), default=0)


def _echo(runs: Iterable[Run], key: str, fold: Any) -> Any:
    return fold(run["echo"][key] for run in runs)
