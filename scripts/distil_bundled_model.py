"""Make the bundled surrogate again: ``python scripts/distil_bundled_model.py --work DIR``.

A small MACE learns from CHGNet (weights in its wheel) and, for pure argon, from the Lennard-Jones
potential, in three rounds: prototypes and short teacher MD first, then twice the student's own MD
labelled by the teacher. Every stage leaves a file in DIR and is skipped when that file is there, so
a killed run goes on where it stopped. About an hour on one free core.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, fcc100, fcc111, surface
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones
from ase.cluster import Icosahedron
from ase.constraints import FixCom
from ase.geometry import get_distances
from ase.io import iread, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.spacegroup import crystal

sys.path.insert(0, str(Path(__file__).parents[1]))
from mlip_assets.files import write_atomically
from mlip_assets.progress import Progress
from mlip_assets.training import state_dict_sha256
from resources.bundled_model import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    export_model,
    load_model,
)

LOG = logging.getLogger("distil")
ELEMENTS = ("O", "Na", "Mg", "Al", "Si", "Cl", "Ar", "Cu")

# CHGNet has no useful argon: its fcc energy curve is bound by 0.07 eV but its dimer and trimer
# attract at 3 Å and repel at 5 Å. Parameters: A. Rahman, Phys. Rev. 136, A405 (1964),
# epsilon = 120 K k_B, sigma = 3.4 Å.
ARGON = {"epsilon": 0.0104, "sigma": 3.40, "rc": 8.5, "smooth": True}
# Experimental cohesive energies, eV/atom (C. Kittel, Introduction to Solid State Physics, 8th ed.,
# table 3.1). E0 = teacher's energy of the element - cohesive energy, so a free atom is sane.
COHESIVE_EV = {"O": 2.60, "Na": 1.113, "Mg": 1.51, "Al": 3.39, "Si": 4.63, "Cl": 1.40, "Cu": 3.49}

MAX_LABEL_FORCE = 25.0  # eV/Å; beyond it the frame says nothing about MD
MAX_STUDENT_FORCE = 60.0  # eV/Å; beyond it the student's MD has left the rails
BOX_A = 18.0  # periodic box around a cluster, far beyond every cut-off

ARCHITECTURE = {
    "model": "MACE",
    "num_channels": 32,
    "max_L": 0,
    "correlation": 2,
    "num_interactions": 2,
    "r_max": 5.0,
    "max_ell": 2,
    "num_radial_basis": 8,
    "radial_MLP": "[32, 32]",
    "MLP_irreps": "16x0e",
    "distance_transform": "Agnesi",
}


@dataclass(frozen=True)
class Round:
    """One training: MD steps of the student before it, and how it is fitted.

    Errors of a few meV/Å are all of argon's physics and nothing to silicon's, so argon frames
    weigh ``argon_weight`` times the others. Frames with no force above 0.5 eV/Å carry lattice
    constants and elasticity but drown in those of the melts, so they weigh ``quiet_weight``.
    """

    md_steps: int
    n_epochs: int
    learning_rate: float
    batch_size: int
    argon_weight: float
    quiet_weight: float

    def weight(self, labelled: Atoms) -> float:
        """Return the weight of one labelled frame in the loss."""
        if labelled.info["group"] == "Ar":
            return self.argon_weight
        return self.quiet_weight if np.abs(labelled.arrays["REF_forces"]).max() < 0.5 else 1.0


ROUNDS = (
    Round(0, 36, 0.01, batch_size=8, argon_weight=60.0, quiet_weight=1.0),
    Round(150, 10, 0.005, batch_size=16, argon_weight=60.0, quiet_weight=1.0),
    Round(150, 16, 0.005, batch_size=16, argon_weight=250.0, quiet_weight=12.0),
)


@dataclass(frozen=True)
class Phase:
    """One structure family: its start, the temperatures of its MD, its share of the labels."""

    group: str
    atoms: Atoms
    temperatures_K: tuple[float, ...] = ()
    n_rattled: int = 12
    strain: float = 0.05


# --- structures ----------------------------------------------------------------------------------


def phases() -> dict[str, Phase]:
    """Every phase the surrogate must know, silicon first."""
    si = bulk("Si", "diamond", 5.46, cubic=True)
    cu, al = bulk("Cu", cubic=True), bulk("Al", cubic=True)
    nacl = bulk("NaCl", "rocksalt", 5.69, cubic=True)
    mgo = bulk("MgO", "rocksalt", 4.25, cubic=True)
    si16 = bulk("Si", "diamond", 5.46).repeat(2)
    return {
        "si_diamond8": Phase("Si", si, (300.0, 900.0, 2000.0), 40),
        "si_diamond16": Phase("Si", si16, (600.0, 1500.0, 2500.0), 25),
        "si_vacancy15": Phase("Si", _without(si16, 0), (600.0, 1500.0), 25),
        "si_vacancy7": Phase("Si", _without(si, 0), (800.0,), 15),
        "si_diamond64": Phase("Si", si.repeat(2), (2000.0,), 3, 0.03),
        "si_dense16": Phase("Si", _scaled(si16, 0.98), (2000.0, 3500.0), 10),
        "si_beta_tin": Phase("Si", _beta_tin(), (1000.0,), 15),
        "si_simple_cubic": Phase("Si", bulk("Si", "sc", 2.53).repeat(2), (1500.0,), 8),
        "si_fcc": Phase("Si", bulk("Si", "fcc", 3.85, cubic=True), (), 6),
        "si_slab100": Phase("Si", _slab(si, (1, 0, 0)), (900.0,), 12),
        "si_slab111": Phase("Si", _slab(si, (1, 1, 1)), (900.0,), 8),
        **{
            f"si_cluster{n}": Phase("Si", _cluster(si.repeat(3), n), (600.0, 1500.0), 12, 0.0)
            for n in (3, 5, 6, 8, 10)
        },
        "cu_fcc4": Phase("Cu", cu, (300.0, 1200.0), 30),
        "cu_fcc8": Phase("Cu", bulk("Cu").repeat(2), (1000.0, 2000.0), 20),
        "cu_fcc32": Phase("Cu", cu.repeat(2), (1600.0, 2400.0), 3, 0.03),
        "cu_expanded16": Phase("Cu", _scaled(cu.repeat((2, 2, 1)), 1.03), (2000.0, 3000.0), 8),
        "cu_vacancy15": Phase("Cu", _without(cu.repeat((2, 2, 1)), 0), (1000.0,), 12),
        "cu_bcc": Phase("Cu", bulk("Cu", "bcc", 2.88, cubic=True), (), 8),
        "cu_hcp": Phase("Cu", bulk("Cu", "hcp", 2.55, 4.18), (), 6),
        "cu_slab111": Phase("Cu", fcc111("Cu", (2, 2, 4), vacuum=6.0, periodic=True), (900.0,), 8),
        "cu_slab100": Phase("Cu", fcc100("Cu", (2, 2, 4), vacuum=6.0, periodic=True), (900.0,), 6),
        "cu_cluster13": Phase("Cu", _boxed(Icosahedron("Cu", 2)), (600.0, 1500.0), 8, 0.0),
        "cu_cluster6": Phase("Cu", _cluster(cu.repeat(3), 6), (1000.0,), 8, 0.0),
        "ar_fcc4": Phase("Ar", bulk("Ar", "fcc", 5.27, cubic=True), (30.0,), 30, 0.06),
        "ar_fcc32": Phase("Ar", bulk("Ar", "fcc", 5.3, cubic=True).repeat(2), (60.0, 130.0), 6),
        "ar_liquid32": Phase(
            "Ar", bulk("Ar", "fcc", 5.75, cubic=True).repeat(2), (90.0, 120.0, 300.0), 8
        ),
        "ar_gas8": Phase("Ar", bulk("Ar", "fcc", 7.5, cubic=True).repeat((2, 1, 1)), (120.0,), 8),
        "ar_cluster13": Phase(
            "Ar", _boxed(Icosahedron("Ar", 2, 5.35), 24.0), (20.0, 40.0, 80.0), 15, 0.0
        ),
        "ar_cluster55": Phase("Ar", _boxed(Icosahedron("Ar", 3, 5.35), 30.0), (30.0,), 3, 0.0),
        **{
            f"ar_cluster{n}": Phase(
                "Ar", _cluster(bulk("Ar", "fcc", 5.3, cubic=True).repeat(3), n), (25.0,), 8, 0.0
            )
            for n in (3, 5, 8)
        },
        "al_fcc4": Phase("Al", al, (300.0, 900.0), 20),
        "al_fcc8": Phase("Al", bulk("Al").repeat(2), (800.0, 1500.0), 12),
        "al_vacancy15": Phase("Al", _without(al.repeat((2, 2, 1)), 0), (800.0,), 8),
        "al_slab111": Phase("Al", fcc111("Al", (2, 2, 4), vacuum=6.0, periodic=True), (700.0,), 5),
        "nacl8": Phase("NaCl", nacl, (600.0, 1200.0), 20),
        "nacl16": Phase("NaCl", bulk("NaCl", "rocksalt", 5.75).repeat(2), (1000.0, 1800.0), 15),
        "nacl_cscl": Phase("NaCl", bulk("NaCl", "cesiumchloride", 3.45).repeat((2, 1, 1)), (), 6),
        "nacl_cluster8": Phase("NaCl", _corner(nacl, 2.85), (800.0,), 8, 0.0),
        "mgo8": Phase("MgO", mgo, (800.0, 2000.0), 20),
        "mgo16": Phase("MgO", bulk("MgO", "rocksalt", 4.3).repeat(2), (2000.0, 3500.0), 15),
        "mgo_cscl": Phase("MgO", bulk("MgO", "cesiumchloride", 2.66).repeat((2, 1, 1)), (), 6),
        "mgo_cluster8": Phase("MgO", _corner(mgo, 2.13), (1200.0,), 8, 0.0),
        "na_bcc": Phase("other", bulk("Na", cubic=True).repeat((2, 2, 1)), (300.0,), 10),
        "mg_hcp": Phase("other", bulk("Mg").repeat((2, 2, 1)), (600.0,), 10),
        "alcu_b2": Phase(
            "other", bulk("AlCu", "cesiumchloride", 2.97).repeat((2, 2, 1)), (800.0,), 8
        ),
        "cu3al": Phase("other", _substituted(bulk("Cu", "fcc", 3.68, cubic=True), 0, "Al"), (), 8),
        "mg2si": Phase("other", bulk("SiMg2", "fluorite", 6.35), (800.0,), 8),
        "sio2": Phase("other", _cristobalite(), (800.0,), 10),
        "al2o3": Phase("other", _corundum(), (1500.0,), 8),
    }


def _slab(atoms: Atoms, plane: tuple[int, int, int]) -> Atoms:
    slab: Atoms = surface(atoms, plane, 2, vacuum=6.0, periodic=True)
    return slab


def _without(atoms: Atoms, index: int) -> Atoms:
    atoms = atoms.copy()
    del atoms[index]
    return atoms


def _scaled(atoms: Atoms, factor: float) -> Atoms:
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
    return atoms


def _substituted(atoms: Atoms, index: int, symbol: str) -> Atoms:
    atoms[index].symbol = symbol
    return atoms


def _boxed(atoms: Atoms, box_A: float = BOX_A) -> Atoms:
    """``atoms`` alone in a periodic cube: CHGNet knows only periodic structures."""
    cluster = Atoms(atoms.numbers, atoms.positions, cell=[box_A] * 3, pbc=True)
    cluster.center()
    return cluster


def _cluster(block: Atoms, n_atoms: int) -> Atoms:
    """Cut out the ``n_atoms`` atoms nearest to the middle of a block of crystal, in a box."""
    middle = block.positions.mean(axis=0)
    nearest = np.argsort(np.linalg.norm(block.positions - middle, axis=1), kind="stable")
    return _boxed(block[nearest[:n_atoms]])


def _corner(rocksalt: Atoms, spacing_A: float) -> Atoms:
    """Cut the eight-ion cube out of a rock-salt crystal, in a box."""
    grid = np.array(list(np.ndindex(2, 2, 2)))
    first, second = sorted(set(rocksalt.symbols))
    symbols = [first if parity % 2 else second for parity in grid.sum(axis=1)]
    return _boxed(Atoms(symbols, positions=spacing_A * grid))


def _beta_tin() -> Atoms:
    return crystal("Si", [(0, 0, 0)], spacegroup=141, cellpar=[4.80, 4.80, 2.65, 90, 90, 90])


def _cristobalite() -> Atoms:
    """Ideal beta-cristobalite, primitive cell (6 atoms)."""
    return crystal(
        ("Si", "O"),
        [(0.125, 0.125, 0.125), (0, 0, 0)],
        spacegroup=227,
        setting=2,
        cellpar=[7.4, 7.4, 7.4, 90, 90, 90],
        primitive_cell=True,
    )


def _corundum() -> Atoms:
    return crystal(
        ("Al", "O"),
        [(0, 0, 0.352), (0.306, 0, 0.25)],
        spacegroup=167,
        cellpar=[4.80, 4.80, 13.1, 90, 90, 120],
        primitive_cell=True,
    )


def distorted(phase: Phase, rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield an equation-of-state series, then random strains with rattles up to ``scale``."""
    scale = 0.4 if phase.group == "Ar" else 0.3  # Å, the largest rattle
    if phase.strain:
        for stretch in np.linspace(1 - phase.strain, 1 + 1.2 * phase.strain, 9):
            yield _scaled(phase.atoms, float(stretch))
    for i in range(phase.n_rattled):
        atoms = phase.atoms.copy()
        if phase.strain:
            tensor = rng.uniform(-phase.strain, phase.strain, (3, 3))
            deformation = np.eye(3) + (tensor + tensor.T) / 2
            atoms.set_cell(atoms.cell @ deformation, scale_atoms=True)
        else:
            atoms = _boxed(
                Atoms(atoms.numbers, atoms.positions * rng.uniform(0.92, 1.12)), atoms.cell[0, 0]
            )
        atoms.rattle(scale * (i + 1) / phase.n_rattled, rng=rng)
        yield atoms


def molecules(rng: np.random.Generator) -> Iterator[tuple[str, Atoms]]:
    """Dimers, and clusters that lose one atom: what MD of a cluster in vacuum runs into."""
    for symbol, nearest, furthest, count in (
        ("Si", 1.7, 4.6, 24),
        ("Cu", 1.7, 4.2, 14),
        ("Al", 2.0, 4.2, 8),
        ("Ar", 2.7, 6.0, 40),
    ):
        for distance in np.linspace(nearest, furthest, count):
            yield symbol, _boxed(Atoms([symbol] * 2, [[0, 0, 0], [0, 0, distance]]))
    for symbol, lattice_A, crystal_name in (("Si", 5.46, "diamond"), ("Cu", 3.6, "fcc")):
        block = bulk(symbol, crystal_name, lattice_A, cubic=True).repeat(3)
        for n_atoms in (4, 5, 7, 9):
            for _ in range(5):
                cluster = _cluster(block, n_atoms)
                outward = cluster.positions[-1] - cluster.positions.mean(axis=0)
                cluster.positions[-1] += outward / np.linalg.norm(outward) * rng.uniform(0.3, 1.8)
                cluster.rattle(0.1, rng=rng)
                yield symbol, cluster


# --- labels --------------------------------------------------------------------------------------


class Teachers:
    """CHGNet for everything but pure argon, which is Lennard-Jones."""

    def __init__(self) -> None:
        from chgnet.model.dynamics import CHGNetCalculator

        self._chgnet = CHGNetCalculator(use_device="cpu")
        self._argon = LennardJones(**ARGON)

    def of(self, atoms: Atoms) -> Calculator:
        """Choose the teacher of these atoms."""
        return self._argon if set(atoms.symbols) == {"Ar"} else self._chgnet

    def energy(self, atoms: Atoms) -> float:
        """Return the energy in eV."""
        work = atoms.copy()
        work.calc = self.of(atoms)
        return float(work.get_potential_energy())

    def label(self, atoms: Atoms, group: str) -> Atoms | None:
        """Return a copy with ``REF_energy``, ``REF_forces``, ``REF_stress``; None if impossible."""
        is_argon = set(atoms.symbols) == {"Ar"}
        if not is_argon and _loneliest_A(atoms) > 4.8:
            return None  # CHGNet has no graph for an atom without neighbours
        labelled = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        labelled.wrap()
        work = labelled.copy()
        work.calc = self.of(atoms)
        forces = work.get_forces()
        if not np.isfinite(forces).all() or np.abs(forces).max() > MAX_LABEL_FORCE:
            return None
        labelled.info["REF_energy"] = float(work.get_potential_energy())
        labelled.arrays["REF_forces"] = forces
        labelled.info["REF_stress"] = work.get_stress()
        labelled.info["group"] = group
        return labelled

    def label_all(self, frames: list[tuple[str, Atoms]], label: str) -> list[Atoms]:
        """Label (group, frame) pairs; frames the teacher cannot label are dropped and counted."""
        progress = Progress(label, len(frames), "labels")
        kept = []
        for group, atoms in frames:
            labelled = self.label(atoms, group)
            progress.advance(1)
            if labelled is not None:
                kept.append(labelled)
        LOG.info("%s: %d of %d frames labelled", label, len(kept), len(frames))
        return kept


def _loneliest_A(atoms: Atoms) -> float:
    """Return the largest nearest-neighbour distance (Å), periodic images included."""
    images = atoms.repeat(3) if min(atoms.cell.lengths()) < 10 else atoms
    _, distances = get_distances(atoms.positions, images.positions, cell=images.cell, pbc=True)
    distances[distances < 1e-6] = np.inf
    return float(distances.min(axis=1).max())


def isolated_energies(teachers: Teachers) -> dict[int, float]:
    """E0 of each element (eV): the teacher's elemental ground state less the measured cohesion."""
    crystals = {
        "Na": bulk("Na"),
        "Mg": bulk("Mg"),
        "Al": bulk("Al"),
        "Si": bulk("Si", "diamond", 5.46),
        "Cu": bulk("Cu"),
    }
    stretches = np.linspace(0.95, 1.05, 11)
    curves = {symbol: [_scaled(atoms, x) for x in stretches] for symbol, atoms in crystals.items()}
    for symbol, bond_A in (("O", 1.22), ("Cl", 2.0)):
        curves[symbol] = [
            _boxed(Atoms([symbol] * 2, [[0, 0, 0], [0, 0, bond_A * x]])) for x in stretches
        ]
    energies = {18: 0.0}
    for symbol, curve in curves.items():
        per_atom = [teachers.energy(atoms) / len(atoms) for atoms in curve]
        energies[int(curve[0].numbers[0])] = round(min(per_atom) + COHESIVE_EV[symbol], 4)
    return dict(sorted(energies.items()))


# --- molecular dynamics --------------------------------------------------------------------------


def molecular_dynamics(
    start: Atoms,
    calculator: Calculator,
    temperature_K: float,
    n_steps: int,
    every: int,
    seed: int,
) -> tuple[list[Atoms], dict[str, Any]]:
    """NVT Langevin at 2 fs; stops early where forces or distances show that it has failed."""
    atoms = start.copy()
    atoms.calc = calculator
    rng = np.random.default_rng(seed)
    atoms.rattle(0.02, rng=rng)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature_K, rng=rng)
    atoms.set_constraint(FixCom())
    integrator = Langevin(
        atoms,
        2 * units.fs,
        temperature_K=temperature_K,
        friction=0.02 / units.fs,
        fixcm=False,
        rng=rng,
    )
    frames: list[Atoms] = []
    temperatures, largest_force = [], 0.0
    while integrator.nsteps < n_steps:
        integrator.run(every)
        forces = atoms.get_forces()
        frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))
        temperatures.append(atoms.get_temperature())
        largest_force = max(largest_force, float(np.abs(forces).max()))
        if not np.isfinite(forces).all() or largest_force > MAX_STUDENT_FORCE:
            break
    second_half = temperatures[len(temperatures) // 2 :]
    return frames, {
        "time_ps": integrator.nsteps * 0.002,
        "stable": integrator.nsteps >= n_steps and largest_force <= MAX_STUDENT_FORCE,
        "mean_temperature_K": float(np.mean(second_half)),
        "largest_force_eV_per_A": largest_force,
        "shortest_distance_A": min(_shortest_A(frame) for frame in frames),
    }


def _shortest_A(atoms: Atoms) -> float:
    distances = atoms.get_all_distances(mic=True)
    return float(distances[~np.eye(len(atoms), dtype=bool)].min())


def student(model: Path) -> Calculator:
    """Load a trained student as a calculator."""
    import torch
    from mace.calculators import MACECalculator

    module = torch.load(model, map_location="cpu", weights_only=False)  # this run's own file
    return MACECalculator(models=[module], device="cpu", default_dtype="float32")


# What a student that has seen crystals only would get wrong first: melts and hot clusters.
TEACHER_MD = (
    ("si_diamond16", 3500.0),
    ("si_dense16", 2500.0),
    ("si_cluster8", 1200.0),
    ("cu_expanded16", 2500.0),
    ("al_fcc8", 2000.0),
    ("nacl16", 1800.0),
    ("mgo16", 4000.0),
    ("ar_liquid32", 100.0),
    ("ar_cluster13", 35.0),
)


def teacher_paths(
    teachers: Teachers, n_steps: int, every: int, seed: int
) -> list[tuple[str, Atoms]]:
    """Run short MD of the teacher itself for the melts and clusters of ``TEACHER_MD``."""
    families = phases()
    progress = Progress("teacher MD", len(TEACHER_MD), "runs")
    frames = []
    for index, (name, temperature) in enumerate(TEACHER_MD):
        phase = families[name]
        path, _ = molecular_dynamics(
            phase.atoms, teachers.of(phase.atoms), temperature, n_steps, every, seed + index
        )
        frames += [(phase.group, atoms) for atoms in path]
        progress.advance(1)
    return frames


def explore(
    calculator: Calculator, round_number: int, n_steps: int, every: int, seed: int
) -> list[tuple[str, Atoms]]:
    """Run the student's own MD of every phase at every temperature it is meant for."""
    runs = [
        (name, phase, temperature)
        for name, phase in phases().items()
        for temperature in phase.temperatures_K
    ]
    progress = Progress(f"student MD, round {round_number}", len(runs), "runs")
    frames = []
    for index, (name, phase, temperature) in enumerate(runs):
        swelling = (-0.03, 0.0, 0.03)[index % 3] if round_number > 1 and phase.strain else 0.0
        start = _scaled(phase.atoms, 1.0 + swelling) if swelling else phase.atoms
        path, outcome = molecular_dynamics(
            start, calculator, temperature, n_steps, every, seed + 1000 * round_number + index
        )
        if not outcome["stable"]:
            LOG.info("%s at %g K failed after %.2f ps", name, temperature, outcome["time_ps"])
        frames += [(phase.group, atoms) for atoms in path]
        progress.advance(1)
    return frames


# --- training ------------------------------------------------------------------------------------


def fit(
    work: Path,
    name: str,
    train: list[Atoms],
    energies: dict[int, float],
    settings: Round,
    *,
    seed: int,
    parent: Path | None,
) -> Path:
    """One ``mace_run_train`` run in a subprocess; returns its stage-two model."""
    folder = work / name
    result = folder / f"{name}_stagetwo.model"
    if result.exists():
        return result
    folder.mkdir(parents=True, exist_ok=True)
    for frame in train:
        frame.info["config_weight"] = settings.weight(frame)
    order = np.random.default_rng(seed).permutation(len(train))
    n_valid = max(20, len(train) // 20)
    write(folder / "valid.xyz", [train[i] for i in order[:n_valid]], format="extxyz")
    write(folder / "train.xyz", [train[i] for i in order[n_valid:]], format="extxyz")
    stage_two = int(0.7 * settings.n_epochs)
    options: dict[str, Any] = {
        "name": name,
        "work_dir": folder,
        "train_file": folder / "train.xyz",
        "valid_file": folder / "valid.xyz",
        "E0s": str(energies),
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "stress_key": "REF_stress",
        **ARCHITECTURE,
        "loss": "stress",
        "compute_stress": True,
        "energy_weight": 100,
        "forces_weight": 100,
        "stress_weight": 1000,
        "start_swa": stage_two,
        "swa_lr": settings.learning_rate / 12,
        "swa_energy_weight": 3000,
        "swa_forces_weight": 100,
        "swa_stress_weight": 1000,
        "batch_size": settings.batch_size,
        "valid_batch_size": 16,
        "max_num_epochs": settings.n_epochs,
        "lr": settings.learning_rate,
        "scheduler": "ExponentialLR",
        "lr_scheduler_gamma": round(0.15 ** (1 / stage_two), 4),
        "ema_decay": 0.99,
        "clip_grad": 10,
        "default_dtype": "float32",
        "device": "cpu",
        "seed": seed,
        "plot": False,
        "error_table": "PerAtomRMSEstressvirials",
        "eval_interval": max(1, stage_two // 6),
        "num_workers": 0,
    }
    flags = [f"--{key}={value}" for key, value in options.items()]
    flags += ["--ema", "--amsgrad", "--swa", "--pair_repulsion"]
    if parent is not None:
        flags += [f"--foundation_model={parent}", "--multiheads_finetuning=False"]
    LOG.info(
        "%s: training on %d frames for %d epochs (log: %s/stdout)",
        name,
        len(train) - n_valid,
        settings.n_epochs,
        folder,
    )
    with (folder / "stdout").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "mace.cli.run_train", *flags],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return result


def kept(path: Path, make: Callable[[], list[Atoms]]) -> list[Atoms]:
    """Read the frames in ``path``, made and saved there first if it does not exist yet."""
    if not path.exists():
        frames = make()
        with write_atomically(path) as aside:
            write(aside, frames, format="extxyz")
    stored = list(iread(path, ":", format="extxyz"))
    for frame in stored:
        if "REF_energy" not in frame.info or "REF_forces" not in frame.arrays:
            raise ValueError(f"{path}: a frame lacks REF_energy or REF_forces; delete the file")
    return stored


def distil(work: Path, seed: int) -> Path:
    """All rounds; returns the last model file."""
    teachers = Teachers()
    rng = np.random.default_rng(seed)
    energies_file = work / "isolated_energies.json"
    if not energies_file.exists():
        energies_file.write_text(json.dumps(isolated_energies(teachers)))
    energies = {int(z): e for z, e in json.loads(energies_file.read_text()).items()}
    LOG.info("isolated-atom energies: %s", energies)

    def prototypes() -> list[Atoms]:
        frames = [
            (phase.group, atoms) for phase in phases().values() for atoms in distorted(phase, rng)
        ]
        frames += molecules(rng)
        frames += teacher_paths(teachers, n_steps=300, every=10, seed=seed)
        return teachers.label_all(frames, "round 0")

    data = kept(work / "round0.xyz", prototypes)
    model = fit(work, "student0", data, energies, ROUNDS[0], seed=seed, parent=None)
    for number, settings in enumerate(ROUNDS[1:], 1):

        def visited(
            number: int = number, n_steps: int = settings.md_steps, model: Path = model
        ) -> list[Atoms]:
            frames = explore(student(model), number, n_steps, n_steps // 10, seed)
            return teachers.label_all(frames, f"round {number}")

        data += kept(work / f"round{number}.xyz", visited)
        name = f"student{number}"
        model = fit(work, name, data, energies, settings, seed=seed + number, parent=model)
    return model


def publish(model_file: Path, seed: int) -> None:
    """Export to ``resources/bundled`` and prove that the rebuilt model is the trained one."""
    import torch

    trained = torch.load(model_file, map_location="cpu", weights_only=False)  # this run's own file
    provenance = {
        "teacher": f"CHGNet 0.3.0 weights (chgnet {importlib.metadata.version('chgnet')})",
        "argon_teacher": "Lennard-Jones, " + ", ".join(f"{k}={v}" for k, v in ARGON.items()),
        "mace": importlib.metadata.version("mace-torch"),
        "script": Path(__file__).name,
        "stage": model_file.parent.name,
        "seed": seed,
    }
    export_model(trained, BUNDLED_FOLDER, BUNDLED_NAME, provenance)
    rebuilt = load_model(BUNDLED_FOLDER, BUNDLED_NAME)
    if state_dict_sha256(rebuilt) != state_dict_sha256(trained):
        raise RuntimeError("the rebuilt weights are not the trained ones")
    for phase in phases().values():  # in float64, where round-off cannot hide a difference
        (energy, forces), (energy_again, forces_again) = (
            _energy_and_forces(module.double(), phase.atoms) for module in (trained, rebuilt)
        )
        worst = max(abs(energy - energy_again), float(np.abs(forces - forces_again).max()))
        if worst > 1e-9:
            raise RuntimeError(f"{phase.atoms.symbols}: the rebuilt model is off by {worst}")
    LOG.info("%s exported; the rebuilt model gives the same energies and forces", model_file.name)


def _energy_and_forces(module: Any, atoms: Atoms) -> tuple[float, np.ndarray]:
    from mace.calculators import MACECalculator

    work = atoms.copy()
    work.calc = MACECalculator(models=[module], device="cpu", default_dtype="float64")
    return work.get_potential_energy(), work.get_forces()


# --- proof ---------------------------------------------------------------------------------------


def held_out_errors(teachers: Teachers, calculator: Calculator, work: Path, seed: int) -> list[str]:
    """Measure errors on MD that no training set has seen: new seeds, other temperatures."""

    def unseen() -> list[Atoms]:
        runs = [
            (phase, max(phase.temperatures_K))
            for phase in phases().values()
            if phase.temperatures_K
        ]
        progress = Progress("held-out MD", len(runs), "runs")
        frames = []
        for index, (phase, hottest) in enumerate(runs):
            path, _ = molecular_dynamics(
                phase.atoms, calculator, 0.85 * hottest, 200, 40, seed + 90_000 + index
            )
            frames += [(phase.group, atoms) for atoms in path]
            progress.advance(1)
        return teachers.label_all(frames, "held-out")

    frames = kept(work / "held_out.xyz", unseen)
    rows = [
        "| group | frames | force RMSE, meV/Å | of the rms force | energy RMSE, meV/atom |",
        "|---|---|---|---|---|",
    ]
    for group in dict.fromkeys(frame.info["group"] for frame in frames):
        members = [frame for frame in frames if frame.info["group"] == group]
        force_errors, forces, energy_errors = [], [], []
        for frame in members:
            work_frame = frame.copy()
            work_frame.calc = calculator
            forces.append(frame.arrays["REF_forces"].ravel())
            force_errors.append(work_frame.get_forces().ravel() - forces[-1])
            energy = work_frame.get_potential_energy()
            energy_errors.append((energy - frame.info["REF_energy"]) / len(frame))
        rmse, scale = _rms(np.concatenate(force_errors)), _rms(np.concatenate(forces))
        rows.append(
            f"| {group} | {len(members)} | {1e3 * rmse:.1f} | {100 * rmse / scale:.1f} % "
            f"| {1e3 * _rms(np.array(energy_errors)):.1f} |"
        )
    return rows


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def equations_of_state(teachers: Teachers, calculator: Calculator) -> list[str]:
    """Fit lattice constant and bulk modulus of each crystal, model against teacher."""
    from ase.eos import EquationOfState

    rows = [
        "| crystal | a0 model, Å | a0 teacher, Å | B model, GPa | B teacher, GPa |",
        "|---|---|---|---|---|",
    ]
    for label, name in (
        ("Si", "si_diamond8"),
        ("Cu", "cu_fcc4"),
        ("Al", "al_fcc4"),
        ("NaCl", "nacl8"),
        ("MgO", "mgo8"),
        ("Ar", "ar_fcc4"),
    ):
        start = phases()[name].atoms
        fits = []
        for of in (lambda _: calculator, teachers.of):
            curve = [_scaled(start, x) for x in np.linspace(0.97, 1.03, 13)]
            for atoms in curve:
                atoms.calc = of(atoms)
            volumes = [atoms.get_volume() for atoms in curve]
            energies = [atoms.get_potential_energy() for atoms in curve]
            volume, _, modulus = EquationOfState(volumes, energies, "birchmurnaghan").fit()
            fits.append((volume ** (1 / 3), modulus / units.GPa))
        (a, b), (a_ref, b_ref) = fits
        rows.append(f"| {label} | {a:.3f} | {a_ref:.3f} | {b:.3g} | {b_ref:.3g} |")
    return rows


def energetics(teachers: Teachers, calculator: Calculator) -> list[str]:
    """Compare energy differences that silicon, copper and argon simulations lean on."""

    def both(value: Callable[[Callable[[Atoms], float]], float]) -> tuple[float, float]:
        def model_energy(atoms: Atoms) -> float:
            work = atoms.copy()
            work.calc = calculator
            return float(work.get_potential_energy())

        return value(model_energy), value(teachers.energy)

    families = phases()

    def vacancy(of: Callable[[Atoms], float]) -> float:
        perfect = families["si_diamond64"].atoms
        return of(_without(perfect, 0)) - of(perfect) * 63 / 64

    def per_atom(name: str, of: Callable[[Atoms], float]) -> float:
        return of(families[name].atoms) / len(families[name].atoms)

    quantities: dict[str, Callable[[Callable[[Atoms], float]], float]] = {
        "Si unrelaxed vacancy (64 sites), eV": vacancy,
        "Si beta-tin - diamond, eV/atom": lambda of: (
            per_atom("si_beta_tin", of) - per_atom("si_diamond8", of)
        ),
        "Cu bcc - fcc, eV/atom": lambda of: per_atom("cu_bcc", of) - per_atom("cu_fcc4", of),
        "Ar13 icosahedron, eV": lambda of: of(families["ar_cluster13"].atoms),
        "Ar fcc, eV/atom": lambda of: per_atom("ar_fcc4", of),
        "Ar2 at 3.82 Å, eV": lambda of: of(_boxed(Atoms("Ar2", [[0, 0, 0], [0, 0, 3.82]]))),
    }
    rows = ["| quantity | model | teacher |", "|---|---|---|"]
    for label, value in quantities.items():
        model, reference = both(value)
        rows.append(f"| {label} | {model:.3f} | {reference:.3f} |")
    return rows


STABILITY_RUNS = (
    ("Si 64 atoms", "si_diamond64", 300.0),
    ("Si 64 atoms", "si_diamond64", 1800.0),
    ("Si 64 atoms", "si_diamond64", 2500.0),
    ("Si8 cluster in vacuum", "si_cluster8", 600.0),
    ("Cu 32 atoms", "cu_fcc32", 300.0),
    ("Cu 32 atoms", "cu_fcc32", 1600.0),
    ("Ar13 cluster in vacuum", "ar_cluster13", 30.0),
    ("Ar 32 atoms, liquid density", "ar_liquid32", 100.0),
    ("NaCl 16 atoms", "nacl16", 1000.0),
    ("MgO 16 atoms", "mgo16", 2000.0),
    ("Al 15 atoms + vacancy", "al_vacancy15", 900.0),
)


def stability(calculator: Calculator, seed: int) -> list[str]:
    """Run NVT Langevin of 1.5 ps at 2 fs."""
    rows = [
        "| system | T, K | time, ps | mean T of the 2nd half, K | largest force, eV/Å "
        "| shortest distance, Å | stable |",
        "|---|---|---|---|---|---|---|",
    ]
    families = phases()
    progress = Progress("stability", len(STABILITY_RUNS), "runs")
    for label, name, temperature in STABILITY_RUNS:
        _, run = molecular_dynamics(
            families[name].atoms, calculator, temperature, 750, 10, seed + 70_000
        )
        rows.append(
            f"| {label} | {temperature:g} | {run['time_ps']:.2f} | {run['mean_temperature_K']:.0f} "
            f"| {run['largest_force_eV_per_A']:.2f} | {run['shortest_distance_A']:.2f} "
            f"| {'yes' if run['stable'] else 'NO'} |"
        )
        progress.advance(1)
    return rows


def write_card(sections: dict[str, list[str]]) -> None:
    """Replace what stands between the ``measured`` markers of the model card."""
    card = BUNDLED_FOLDER / "MODEL_CARD.md"
    before, rest = card.read_text(encoding="utf-8").split("<!-- measured: begin -->")
    _, after = rest.split("<!-- measured: end -->")
    body = "\n\n".join(f"### {title}\n\n" + "\n".join(rows) for title, rows in sections.items())
    text = f"{before}<!-- measured: begin -->\n\n{body}\n\n<!-- measured: end -->{after}"
    with write_atomically(card) as aside:
        aside.write_text(text, encoding="utf-8")


def prove(work: Path, seed: int) -> None:
    """Measure the exported model and write the tables of the model card."""
    from mace.calculators import MACECalculator

    teachers = Teachers()
    module = load_model(BUNDLED_FOLDER, BUNDLED_NAME)
    calculator = MACECalculator(models=[module], device="cpu", default_dtype="float32")
    double = MACECalculator(
        models=[load_model(BUNDLED_FOLDER, BUNDLED_NAME).double()],
        device="cpu",
        default_dtype="float64",
    )
    files = [BUNDLED_FOLDER / f"{BUNDLED_NAME}.{suffix}" for suffix in ("json", "npz")]
    write_card(
        {
            "Held-out errors": held_out_errors(teachers, calculator, work, seed),
            "Equations of state (Birch-Murnaghan, ±3 % in length)": equations_of_state(
                teachers, double
            ),
            "Energy differences": energetics(teachers, double),
            "Molecular dynamics (NVT Langevin, 2 fs)": stability(calculator, seed),
            "Files": [
                "| file | bytes |",
                "|---|---|",
                *(f"| `{file.name}` | {file.stat().st_size:,} |" for file in files),
                "",
                f"sha256 of the state dict: `{state_dict_sha256(module)}`",
            ],
        }
    )


def main() -> None:
    """Run every stage that has not left its file yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of every stage's file")
    parser.add_argument("--seed", type=int, default=20, help="seed of every random choice")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    import torch

    torch.set_num_threads(1)
    publish(distil(arguments.work.absolute(), arguments.seed), arguments.seed)
    prove(arguments.work.absolute(), arguments.seed)


if __name__ == "__main__":
    main()
