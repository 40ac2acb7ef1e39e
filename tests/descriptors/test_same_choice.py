"""DIRECT selects the same frames from these descriptors and from those of dscribe."""

from __future__ import annotations

import ase.units
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from mlip_assets.descriptors import soap_power_spectrum
from mlip_assets.sampling import direct_select

N_FRAMES = 2000


@pytest.fixture(scope="module")
def melting() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, cell and numbers of a copper-gold alloy heated from 300 K to 3500 K."""
    atoms = bulk("Cu", cubic=True) * 2
    atoms.symbols[::4] = "Au"
    atoms.set_cell(atoms.cell * 1.06, scale_atoms=True)
    atoms.calc = EMT()
    rng = np.random.default_rng(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=rng)
    dynamics = Langevin(
        atoms,
        6 * ase.units.fs,
        temperature_K=300,
        friction=0.02 / ase.units.fs,
        fixcm=False,
        rng=rng,
    )
    positions = np.empty((N_FRAMES, len(atoms), 3))
    for frame in range(N_FRAMES):
        dynamics.set_temperature(temperature_K=300 + 3200 * frame / N_FRAMES)
        dynamics.run(1)
        positions[frame] = atoms.positions
    return positions, atoms.cell[:], atoms.numbers


@pytest.mark.slow
def test_direct_select_gives_same_frames_with_dscribe(melting) -> None:
    positions, cell, numbers = melting
    ours, theirs = (
        soap_power_spectrum(
            positions,
            cell,
            True,
            numbers,
            species=["Cu", "Au"],
            r_cut=5.0,
            n_max=8,
            l_max=6,
            sigma=0.5,
            implementation=implementation,
        ).astype(np.float32)
        for implementation in ("numba", "dscribe")
    )
    chosen = direct_select(ours, 60, seed=1).indices
    assert len(set(chosen)) == 60
    assert np.array_equal(chosen, direct_select(theirs, 60, seed=1).indices)
    # the test is sensitive: another cut-off gives other frames
    near = soap_power_spectrum(
        positions,
        cell,
        True,
        numbers,
        species=["Cu", "Au"],
        r_cut=3.5,
        n_max=8,
        l_max=6,
        sigma=0.5,
    ).astype(np.float32)
    assert not np.array_equal(chosen, direct_select(near, 60, seed=1).indices)
