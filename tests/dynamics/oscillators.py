"""Model systems with exact averages, and walkers of them."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from mlip_assets.campaign import Campaign, MdBackend
from mlip_assets.dynamics import plan_walkers
from mlip_assets.surrogates import Surrogate

#: Bulk modulus of the elastic cell, eV/Å³ (128 GPa).
STIFFNESS_EV_PER_A3 = 0.8


def copper(kind="crystal", size=(2, 1, 1)):
    atoms = bulk("Cu", cubic=True) * size
    atoms.info.update(seed_name=kind, seed_kind=kind)
    return atoms


class Harmonic(Calculator):
    """Oscillators around sites that follow an elastic cell, with exact canonical averages.

    Results depend on the positions only, bit by bit; those of EMT depend on its neighbour list of
    earlier positions. ``calls`` counts the evaluations.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, size=(2, 1, 1), k=5.0):
        super().__init__()
        self._sites, self._k = copper(size=size).get_scaled_positions(), k
        self._volume = copper(size=size).cell.volume
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        shift = atoms.positions - self._sites @ atoms.cell.array
        stretch = atoms.cell.volume / self._volume - 1
        stress = self._k * shift.T @ shift / atoms.cell.volume
        stress += STIFFNESS_EV_PER_A3 * stretch * np.identity(3)
        elastic = 0.5 * STIFFNESS_EV_PER_A3 * self._volume * stretch**2
        self.results = {
            "energy": 0.5 * self._k * (shift**2).sum() + elastic,
            "forces": -self._k * shift,
            "stress": stress.ravel()[[0, 4, 8, 5, 2, 1]],
        }


class SlowHarmonic(Harmonic):
    """Evaluations take ``delay_s``; ``log`` receives the process of each calculator."""

    def __init__(self, delay_s: float, log: Path) -> None:
        super().__init__()
        self._delay_s = delay_s
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")

    def calculate(self, *args, **kwargs):
        time.sleep(self._delay_s)
        super().calculate(*args, **kwargs)


@dataclass(frozen=True)
class HarmonicSurrogate(Surrogate):
    """A surrogate whose calculators are :class:`SlowHarmonic`."""

    delay_s: float = 0.0
    log: Path = Path()

    distribution = "ase"

    def elements(self) -> tuple[str, ...]:
        return ("Cu",)

    def build(self, device: str) -> Calculator:
        raise NotImplementedError(device)

    def calculator(self, worker: int = 0, md_backend: MdBackend = "ase") -> Calculator:
        return SlowHarmonic(self.delay_s, self.log)


class IdealGas(Calculator):
    """No interaction: pressure times volume is N kT."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        n_atoms = len(atoms)
        self.results = {
            "energy": 0.0,
            "forces": np.zeros((n_atoms, 3)),
            "stress": np.zeros(6),
        }


def campaign(guards=None, **exploration):
    given = {"n_steps": 60, "sample_every": 3, "temperatures_K": [300, 900], **exploration}
    return Campaign(
        name="copper",
        composition="Cu",
        exploration=given,
        guards=guards or {},
        sampling={"n_samples": 1},
        random_seed=4,
    )


def walkers(seeds=None, guards=None, **exploration):
    planned = campaign(guards, **exploration)
    return plan_walkers(planned, seeds or [copper()], surrogate_sha256="0" * 64)


def columns(trajectory):
    batches = list(trajectory.iter_batches())
    names = ("frame_id", "time_fs", "cell", "positions", "energy_eV", "temperature_K", "forces")
    return {
        name: np.concatenate([np.asarray(batch[name].to_pylist()) for batch in batches])
        for name in names
    }


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left)
