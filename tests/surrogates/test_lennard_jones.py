"""Argon as Lennard-Jones particles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.campaign import CampaignError
from mlip_assets.surrogates import find_surrogate, load_campaign
from tests.surrogates import surrogate_checks as checks


@pytest.fixture(scope="module")
def surrogate() -> Any:
    return find_surrogate("lennard-jones", device="cpu", dtype="float32")


def test_lennard_jones_dimer_has_exact_minimum(surrogate: Any) -> None:
    """At 2^(1/6) sigma = 3.816 Å, bound by epsilon; the cut-off at 8.5 Å changes neither."""
    distances = np.linspace(3.6, 4.1, 501)
    energies = []
    for distance in distances:
        pair = Atoms("Ar2", [[0, 0, 0], [0, 0, distance]])
        pair.calc = surrogate.calculator()
        energies.append(pair.get_potential_energy())
    assert distances[np.argmin(energies)] == pytest.approx(2 ** (1 / 6) * 3.40, abs=0.002)
    assert min(energies) == pytest.approx(-0.0104, rel=1e-3)


def test_lennard_jones_lattice_constant(surrogate: Any) -> None:
    atoms = bulk("Ar", "fcc", 5.26, cubic=True)
    found = checks.lattice_constant(surrogate.calculator(), atoms)
    assert found == pytest.approx(5.26, rel=0.005)


def test_lennard_jones_supports_argon_only(tmp_path: Path) -> None:
    text = "name: mine\ncomposition: {}\nexploration: {{surrogate: lennard-jones}}\ntraining: {}\n"
    for composition, training, message in (
        ("NaCl", "{start_from: scratch}", "'lennard-jones' does not support Na, Cl"),
        ("Ar", "{start_from: surrogate}", "'lennard-jones' is not a MACE model"),
    ):
        (tmp_path / "mine.yaml").write_text(text.format(composition, training))
        with pytest.raises(CampaignError, match=message):
            load_campaign(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text.format("Ar", "{start_from: scratch}"))
    assert load_campaign(tmp_path / "mine.yaml").exploration.surrogate == "lennard-jones"
