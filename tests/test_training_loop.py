"""The loop that every stage shares: budget, running average, stop and resume."""

from dataclasses import replace

import pytest
import torch

from covidnet_node.training.loop import Task, fit
from tests.tiny_medicine import tiny_recipe


def test_the_budget_ends_a_stage_within_an_epoch(tmp_path):
    network, steps = torch.nn.Conv2d(1, 1, 1), []

    def loss(trained, batch):
        steps.append(batch)
        return trained(batch[0]).mean()

    task = Task(
        name="short",
        network=network,
        batches=lambda _epoch: ((torch.ones(1, 1, 2, 2),) for _ in range(100)),
        steps=100,
        loss=loss,
        score=lambda _network: 0.0,
        seed=1,
    )
    fit(task, tiny_recipe().pretrain, 1e-9, tmp_path)
    assert len(steps) == 1
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 2


def two_pictures(epoch):
    """The same two batches whenever the same epoch is asked for."""
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(2):
        yield (torch.rand(4, 1, 8, 8, generator=generator),)


def small_task(score):
    """A network with batch statistics, and with draws of its own."""
    torch.manual_seed(1)
    return Task(
        name="small",
        network=torch.nn.Sequential(
            torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Dropout(0.5)
        ),
        batches=two_pictures,
        steps=2,
        loss=lambda trained, batch: (trained(batch[0]) - 1).square().mean(),
        score=score,
        seed=1,
    )


def test_a_running_average_is_what_is_scored_and_kept(tmp_path):
    scored = []

    def score(network):
        assert not network.training
        scored.append({key: value.clone() for key, value in network.state_dict().items()})
        return float(len(scored))

    fit(small_task(score), replace(tiny_recipe().pretrain, epochs=2), 60.0, tmp_path)
    kept = torch.load(tmp_path / "best.pt")
    last = torch.load(tmp_path / "checkpoint.pt")["network"]
    assert all(torch.equal(kept[key], scored[-1][key]) for key in kept)
    assert not torch.equal(kept["0.weight"], last["0.weight"])
    assert (kept["0.weight"] - last["0.weight"]).abs().max() < 0.1


def test_a_run_stopped_in_an_epoch_ends_where_an_uninterrupted_one_does(tmp_path):
    stage = replace(tiny_recipe().pretrain, epochs=3)
    fit(small_task(lambda _network: 0.5), stage, 60.0, tmp_path / "whole")

    calls = []

    def stopped(_network):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        fit(small_task(stopped), stage, 60.0, tmp_path / "stopped")
    fit(small_task(lambda _network: 0.5), stage, 60.0, tmp_path / "stopped")
    one, two = (torch.load(tmp_path / run / "checkpoint.pt") for run in ("whole", "stopped"))
    assert one["epoch"] == two["epoch"] == 3
    for part in ("network", "average"):
        assert all(torch.equal(one[part][key], two[part][key]) for key in one[part])
