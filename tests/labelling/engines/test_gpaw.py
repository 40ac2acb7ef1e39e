"""GPAW labels: agreement with a direct calculation by ASE, and failures of real calculations."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.campaign import GateSettings, LabellingSettings
from mlip_assets.labelling import (
    EngineError,
    GpawEngine,
    LabelLedger,
    NotConvergedError,
    isolated_atom,
    label_frames,
)
from mlip_assets.labelling.engines.engine import hash_of

#: 2×2×2 k-points for two atoms of silicon; a label takes about 1 s.
ENGINE = GpawEngine(
    xc="PBE", cutoff_eV=250, k_spacing_per_A=1.05, smearing_eV=0.1, energy_convergence_eV=1e-6
)

#: Γ point and a low cut-off, for tests in which only the sequence of calculations matters.
COARSE = replace(ENGINE, cutoff_eV=150, k_spacing_per_A=2.5, vacuum_A=3.0)


def silicon(seed: int = 4) -> Atoms:
    atoms = bulk("Si")
    atoms.rattle(0.08, seed=seed)
    atoms.info["frame_id"] = seed
    return atoms


def test_from_settings_takes_the_values_of_a_campaign() -> None:
    explicit = {"cutoff_eV": 321.0, "k_spacing_per_A": 0.3, "energy_convergence_eV": 1e-6}
    settings = LabellingSettings(retries=3, timeout_s=7.0, spin="off", charge=1.0, **explicit)
    engine = GpawEngine.from_settings(settings, ["Si"])
    assert engine.physics["cutoff_eV"] == 321.0
    assert (engine.physics["spin"], engine.physics["charge"]) == ("off", 1.0)
    assert (engine.retries, engine.timeout_s) == (3, 7.0)
    with pytest.raises(ValueError, match="cutoff_eV is not set"):
        GpawEngine.from_settings(LabellingSettings(), ["Si"])


def test_zero_smearing_raises_value_error() -> None:
    with pytest.raises(ValueError, match="smearing_eV = 0: fixed occupations"):
        replace(ENGINE, smearing_eV=0.0)


@pytest.mark.parametrize(
    ("field", "is_physics"),
    [
        ({"xc": "LDA"}, True),
        ({"cutoff_eV": 300}, True),
        ({"k_spacing_per_A": 0.5}, True),
        ({"smearing_eV": 0.2}, True),
        ({"energy_convergence_eV": 1e-4}, True),
        ({"vacuum_A": 6.0}, True),
        ({"spin": "on"}, True),
        ({"charge": 1.0}, True),
        ({"retries": 5}, False),
        ({"timeout_s": 5.0}, False),
        ({"memory_limit_GiB": 5.0}, False),
        ({"max_net_force_eV_per_A": 5.0}, False),
        ({"max_iterations": 5}, False),
    ],
)
def test_settings_hash_depends_on_physics_only(field: dict[str, float], is_physics: bool) -> None:
    assert (hash_of(replace(ENGINE, **field)) != hash_of(ENGINE)) == is_physics  # type: ignore[arg-type]


def test_missing_gpaw_raises_error_with_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "gpaw"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gpaw", None)
    with pytest.raises(EngineError, match=r"GPAW is not installed .*CC=g\+\+ pip install"):
        ENGINE.check(["Si"])


@pytest.mark.dft
def test_element_without_paw_data_raises_before_any_calculation(ledger: LabelLedger) -> None:
    ENGINE.check(["H", "Si", "Cu"])
    frame = silicon()
    frame.symbols[0] = "U"
    with pytest.raises(EngineError, match="no PBE PAW data for U"):
        label_frames([silicon(), frame], ENGINE, ledger)
    assert len(ledger) == 0


@pytest.mark.dft
def test_gpaw_label_equals_direct_calculation_with_ase(ledger: LabelLedger, tmp_path: Path) -> None:
    from gpaw import GPAW, PW

    (labelled,) = label_frames([silicon()], ENGINE, ledger, n_workers=2).labelled
    atoms = silicon()
    atoms.calc = GPAW(
        mode=PW(250),
        xc="PBE",
        kpts=(2, 2, 2),
        occupations={"name": "fermi-dirac", "width": 0.1},
        convergence={"energy": 1e-6},
        txt=str(tmp_path / "direct.txt"),
    )
    free_energy = atoms.get_potential_energy(force_consistent=True)
    assert labelled.info["REF_energy"] == pytest.approx(free_energy, abs=1e-7)
    assert abs(labelled.info["REF_energy"] - atoms.get_potential_energy()) > 1e-5
    np.testing.assert_allclose(labelled.arrays["REF_forces"], atoms.get_forces(), atol=1e-5)
    np.testing.assert_allclose(
        labelled.info["REF_stress"], atoms.get_stress(voigt=False), atol=1e-6
    )


@pytest.mark.dft
def test_binding_energy_of_silicon_is_its_cohesive_energy(ledger: LabelLedger) -> None:
    """PBE with a spin-polarised atom: about 4.5 eV; without spin it would be 0.8 eV less."""
    engine = replace(ENGINE, k_spacing_per_A=0.55)
    database = label_frames([bulk("Si")], engine, ledger)
    assert -5.0 < database.binding_energies()[0] < -4.0
    (atom,) = database.isolated
    assert atom.get_initial_magnetic_moments() == [2.0]
    assert atom.info["config_type"] == "IsolatedAtom"
    assert "REF_stress" not in atom.info


@pytest.mark.dft
@pytest.mark.usefixtures("in_empty_folder")
def test_energy_of_molecule_does_not_depend_on_its_cell() -> None:
    dimer = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], cell=[3, 3, 3])  # extends beyond its cell
    engine = replace(ENGINE, cutoff_eV=200, vacuum_A=3.5)
    label = engine.calculate(engine.prepare(dimer), attempt=0)
    assert label.stress is None
    np.testing.assert_allclose(label.forces.sum(axis=0), 0, atol=0.02)
    wider = replace(engine, vacuum_A=4.5)
    assert wider.calculate(wider.prepare(dimer), attempt=0).energy_eV == pytest.approx(
        label.energy_eV, abs=0.02
    )


@pytest.mark.dft
def test_unconverged_frame_fails_with_end_of_gpaw_output(ledger: LabelLedger) -> None:
    engine = replace(COARSE, max_iterations=1, retries=1)
    database = label_frames([silicon()], engine, ledger)
    (failure,) = database.failed
    assert failure.attempts == 2
    assert "no self-consistency in 3 iterations; gpaw.txt ends" in failure.reason
    assert "iter: 3" in failure.reason
    assert (ledger.calculations / failure.label_key / "1" / "gpaw.txt").is_file()
    assert not database.labelled
    assert not database.isolated


@pytest.mark.dft
@pytest.mark.usefixtures("in_empty_folder")
def test_later_attempts_give_the_same_label() -> None:
    coarse = replace(ENGINE, k_spacing_per_A=2.5)  # Γ only
    few_iterations = replace(coarse, max_iterations=6)
    with pytest.raises(NotConvergedError, match="in 6 iterations"):
        few_iterations.calculate(silicon(), attempt=0)
    first = coarse.calculate(silicon(), attempt=0)
    for attempt in (1, 2, 3):
        assert ENGINE.numerics(attempt) != ENGINE.numerics(attempt - 1)
        later = coarse.calculate(silicon(), attempt)
        assert later.energy_eV == pytest.approx(first.energy_eV, abs=1e-5)
        np.testing.assert_allclose(later.forces, first.forces, atol=2e-3)


@pytest.mark.dft
@pytest.mark.usefixtures("in_empty_folder")
def test_charge_applies_to_cells_and_not_to_isolated_atoms() -> None:
    neutral = replace(ENGINE, k_spacing_per_A=2.5)
    charged = replace(neutral, charge=1.0)
    energy_eV = charged.calculate(charged.prepare(silicon()), attempt=0).energy_eV
    assert abs(energy_eV - neutral.calculate(silicon(), attempt=0).energy_eV) > 1
    assert charged._charge_of(charged.prepare(isolated_atom("Si"))) == 0


@pytest.mark.dft
def test_frame_with_overlapping_atoms_fails_and_others_continue(ledger: LabelLedger) -> None:
    overlapping = silicon()
    overlapping.positions[1] = overlapping.positions[0] + 1e-3
    wide_gates = GateSettings(min_distance_ratio=1e-4)
    database = label_frames([overlapping, silicon()], COARSE, ledger, gates=wide_gates)
    (failure,) = database.failed
    assert failure.label_key
    assert re.search(r"error|converged|force|finite", failure.kind)
    assert (ledger.calculations / failure.label_key / "0" / "gpaw.txt").is_file()
    assert len(database.labelled) == 1


KILLED = """
import sys
from ase.build import bulk
from mlip_assets.labelling import GpawEngine, LabelLedger, label_frames
frames = [bulk("Si"), bulk("Si", a=5.5), bulk("Si", a=5.6)]
engine = GpawEngine(**{fields!r})
label_frames(frames, engine, LabelLedger({ledger!r}), on_finished=lambda l: print(l.key, flush=True))
"""


@pytest.mark.dft
def test_sigkill_loses_no_dft_label(ledger: LabelLedger) -> None:
    fields = {
        f: getattr(COARSE, f) for f in COARSE.__dataclass_fields__ if f not in {"name", "output"}
    }
    script = KILLED.format(fields=fields, ledger=str(ledger.path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    process.kill()
    process.wait()
    assert len(ledger) == 1
    frames = [bulk("Si"), bulk("Si", a=5.5), bulk("Si", a=5.6)]
    database = label_frames(frames, COARSE, ledger)
    assert len(database.labelled) == 3
    assert (database.n_calculated, database.n_reused) == (3, 1)
    (atom,) = database.isolated
    assert first == atom.info["label_key"]
