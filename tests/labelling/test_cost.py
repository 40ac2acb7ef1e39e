"""Cost estimates from measured calculations, and budgets."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.labelling.budget import Budget
from mlip_assets.labelling.cost import CostModel

PHYSICS = {"k_spacing_per_A": 0.5}


def seconds(atoms: Atoms, power: float = 1.4) -> float:
    return 0.02 * (4 * len(atoms) * atoms.cell.volume) ** power


def test_cost_model_needs_three_timings() -> None:
    assert CostModel.fit([], PHYSICS) is None
    assert CostModel.fit([(bulk("Si"), 3.0)] * 2, PHYSICS) is None


def test_cost_model_of_equal_calculations_gives_their_mean() -> None:
    model = CostModel.fit([(bulk("Si"), s) for s in (9.0, 10.0, 11.1)], PHYSICS)
    assert model is not None
    assert model.n_timings == 3
    assert model.core_hours(bulk("Si")) * 3600 == pytest.approx(10.0, rel=0.02)


def test_cost_model_of_one_size_uses_the_prior_exponents() -> None:
    """Twice the atoms at equal density: twice the orbitals and the plane waves."""
    model = CostModel.fit([(bulk("Si", cubic=True), 10.0)] * 5, {"no": "k-points"})
    assert model is not None
    double = bulk("Si", cubic=True).repeat((2, 1, 1))
    assert model.core_hours(double) * 3600 == pytest.approx(40.0)


def test_cost_model_fits_the_exponent_of_measured_sizes() -> None:
    sizes = [bulk("Si", cubic=True).repeat((n, 1, 1)) for n in (1, 1, 1, 2, 2, 2, 4, 4)]
    rng = np.random.default_rng(0)
    timings = [(atoms, seconds(atoms) * np.exp(rng.normal(0, 0.1))) for atoms in sizes]
    model = CostModel.fit(timings, {})
    assert model is not None
    for n in (1, 3, 8):
        atoms = bulk("Si", cubic=True).repeat((n, 1, 1))
        assert model.core_hours(atoms) * 3600 == pytest.approx(seconds(atoms), rel=0.35)


def test_cost_model_is_proportional_to_k_points() -> None:
    model = CostModel.fit([(bulk("Si", cubic=True), 10.0)] * 5, PHYSICS)
    assert model is not None
    flat = bulk("Si", cubic=True)
    flat.pbc = [True, True, False]  # 3 × 3 × 1 points, not 3 × 3 × 3
    assert model.core_hours(flat) * 3600 == pytest.approx(10.0 / 3)


def test_budget_of_core_hours_counts_running_calculations() -> None:
    budget = Budget(core_hours=1.0)
    assert budget.allows(None)
    assert not budget.allows(1.1)
    budget.start(0.6)
    assert not budget.allows(0.6), "two at the same time exceed the budget"
    budget.end(0.6, 0.3)
    assert budget.allows(0.6)
    budget.start(None)
    budget.end(None, 0.8)
    assert not budget.allows(None)


def test_budget_of_calls_allows_that_number() -> None:
    budget = Budget(calls=1)
    assert budget.allows(99.0)
    budget.start(None)
    assert not budget.allows(None)
