"""SOAP of a trajectory: how far a copper crystal at 900 K moves away from its first frame."""

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

from mlip_assets import soap_power_spectrum

# Molecular dynamics with ASE, a frame every 10 fs; ase.io.read("file.extxyz", ":") gives frames too.
atoms = bulk("Cu", cubic=True) * (2, 2, 2)
atoms.calc = EMT()
dynamics = Langevin(
    atoms,
    timestep=5 * units.fs,
    temperature_K=900,
    friction=0.02 / units.fs,
    fixcm=False,
    rng=np.random.default_rng(0),
)
frames = [atoms.copy() for _ in dynamics.irun(100)][::2]

descriptors = soap_power_spectrum(
    np.array([frame.positions for frame in frames]),  # (n_frames, n_atoms, 3), Å
    atoms.cell.array,
    atoms.pbc,
    atoms.numbers,
    species=["Cu"],
    r_cut=5.0,
    n_max=8,
    l_max=6,
    sigma=0.5,
)
print(f"{descriptors.shape[0]} frames, {descriptors.shape[1]} features each")

unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
for frame in range(0, len(frames), 10):
    print(f"{10 * frame:4d} fs: SOAP similarity to the first frame {unit[0] @ unit[frame]:.4f}")
