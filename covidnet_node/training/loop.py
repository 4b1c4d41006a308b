"""The loop every stage shares: epochs until the recipe or the time budget ends it, resumable.

What is scored and kept is a running average of the weights (Tarvainen & Valpola 2017), which
wavers less than the weights of the last step. A checkpoint after every epoch holds network,
average, optimizer and clock; a run that was stopped goes on from there. The weights kept are
those of the epoch that scored best on validation.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from covidnet_node.training.curves import draw_curve
from covidnet_node.training.recipe import Stage

Batch = tuple[Tensor, ...]

LONGEST_MEMORY = 0.998
"""Of the running average, per step: it looks back over some 500 steps, less at the start."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one stage trains."""

    name: str
    network: nn.Module
    """On the device that it is to be trained on, the batches on the same."""
    batches: Callable[[int], Iterable[Batch]]
    """Epoch number to the epoch's batches; the same epoch gives the same batches."""
    steps: int
    """Batches per epoch."""
    loss: Callable[[nn.Module, Batch], Tensor]
    score: Callable[[nn.Module], float]
    """On validation data; larger is better."""
    seed: int
    """Of what the network itself draws (dropout), anew every epoch: a stop changes nothing."""


def training_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(slots=True)
class _Clock:
    epoch: int = 0
    seconds: float = 0.0
    best: float = -math.inf


@dataclass(frozen=True, slots=True)
class _Run:
    """Everything that a checkpoint holds."""

    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    clock: _Clock


def fit(task: Task, stage: Stage, minutes: float, folder: Path) -> float:
    """Train until the epochs or the minutes are used up; return the best validation score.

    Leaves checkpoint.pt, best.pt (a state dict, on the CPU), curve.csv and curve.png in `folder`.
    The learning rate rises over the first twentieth and falls to zero at the end, whichever end
    comes first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _begin(task, stage, folder / "checkpoint.pt")
    clock = run.clock
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(task.name, total=1.0)
        while (done := _done(clock, stage, minutes)) < 1.0:
            progress.update(bar, completed=done)
            loss = _epoch(task, run, stage, minutes)
            started = time.monotonic()
            score = task.score(run.average.module.eval())
            clock.seconds += time.monotonic() - started
            if score > clock.best:
                clock.best = score
                state = run.average.module.state_dict()
                _write(folder / "best.pt", {key: value.cpu() for key, value in state.items()})
            _save(folder / "checkpoint.pt", run)
            _record(folder / "curve.csv", clock, loss, score)
            progress.console.print(
                f"{task.name} epoch {clock.epoch} loss {loss:.4f} score {score:.4f} "
                f"{clock.seconds / 60:.1f} min"
            )
    draw_curve(folder)
    task.network.load_state_dict(torch.load(folder / "best.pt", weights_only=True))
    return clock.best


def _epoch(task: Task, run: _Run, stage: Stage, minutes: float) -> float:
    """One pass, or what the minutes allow of it; returns the mean loss and advances the clock."""
    run.network.train()
    clock, losses = run.clock, []
    torch.manual_seed(task.seed + clock.epoch)
    started, before = time.monotonic(), clock.seconds
    for step, batch in enumerate(task.batches(clock.epoch)):
        done = max(_done(clock, stage, minutes), (clock.epoch + step / task.steps) / stage.epochs)
        for group in run.optimizer.param_groups:
            group["lr"] = stage.learning_rate * _rate(done)
        loss = task.loss(run.network, batch)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.optimizer.step()
        run.average.update_parameters(run.network)
        losses.append(loss.detach())
        clock.seconds = before + time.monotonic() - started
        if clock.seconds >= 60 * minutes:
            break
    clock.epoch += 1
    return float(torch.stack(losses).mean())


def _follow(average: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
    """One step of the running average; whole numbers (batch counts) are just copied."""
    keep = min(LONGEST_MEMORY, (1 + int(steps)) / (10 + int(steps)))
    for kept, new in zip(average, current, strict=True):
        if kept.is_floating_point():
            kept.lerp_(new.to(kept.dtype), 1 - keep)
        else:
            kept.copy_(new)


def epochs_done(folder: Path) -> int:
    """Epochs that the stage in `folder` has trained; 0 if it was never begun."""
    path = folder / "checkpoint.pt"
    return int(torch.load(path, weights_only=True)["epoch"]) if path.exists() else 0


def _done(clock: _Clock, stage: Stage, minutes: float) -> float:
    return min(1.0, max(clock.epoch / stage.epochs, clock.seconds / (60 * minutes)))


def _rate(done: float) -> float:
    return min(1.0, 0.05 + done / 0.05) * 0.5 * (1 + math.cos(math.pi * done))


def _begin(task: Task, stage: Stage, path: Path) -> _Run:
    """From the checkpoint if there is one, else from the network as it is."""
    network = task.network.to(memory_format=torch.channels_last)
    average = AveragedModel(network, multi_avg_fn=_follow, use_buffers=True)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay
    )
    if not path.exists():
        return _Run(network, average, optimizer, _Clock())
    saved = torch.load(path, weights_only=True, map_location=training_device())
    network.load_state_dict(saved["network"])
    average.load_state_dict(saved["average"])
    optimizer.load_state_dict(saved["optimizer"])
    return _Run(
        network, average, optimizer, _Clock(saved["epoch"], saved["seconds"], saved["best"])
    )


def _save(path: Path, run: _Run) -> None:
    _write(
        path,
        {
            "network": run.network.state_dict(),
            "average": run.average.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "epoch": run.clock.epoch,
            "seconds": run.clock.seconds,
            "best": run.clock.best,
        },
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    """Written beside and renamed, so that a stop in between leaves the older one whole."""
    fresh = path.with_suffix(".new")
    torch.save(content, fresh)
    fresh.replace(path)


def _record(path: Path, clock: _Clock, loss: float, score: float) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(("epoch", "seconds", "loss", "score"))
        writer.writerow((clock.epoch, f"{clock.seconds:.1f}", f"{loss:.5f}", f"{score:.5f}"))
