"""The totals of all runs, as a block of docs/reliability.md."""

import json
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "fuzzing.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- generated: fuzzing -->"
END = "<!-- end: fuzzing -->"


def write_table() -> None:
    """Replace the block on the page, if the page has one."""
    if not PAGE.is_file():
        return
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        block = f"{BEGIN}\n{table()}\n{END}"
        PAGE.write_text(f"{before}{block}{after}", encoding="utf-8")


def table() -> str:
    """Inputs, time and findings by target, added up over all recorded runs."""
    runs = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    by_target = defaultdict(list)
    for run in runs:
        by_target[run["target"]].append(run)
    rows = [_row(target, by_target[target]) for target in sorted(by_target)]
    rows.append(_row("**all**", runs))
    days = sorted(run["at"][:10] for run in runs)
    engines = ", ".join(sorted({run["engine"] for run in runs}))
    head = "| Target | Runs | Seeds | Inputs | Minutes | Findings |\n|---|---|---|---|---|---|\n"
    return f"{head}{chr(10).join(rows)}\n\n{days[0]} to {days[-1]}, {engines}."


def _row(target: str, runs: list[dict]) -> str:
    given = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    inputs, seconds, findings = (
        sum(run[word] for run in runs) for word in ("inputs", "seconds", "findings")
    )
    return f"| {target} | {len(runs)} | {given} | {inputs:,} | {seconds / 60:.1f} | {findings} |"
