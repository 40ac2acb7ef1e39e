"""``explore``: the same frames as its parts give, its structures, and resumption."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase.build import bulk

from mlip_assets import Campaign, SurrogateError, build_seeds, explore, find_surrogate
from mlip_assets.dynamics import exploration as walkers_module
from mlip_assets.dynamics import plan_walkers, run_walkers
from tests.dynamics.oscillators import columns, same


def argon(**exploration: object) -> Campaign:
    return Campaign(
        name="argon",
        composition="Ar",
        seeds={"kinds": ["crystal", "rattled"], "crystal_atoms": 16},
        exploration={
            "surrogate": "lennard-jones",
            "temperatures_K": [30, 60],
            "n_steps": 20,
            "sample_every": 5,
            **exploration,
        },
        sampling={"n_samples": 4},
        training={"start_from": "scratch"},
    )


def test_explore_gives_the_frames_of_its_parts(tmp_path):
    campaign = argon()
    surrogate = find_surrogate("lennard-jones", device="cpu", dtype=campaign.exploration.dtype)
    seeds = build_seeds(campaign, calculator=surrogate.calculator())
    walkers = plan_walkers(campaign, seeds, surrogate.sha256)
    parts = run_walkers(walkers, surrogate.calculator, tmp_path / "parts")
    whole = explore(campaign, tmp_path / "whole")
    assert whole.n_frames == 16
    assert same(columns(whole), columns(parts))
    assert [walker.name for walker in whole.walkers] == [walker.name for walker in parts.walkers]


def test_explore_resumes_and_reads_what_is_complete(tmp_path, monkeypatch):
    direct = explore(argon(n_steps=40), tmp_path / "direct")
    explore(argon(n_steps=20), tmp_path / "resumed")
    resumed = explore(argon(n_steps=40), tmp_path / "resumed")
    assert same(columns(direct), columns(resumed))

    def no_steps(*_args):
        raise AssertionError("a step was computed again")

    monkeypatch.setattr(walkers_module, "evaluate", no_steps)
    assert same(columns(direct), columns(explore(argon(n_steps=40), str(tmp_path / "resumed"))))


@pytest.mark.parametrize(("n_workers", "n_calculators"), [(None, 1), (1, 1), (3, 3)])
def test_explore_has_one_calculator_per_worker(tmp_path, monkeypatch, n_workers, n_calculators):
    module = sys.modules[explore.__module__]  # the package has the function under its name
    given = []
    monkeypatch.setattr(
        module, "run_walkers", lambda _, calculators, *a, **k: given.extend(calculators)
    )
    explore(argon(), tmp_path, n_workers=n_workers)
    assert len(given) == n_calculators


def test_explore_names_structures_and_leaves_them_unchanged(tmp_path):
    structures = [bulk("Ar", cubic=True) * 2 for _ in range(2)]
    structures[1].info["seed_name"] = "mine"
    before = [atoms.copy() for atoms in structures]
    trajectory = explore(argon(temperatures_K=[30]), tmp_path, structures=structures)
    assert [walker.seed_name for walker in trajectory.walkers] == ["structure-0", "mine"]
    assert {walker.seed_kind for walker in trajectory.walkers} == {"structure"}
    for atoms, copy in zip(structures, before, strict=True):
        assert atoms == copy
        assert atoms.info == copy.info
    frames = trajectory.to_dataframe(["frame_id", "walker"])
    first = trajectory.frames(frames["frame_id"][:1].to_numpy())[0]
    assert np.array_equal(first.cell.array, structures[0].cell.array)


def test_explore_refuses_two_structures_of_one_name(tmp_path):
    structures = [bulk("Ar", cubic=True) for _ in range(2)]
    for atoms in structures:
        atoms.info["seed_name"] = "same"
    with pytest.raises(ValueError, match="seed_name same occurs more than once"):
        explore(argon(), tmp_path, structures=structures)
    assert not list(tmp_path.iterdir())


def test_explore_refuses_a_surrogate_without_the_elements(tmp_path):
    campaign = Campaign(name="gold", composition="Au", exploration={"surrogate": "bundled"})
    with pytest.raises(SurrogateError, match="Au"):
        explore(campaign, tmp_path)


def test_explore_with_own_model_needs_the_surrogate(tmp_path):
    campaign = Campaign(name="silicon", composition="Si", exploration={"surrogate": "own-model"})
    with pytest.raises(SurrogateError, match="own-model"):
        explore(campaign, tmp_path)
