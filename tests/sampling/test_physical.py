"""Selections contain physically different frames: both phases, and one defect among crystals."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from scipy.special import sph_harm_y

from mlip_assets.campaign import Campaign, DescriptorSettings
from mlip_assets.descriptors import soap_power_spectrum
from mlip_assets.dynamics import plan_walkers, run_walkers
from mlip_assets.sampling import direct_select
from mlip_assets.surrogates import find_surrogate

#: Averaged bond-order parameter of a frame: solids are above the first, liquids below the second.
SOLID, LIQUID = 0.45, 0.28


def copper(lattice_constant: float, n_cells: int) -> Atoms:
    """A cubic crystal; lattice constant in Å."""
    cell = bulk("Cu", cubic=True, a=lattice_constant)
    crystal: Atoms = cell.repeat((n_cells, n_cells, n_cells))
    crystal.info.update(seed_name="crystal", seed_kind="crystal")
    return crystal


def describe(atoms: Atoms, positions: np.ndarray) -> np.ndarray:
    """Averaged SOAP (n_frames, n_features) of positions, Å, with the default settings."""
    settings = DescriptorSettings()
    return soap_power_spectrum(
        positions,
        atoms.cell.array,
        atoms.pbc,
        atoms.numbers,
        species=["Cu"],
        r_cut=settings.r_cut,
        n_max=settings.n_max,
        l_max=settings.l_max,
        sigma=settings.sigma,
        average=settings.average,
        dtype=settings.precision,
    )


def bond_order(atoms: Atoms, cutoff: float) -> float:
    """Mean over the atoms of the averaged q6 (Lechner and Dellago, JCP 129, 114707 (2008), eq. 6).

    ``cutoff``, Å, includes the first shell of neighbours.
    """
    i, j, vector, distance = neighbor_list("ijDd", atoms, cutoff)
    polar = np.arccos(np.clip(vector[:, 2] / distance, -1, 1))
    azimuth = np.arctan2(vector[:, 1], vector[:, 0])
    of_bonds = np.stack([sph_harm_y(6, m, polar, azimuth) for m in range(-6, 7)], axis=1)
    n_neighbours = np.bincount(i, minlength=len(atoms))[:, None]
    of_atoms = np.zeros((len(atoms), 13), complex)
    np.add.at(of_atoms, i, of_bonds)
    of_atoms /= np.maximum(n_neighbours, 1)
    averaged = of_atoms.copy()
    np.add.at(averaged, i, of_atoms[j])
    averaged /= n_neighbours + 1
    q6: np.ndarray = np.sqrt(4 * np.pi / 13 * (np.abs(averaged) ** 2).sum(axis=1))
    return float(q6.mean())


def test_bond_order_of_perfect_crystal() -> None:
    assert bond_order(copper(3.6, 3), 3.1) == pytest.approx(0.57452, abs=1e-5)


@pytest.mark.slow
def test_direct_select_includes_crystal_and_melt(tmp_path: Path) -> None:
    """Copper at the density of its melt: two walkers stay solid, one melts during the run."""
    exploration = {
        "temperatures_K": [300, 1000, 5000],
        "timestep_fs": 3,
        "n_steps": 240,
        "sample_every": 2,
        "device": "cpu",
    }
    campaign = Campaign(name="copper", composition="Cu", exploration=exploration, random_seed=1)
    crystal = copper(3.75, 2)
    surrogate = find_surrogate("bundled", device="cpu", dtype="float32")
    walkers = plan_walkers(campaign, [crystal], surrogate.sha256)
    trajectory = run_walkers(walkers, surrogate.calculator, tmp_path)
    frames = trajectory.frames(trajectory.scalars()["frame_id"].to_numpy())
    assert len(frames) == 360

    first_shell = partial(bond_order, cutoff=3.2)  # Å, midway to the second at 3.75
    order = np.array([first_shell(atoms) for atoms in frames])
    target_K = np.array([atoms.info["target_temperature_K"] for atoms in frames])
    assert (order[target_K == 300] > SOLID).all()
    melting = order[target_K == 5000]
    assert melting[0] > SOLID
    assert melting[-40:].mean() < LIQUID

    rows = describe(crystal, np.stack([atoms.positions for atoms in frames]))
    selected = {
        method: order[direct_select(rows, 30, method=method).indices]
        for method in ("direct", "uniform_stride")
    }
    assert (selected["direct"] > SOLID).any()
    assert (selected["direct"] < LIQUID).any()
    # a stride selects the solid in proportion to its frames, but most of the embedding is liquid
    # DIRECT selects more liquid than a random selection, whose number is binomial
    liquid = {method: int((values < LIQUID).sum()) for method, values in selected.items()}
    fraction = float((order < LIQUID).mean())
    standard_error = np.sqrt(30 * fraction * (1 - fraction))
    assert liquid["direct"] > max(30 * fraction, liquid["uniform_stride"]) + 3 * standard_error


def crystals_and_a_vacancy(n_cells: int, amplitude_A: float, vacancy: int) -> np.ndarray:
    """Descriptors (10001, n_features) of displaced copper crystals; one of them has a vacancy.

    The crystal has ``n_cells`` cubic cells along each side, every coordinate is displaced by a
    Gaussian, and row ``vacancy`` is the frame, not relaxed, with one atom fewer.
    """
    rng = np.random.default_rng(0)
    crystal = copper(3.615, n_cells)
    defect = crystal.copy()
    del defect[5]
    shaken = crystal.positions + amplitude_A * rng.normal(size=(10_000, len(crystal), 3))
    alone = defect.positions + amplitude_A * rng.normal(size=(1, len(defect), 3))
    return np.insert(describe(crystal, shaken), vacancy, describe(defect, alone)[0], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(("n_cells", "amplitude_A"), [(2, 0.083), (3, 0.17)])
def test_direct_select_includes_one_vacancy_among_ten_thousand_crystals(
    n_cells: int, amplitude_A: float
) -> None:
    """32 atoms at 300 K, and 108 atoms near the melting point, where the defect is less distinct.

    Copper's Debye-Waller factor of 0.55 Å² at 300 K is a displacement of 0.083 Å; 0.17 Å is four
    times its square. A random selection of 20 finds the vacancy with a probability of 0.2 %.
    """
    rows = crystals_and_a_vacancy(n_cells, amplitude_A, vacancy=6789)
    assert 6789 in direct_select(rows, 20).indices
