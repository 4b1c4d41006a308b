"""Fuzz all targets for some minutes, keep what is found, and write down how much was tried.

    python -m fuzz.run --minutes 10 --seed 1 [--target header --target wire ...]

Each target gets its share of the time in processes of its own; one that finds something is started
again until its time is up. A find is kept in tests/bad_input/found, where the tests replay it.
Totals go to docs/fuzzing.jsonl, one line a target and run, and from there into docs/reliability.md.
"""

import argparse
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from fuzz.table import RECORD, write_table
from fuzz.targets import TARGETS, seeds

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "tests" / "bad_input" / "found"
SHARES = {"header": 5, "look": 3, "frame": 3, "report": 2, "wire": 4}
"""Of the time."""
LONGEST = {"header": 8_000, "look": 8_000, "frame": 6_000, "report": 8_000, "wire": 4_000}
"""Bytes of an input."""
MEMORY_MIB = 3000
"""A fuzzer that needs more has found something, too."""
SLOW_S = 60
_DONE = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")
_SEEN = re.compile(rb"^#(\d+)\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Run:
    """What one target was given, and what came of it."""

    at: str
    target: str
    seed: int
    seconds: float
    inputs: int
    findings: int
    engine: str


def main() -> None:
    """Run all targets one after the other; exit status 1 if anything was found."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=10)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--target", action="append", choices=sorted(SHARES))
    asked = words.parse_args()
    names = asked.target or list(SHARES)
    whole = sum(SHARES[name] for name in names)
    runs = []
    for name in names:
        run = fuzz(name, 60 * asked.minutes * SHARES[name] / whole, asked.seed)
        with RECORD.open("a", encoding="utf-8") as record:
            record.write(json.dumps(asdict(run)) + "\n")
        runs.append(run)
        print(f"{name}: {run.inputs} inputs in {run.seconds:.0f} s, {run.findings} findings")  # noqa: T201 - a command's answer
    write_table()
    sys.exit(1 if any(run.findings for run in runs) else 0)


def fuzz(target: str, seconds: float, seed: int) -> Run:
    """Fuzz one target for so long."""
    started, inputs, findings = monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="covidnet-fuzz-") as name:
        corpus, artifacts = Path(name) / "corpus", Path(name) / "artifacts"
        corpus.mkdir()
        artifacts.mkdir()
        for number, data in enumerate(seeds(target, seed)):
            (corpus / f"{number:06}").write_bytes(data)
        while (left := seconds - (monotonic() - started)) > 1:
            # Another seed after a find, so that the same one is not met at once.
            tried = _fuzz_once(target, corpus, artifacts, left, seed + findings)
            inputs += tried
            kept = _keep(target, artifacts)
            findings += kept
            if not tried:
                break  # it cannot run here
    version = importlib.metadata.version("atheris")
    return Run(
        at=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        target=target,
        seed=seed,
        seconds=round(monotonic() - started, 1),
        inputs=inputs,
        findings=findings,
        engine=f"atheris {version}",
    )


def _fuzz_once(target: str, corpus: Path, artifacts: Path, seconds: float, seed: int) -> int:
    """Until a find or the end of the time; how many inputs were tried."""
    flags = [
        f"-max_total_time={max(1, int(seconds))}", f"-seed={seed}", f"-max_len={LONGEST[target]}",
        f"-artifact_prefix={artifacts}/", f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={SLOW_S}",
        "-print_final_stats=1", f"-report_slow_units={SLOW_S}", "-len_control=0", "-reload=0",
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "fuzz.one", target, str(corpus), *flags],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    if any(artifacts.iterdir()) or b"stat::" not in done.stderr:
        last = done.stderr[-3000:].decode("utf-8", "replace")
        sys.stderr.write(f"{last}\n{target}: ended with status {done.returncode}\n")
    counted = _DONE.findall(done.stderr) or _SEEN.findall(done.stderr)
    return int(counted[-1]) if counted else 0


def _keep(target: str, artifacts: Path) -> int:
    """Move what was found to the inputs that the tests replay; how many were not there yet."""
    new = 0
    FOUND.mkdir(exist_ok=True)
    for path in sorted(artifacts.iterdir()):
        data = path.read_bytes()
        kept = FOUND / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
        new += not kept.exists()
        kept.write_bytes(data)
        path.unlink()
    return new


if __name__ == "__main__":
    assert set(SHARES) == {*TARGETS, "wire"}
    main()
