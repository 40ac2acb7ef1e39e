"""Checks for every surrogate."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111

from mlip_assets.campaign import Campaign
from mlip_assets.dynamics import plan_walkers, run_walkers
from mlip_assets.structures import build_seeds

CRYSTALS = {
    "Si": bulk("Si", "diamond", 5.43, cubic=True),
    "MgO": bulk("MgO", "rocksalt", 4.21, cubic=True),
}


def moved(atoms: Atoms, calculator: Any, **changes: Any) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(changes.get("rattle", 0.08), seed=5)
    atoms.calc = calculator
    return atoms


def check_forces_and_stress(calculator: Any, composition: str, tolerance: float = 0.02) -> None:
    """Forces are minus the energy gradient; stress is the strain derivative over the volume."""
    atoms = moved(CRYSTALS[composition], calculator)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    assert forces.shape == (8, 3)
    assert stress.shape == (6,)
    assert np.abs(forces.sum(axis=0)).max() < 1e-3
    direction = np.random.default_rng(0).normal(size=(8, 3))
    direction /= np.linalg.norm(direction)
    step = 0.01  # float32: smaller steps drown in rounding
    energies = []
    for sign in (1, -1):
        shifted = atoms.copy()
        shifted.positions += sign * step * direction
        shifted.calc = calculator
        energies.append(float(shifted.get_potential_energy()))
    slope = (energies[0] - energies[1]) / (2 * step)
    assert abs(slope + (forces * direction).sum()) < tolerance
    strain = np.diag([0.004, -0.002, 0.001]) + 0.001 * np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]])
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
        strained.calc = calculator
        energies.append(float(strained.get_potential_energy()))
    xx, yy, zz, yz, xz, xy = stress
    tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    work = float((tensor * strain).sum()) * atoms.get_volume()
    assert abs((energies[0] - energies[1]) / 2 - work) < tolerance * 0.1


def check_symmetries(calculator: Any, composition: str) -> None:
    """Invariance under permutation, repetition and rotation."""
    atoms = moved(CRYSTALS[composition], calculator)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    order = np.random.default_rng(1).permutation(8)
    shuffled = atoms[order]
    shuffled.calc = calculator
    np.testing.assert_allclose(shuffled.get_forces(), forces[order], atol=2e-3)
    double = atoms.repeat((2, 1, 1))
    double.calc = calculator
    assert abs(double.get_potential_energy() - 2 * energy) < 5e-3
    turned = atoms.copy()
    turned.rotate(31, (1, 2, 3), rotate_cell=True)
    turned.calc = calculator
    rotation = np.linalg.solve(atoms.cell.array, turned.cell.array)
    np.testing.assert_allclose(turned.get_forces(), forces @ rotation, atol=2e-3)


def check_boundaries(calculator: Any) -> None:
    """A slab is periodic in two directions; a molecule needs no cell."""
    slab = fcc111("Cu", (2, 2, 3), vacuum=9.0)
    slab.rattle(0.05, seed=2)
    energies = []
    for thickness, periodic in ((9.0, False), (1.0, False), (9.0, True)):
        copy = slab.copy()
        copy.center(vacuum=thickness, axis=2)
        copy.pbc = (True, True, periodic)
        copy.calc = calculator
        energies.append(copy.get_potential_energy())
    np.testing.assert_allclose(energies, energies[0], atol=2e-3)
    block = slab.copy()
    block.pbc = False
    block.calc = calculator
    assert block.get_potential_energy() > energies[0] + 1.0
    bare = Atoms(block.numbers, block.positions)
    bare.calc = calculator
    assert abs(bare.get_potential_energy() - block.get_potential_energy()) < 2e-3


def check_is_picklable(surrogate: Any) -> None:
    """A worker process receives an equal surrogate."""
    assert pickle.loads(pickle.dumps(surrogate)) == surrogate


def lattice_constant(calculator: Any, atoms: Atoms) -> float:
    """Lattice constant (Å) of a cubic crystal: minimum of a quartic fit to nine points within 3 %."""
    edges = atoms.cell.lengths()[0] * np.linspace(0.97, 1.03, 9)
    energies = []
    for edge in edges:
        trial = atoms.copy()
        trial.set_cell([edge] * 3, scale_atoms=True)
        trial.calc = calculator
        energies.append(trial.get_potential_energy())
    energies = np.array(energies) - min(energies)
    curve = np.polynomial.Polynomial.fit(edges, energies, 4)
    fine = np.linspace(edges[0], edges[-1], 4001)
    return float(fine[np.argmin(curve(fine))])


def check_exploration(surrogate: Any, composition: str, folder: Path) -> None:
    """From seeds to stored frames; a crystal at 300 K remains crystalline."""
    kinds = ("crystal", "rattled", "cluster")
    exploration = {"temperatures_K": [300], "n_steps": 40, "sample_every": 10, "timestep_fs": 1.0}
    campaign = Campaign(
        name="mine",
        composition=composition,
        seeds={"kinds": kinds, "cluster_atoms": 4},
        exploration=exploration,
        sampling={"n_samples": 1},
    )
    surrogate.require_elements(campaign.elements)
    seeds = build_seeds(campaign, calculator=surrogate.calculator())
    walkers = plan_walkers(campaign, seeds, surrogate.sha256)
    trajectory = run_walkers(walkers, surrogate.calculator, folder)
    assert trajectory.n_frames == campaign.n_frames
    assert [walker.stopped_by for walker in trajectory.walkers] == [None] * len(kinds)
    energies = np.concatenate([b["energy_eV"].to_numpy() for b in trajectory.iter_batches()])
    assert np.isfinite(energies).all()
    crystal = seeds[0].copy()
    crystal.calc = surrogate.calculator()
    thermal_eV = 3 * 8.617e-5 * 300 * len(crystal)  # twice what half of it in the bonds would be
    assert -0.05 < energies[:4].max() - crystal.get_potential_energy() < thermal_eV


def check_resume(surrogate: Any, folder: Path) -> None:
    """A walker interrupted after 10 steps gives the frames of an uninterrupted one."""

    def positions(place: Path, n_steps: int) -> np.ndarray:
        atoms = CRYSTALS["Si"].copy()
        atoms.info.update(seed_name="crystal", seed_kind="crystal")
        exploration = {"n_steps": n_steps, "sample_every": 1, "temperatures_K": [1200]}
        campaign = Campaign(
            name="mine", composition="Si", exploration=exploration, sampling={"n_samples": 1}
        )
        walkers = plan_walkers(campaign, [atoms], surrogate.sha256)
        batches = run_walkers(walkers, surrogate.calculator, place).iter_batches()
        return np.concatenate([np.ravel(b["positions"].flatten().to_numpy()) for b in batches])

    unbroken = positions(folder / "unbroken", 25)
    positions(folder / "resumed", 10)
    assert np.array_equal(positions(folder / "resumed", 25), unbroken)
