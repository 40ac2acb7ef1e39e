"""Frames that are not computed and calculations that are rejected, each with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlip_assets.campaign import GateSettings
from mlip_assets.labelling import Calculation
from mlip_assets.labelling.gates import energy_outliers, gate_calculation, gate_frames

GATES = GateSettings()
GOOD_FORCES = np.array([[1.0, 0.5, 0.0], [-1.0, -0.5, 0.0]])


def silicon(energy_eV: float | None = None, largest_force: float | None = None) -> Atoms:
    atoms = bulk("Si")
    if energy_eV is not None:
        atoms.info["surrogate_energy_eV"] = energy_eV
    if largest_force is not None:
        forces = [[largest_force, 0, 0], [-largest_force, 0, 0]]
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    return atoms


def reason_for(
    forces: np.ndarray = GOOD_FORCES, stress: np.ndarray | None = None, energy_eV: float = -10.0
) -> str:
    calculation = Calculation(energy_eV, np.asarray(forces), stress)
    return gate_calculation(calculation, GATES, max_net_force_eV_per_A=0.05) or ""


def test_close_contact_across_the_boundary_is_rejected() -> None:
    near = Atoms("NaCl", [[0.1, 0, 0], [5.9, 0, 0]], cell=[6, 6, 6], pbc=True)
    not_periodic = Atoms("NaCl", [[0.1, 0, 0], [5.9, 0, 0]], cell=[6, 6, 6], pbc=False)
    reason, none = gate_frames([near, not_periodic], GATES)
    assert none is None
    assert reason is not None
    assert reason.startswith("close_contact: ")
    assert "0.20 Å apart" in reason
    assert {"Na0", "Cl1"} <= set(reason.replace(",", " ").split())


@pytest.mark.parametrize(
    ("frame", "gate"),
    [
        (silicon(energy_eV=np.nan), "surrogate_energy: not finite"),
        (silicon(largest_force=np.nan), "surrogate_force: nan"),
        (silicon(largest_force=1e4), "surrogate_force: 10000.0 eV/Å exceeds 100"),
        (Atoms(), "unusable: there are no atoms"),
        (Atoms("Si2", [[0, 0, 0], [np.inf, 0, 0]]), "unusable: positions or cell are not finite"),
    ],
)
def test_frames_with_unphysical_surrogate_results_are_rejected(frame: Atoms, gate: str) -> None:
    (reason,) = gate_frames([frame], GATES)
    assert reason is not None
    assert reason.startswith(gate)


def test_surrogate_energy_outlier_is_rejected_within_its_group() -> None:
    frames = [silicon(energy_eV=-10.0 + 0.01 * i) for i in range(20)]
    frames.append(silicon(energy_eV=-60.0))
    dimer = Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]], info={"surrogate_energy_eV": -4.0})
    reasons = gate_frames([*frames, dimer], GATES)
    assert reasons[:20] == [None] * 20
    assert reasons[20] is not None
    assert reasons[20].startswith("surrogate_energy: by the surrogate, -30.00 eV/atom is 25.")
    assert reasons[21] is None, "a molecule and a crystal are different groups"


def test_valid_calculation_passes_the_gates() -> None:
    assert not reason_for()
    assert not reason_for(stress=np.diag([1.0, 2.0, 3.0]) * GPa)
    assert not reason_for(np.zeros((2, 3))), "a perfect crystal has no forces to compare with"
    assert not reason_for(np.array([[1e-3, 0, 0], [0, 0, 0]])), "noise of the grid"


@pytest.mark.parametrize(
    ("forces", "limit"),
    [
        ([[5.06, 0, 0], [-5.0, 0, 0]], "max_net_force_eV_per_A = 0.05"),
        # GPAW, 13 argon atoms at 300 eV: the net force is larger than the force on any atom
        ([[0.03, 0, 0], [0.012, 0, 0]], "max_net_force_ratio = 0.25"),
    ],
)
def test_net_force_is_limited_absolutely_and_relative_to_the_largest(
    forces: list[list[float]], limit: str
) -> None:
    assert reason_for(np.array(forces)).startswith("net_force: ")
    assert limit in reason_for(np.array(forces))


def test_gate_calculation_names_the_reason() -> None:
    assert reason_for(energy_eV=np.nan).startswith("not_finite")
    assert reason_for(np.array([[np.inf, 0, 0], [-np.inf, 0, 0]])).startswith("not_finite")
    assert reason_for(stress=np.full((3, 3), np.nan)).startswith("not_finite")
    assert reason_for(200 * GOOD_FORCES).startswith("max_force: 223.6 eV/Å exceeds 100")
    assert reason_for(stress=np.eye(3) * 150 * GPa).startswith("stress: 150 GPa exceeds")
    skewed = np.diag([1.0, 2.0, 3.0]) * GPa
    skewed[0, 1] = 0.5 * GPa
    assert reason_for(stress=skewed).startswith("stress: the tensor is not symmetric")


@given(
    energies=hnp.arrays(np.float64, st.integers(8, 60), elements=st.floats(-6, -3)),
    wrong=st.floats(60, 1e6),
    sign=st.sampled_from([-1, 1]),
    where=st.integers(0, 1000),
)
@settings(deadline=None)
def test_energy_outliers_finds_one_wrong_energy_only(
    energies: np.ndarray, wrong: float, sign: int, where: int
) -> None:
    """Energies within 3 eV/atom are no outliers; one at 60 eV/atom is, even in a bimodal group."""
    frames = [silicon()] * len(energies)
    assert energy_outliers(frames, energies, GATES) == [None] * len(frames)
    energies[where % len(frames)] += sign * wrong
    found = energy_outliers(frames, energies, GATES)
    assert np.flatnonzero(found).tolist() == [where % len(frames)]


def test_energy_outliers_ignores_small_groups_and_unknown_energies() -> None:
    frames = [silicon()] * 7
    assert energy_outliers(frames, np.array([-5.0] * 6 + [90.0]), GATES) == [None] * 7
    frames = [silicon()] * 20
    assert energy_outliers(frames, np.full(20, np.nan), GATES) == [None] * 20
