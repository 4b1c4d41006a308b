"""The loop every stage shares: epochs until the recipe or the time budget ends it, resumable.

A checkpoint after every epoch holds network, optimizer and clock; a run that was stopped goes
on from there. The weights kept are those of the epoch that scored best on validation.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from covidnet_node.training.recipe import Stage

Batch = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What one stage trains."""

    name: str
    network: nn.Module
    batches: Callable[[int], Iterable[Batch]]
    """Epoch number to the epoch's batches; the same epoch gives the same batches."""
    steps: int
    """Batches per epoch."""
    loss: Callable[[nn.Module, Batch], Tensor]
    score: Callable[[nn.Module], float]
    """On validation data; larger is better."""


@dataclass(slots=True)
class _Clock:
    epoch: int = 0
    seconds: float = 0.0
    best: float = -math.inf


def fit(task: Task, stage: Stage, minutes: float, folder: Path) -> float:
    """Train until the epochs or the minutes are used up; return the best validation score.

    Leaves checkpoint.pt, best.pt (a state dict) and curve.csv in `folder`. The learning rate
    rises over the first twentieth and falls to zero at the end, whichever end comes first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = task.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay
    )
    clock = _resume(folder / "checkpoint.pt", network, optimizer)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(task.name, total=1.0)
        while (done := _done(clock, stage, minutes)) < 1.0:
            progress.update(bar, completed=done)
            loss = _epoch(task, optimizer, clock, stage, minutes)
            started = time.monotonic()
            score = task.score(network.eval())
            clock.seconds += time.monotonic() - started
            if score > clock.best:
                clock.best = score
                torch.save(network.state_dict(), folder / "best.pt")
            _save(folder / "checkpoint.pt", network, optimizer, clock)
            _record(folder / "curve.csv", clock, loss, score)
            progress.console.print(
                f"{task.name} epoch {clock.epoch} loss {loss:.4f} score {score:.4f} "
                f"{clock.seconds / 60:.1f} min"
            )
    network.load_state_dict(torch.load(folder / "best.pt", weights_only=True))
    return clock.best


def _epoch(
    task: Task, optimizer: torch.optim.Optimizer, clock: _Clock, stage: Stage, minutes: float
) -> float:
    """One pass, or what the minutes allow of it; returns the mean loss and advances the clock."""
    task.network.train()
    started, before, losses = time.monotonic(), clock.seconds, []
    for step, batch in enumerate(task.batches(clock.epoch)):
        done = max(_done(clock, stage, minutes), (clock.epoch + step / task.steps) / stage.epochs)
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * _rate(done)
        loss = task.loss(task.network, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(task.network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        clock.seconds = before + time.monotonic() - started
        if clock.seconds >= 60 * minutes:
            break
    clock.epoch += 1
    return sum(losses) / len(losses)


def _done(clock: _Clock, stage: Stage, minutes: float) -> float:
    return min(1.0, max(clock.epoch / stage.epochs, clock.seconds / (60 * minutes)))


def _rate(done: float) -> float:
    return min(1.0, 0.05 + done / 0.05) * 0.5 * (1 + math.cos(math.pi * done))


def _resume(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> _Clock:
    if not path.exists():
        return _Clock()
    saved = torch.load(path, weights_only=True)
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    return _Clock(saved["epoch"], saved["seconds"], saved["best"])


def _save(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, clock: _Clock) -> None:
    """Written beside and renamed, so that a stop in between leaves the older one whole."""
    fresh = path.with_suffix(".new")
    torch.save(
        {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": clock.epoch,
            "seconds": clock.seconds,
            "best": clock.best,
        },
        fresh,
    )
    fresh.replace(path)


def _record(path: Path, clock: _Clock, loss: float, score: float) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(("epoch", "seconds", "loss", "score"))
        writer.writerow((clock.epoch, f"{clock.seconds:.1f}", f"{loss:.5f}", f"{score:.5f}"))
