"""`python -m torture`: one run, its line on record, and the table made anew."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import get_args

from torture.node import WorkerKind
from torture.run import Plan, record, say, torture
from torture.table import read_runs, write_table

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "torture" / "runs.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
NO_END = 10**9


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--images", type=int, default=NO_END, help="end after so many, too")
    parser.add_argument("--worker", choices=get_args(WorkerKind), default="stand-in")
    parser.add_argument("--rate", type=float, default=6.0, help="images a second")
    parser.add_argument("--pause", type=float, default=6.0, help="mean seconds between faults")
    parser.add_argument(
        "--soak", type=float, default=0.3, help="share without restarts, at the end"
    )
    parser.add_argument("--folder", type=Path, help="where to leave its files")
    parser.add_argument("--table", action="store_true", help="only make the table anew")
    return parser.parse_args()


def main() -> int:
    """0 if nothing was lost, duplicated or changed."""
    asked = arguments()
    found = 0
    if not asked.table:
        with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
            plan = Plan(
                seed=asked.seed,
                minutes=asked.minutes,
                images=asked.images,
                worker=asked.worker,
                rate=asked.rate,
                soak=asked.soak,
                folder=(asked.folder or Path(scratch)) / f"run-{asked.seed}",
                pause=asked.pause,
            )
            result = torture(plan)
        record(result, RUNS)
        found = result["lost"] + result["duplicated"] + result["changed"]
        for key, value in result.items():
            say(f"{key}: {value}")
    write_table(read_runs(RUNS), PAGE)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
