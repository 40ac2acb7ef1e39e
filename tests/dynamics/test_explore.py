"""Number of processes of an exploration: none are started for short ones on the CPU."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from mlip_assets.dynamics.explore import Exploration
from tests.dynamics.oscillators import campaign, columns, copper, same

HERE = Path(__file__).parent


@pytest.fixture
def explored(tmp_path, monkeypatch):
    """``explored(delay_s)``: columns of the frames of two walkers, processes with a calculator."""
    monkeypatch.syspath_prepend(HERE)  # worker processes import the surrogate's module from there
    from oscillators import HarmonicSurrogate

    module = importlib.import_module(
        Exploration.__module__
    )  # the package has a function of its name
    monkeypatch.setattr(module, "WORKER_START_S", 1.0)

    def run(delay_s, device="cpu", folder=None):
        folder = folder or f"{device}-{delay_s}"
        log = tmp_path / f"{folder}.log"
        log.write_text("")
        surrogate = HarmonicSurrogate("harmonic", "0" * 64, (device,), "float64", delay_s, log)
        exploration = Exploration.plan(campaign(), [copper()], surrogate)
        trajectory = exploration.run(tmp_path / folder, 2)
        return columns(trajectory), [int(line) for line in log.read_text().split()]

    return run


@pytest.mark.slow
def test_exploration_starts_processes_only_if_estimate_is_long(explored):
    short, processes = explored(0.0)
    assert processes == [os.getpid()], "one calculator, for the estimate and the walkers"
    long, (estimating, *workers) = explored(0.02)  # 2 × 60 steps take 2.4 s
    assert estimating == os.getpid()
    assert len(set(workers) - {os.getpid()}) == len(workers) == 2
    assert same(short, long)


def test_exploration_estimate_counts_remaining_steps_only(explored):
    first, _ = explored(0.0, folder="resumed")
    again, processes = explored(0.02, folder="resumed")
    assert processes == [], "complete walkers need no calculator"
    assert same(first, again)


def test_exploration_on_gpus_always_starts_a_process_per_worker(explored):
    _, processes = explored(0.0, device="cuda:0")
    assert len(set(processes) - {os.getpid()}) == len(processes) == 2
