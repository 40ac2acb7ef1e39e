"""Quantum ESPRESSO: pseudopotential files, convergence from the output, and recorded failures."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.units import Rydberg

from mlip_assets.campaign import GateSettings, load
from mlip_assets.labelling import (
    ENGINES,
    EngineError,
    EspressoEngine,
    LabelLedger,
    NotConvergedError,
    isolated_atom,
    label_frames,
)
from mlip_assets.labelling.engines.engine import hash_of
from mlip_assets.labelling.engines.espresso import _check_convergence
from mlip_assets.labelling.engines.pseudopotentials import upf_files
from tests.labelling.derivatives import rattled

UPF = '<UPF version="2.0.1">\n<PP_HEADER element="{}" functional="{}" z_valence="4.00"/>\n</UPF>\n'


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """UPF files with a header only, sufficient for everything before a calculation."""
    folder = tmp_path / "family"
    folder.mkdir()
    for name in ("Si.upf", "s_pbe_v1.4.uspp.F.UPF", "Na_ONCV_PBE-1.2.upf", "README.txt"):
        (folder / name).write_text(UPF.format("X", "SLA  PW   PBX  PBC"))
    return folder


@pytest.fixture
def bare(family: Path) -> EspressoEngine:
    """Eight k-points for two atoms of silicon; the files contain no pseudopotential."""
    return EspressoEngine(
        xc="PBE",
        cutoff_eV=24 * Rydberg,
        k_spacing_per_A=1.05,
        smearing_eV=0.1,
        energy_convergence_eV=1e-7,
        vacuum_A=3.5,
        pseudopotentials=upf_files(family, ["Si"]),
    )


@pytest.fixture
def silicon(bare: EspressoEngine, pseudo_dojo: Path) -> EspressoEngine:
    """With real pseudopotentials and a low cut-off."""
    return replace(bare, pseudopotentials=upf_files(pseudo_dojo, ["Si"]))


def test_upf_files_are_found_by_first_letters_of_name(family: Path) -> None:
    found = upf_files(family, ["Na", "S", "Si"])
    names = {symbol: Path(path).name for symbol, (path, _) in found.items()}
    assert names == {"Na": "Na_ONCV_PBE-1.2.upf", "S": "s_pbe_v1.4.uspp.F.UPF", "Si": "Si.upf"}


def test_missing_and_ambiguous_upf_files_are_all_listed(family: Path) -> None:
    (family / "si-other.UPF").write_text("")
    with pytest.raises(EngineError, match=r"no UPF file for Cl, N; several for Si \(Si.upf, si-o"):
        upf_files(family, ["Si", "Cl", "N", "Na"])
    with pytest.raises(EngineError, match="no UPF file for Si"):
        upf_files(family / "missing", ["Si"])


def test_settings_hash_depends_on_file_content_and_not_on_path(
    bare: EspressoEngine, family: Path
) -> None:
    moved = family.rename(family.with_name("elsewhere"))
    assert hash_of(replace(bare, pseudopotentials=upf_files(moved, ["Si"]))) == hash_of(bare)
    (moved / "Na_ONCV_PBE-1.2.upf").write_text("something else")
    assert hash_of(replace(bare, pseudopotentials=upf_files(moved, ["Si"]))) == hash_of(bare)
    (moved / "Si.upf").write_text(UPF.format("Si", "PBE"))
    assert hash_of(replace(bare, pseudopotentials=upf_files(moved, ["Si"]))) != hash_of(bare)


def test_engine_is_created_from_a_campaign(family: Path) -> None:
    file = family.parent / "silicon.yaml"
    text = "name: silicon\ncomposition: {}\nlabelling:\n  engine: espresso\n  pseudopotentials: family\n"
    file.write_text(text.format("Si"))
    campaign = load(file)
    engine = ENGINES["espresso"](campaign.labelling, campaign.elements)
    assert isinstance(engine, EspressoEngine)
    assert set(engine.physics["pseudopotentials_sha256"]) == {"Si"}
    assert engine.cutoff_eV == pytest.approx(44 * Rydberg)
    file.write_text(text.format("SiC"))
    with pytest.raises(EngineError, match=r"labelling.pseudopotentials: .* no UPF file for C;"):
        ENGINES["espresso"](load(file).labelling, ["C", "Si"])


def test_check_raises_before_any_calculation(
    bare: EspressoEngine, family: Path, ledger: LabelLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(bare, command=sys.executable)
    with pytest.raises(EngineError, match="made for SLA PW PBX PBC, not for xc: LDA"):
        label_frames([rattled("Si")], replace(here, xc="LDA"), ledger)
    with pytest.raises(EngineError, match="the engine has no pseudopotential for Na, Cl"):
        label_frames([rattled("NaCl")], here, ledger)
    with pytest.raises(EngineError, match=r"'no-such-pw.x' cannot be run: .*apt-get install"):
        label_frames([rattled("Si")], replace(bare, command="no-such-pw.x -nk 2"), ledger)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match=r"'pw.x' cannot be run"):
        bare.check(["Si"])
    (family / "Si.upf").write_text("something else")
    with pytest.raises(EngineError, match="has changed since the engine was created"):
        here.check(["Si"])
    assert len(ledger) == 0


CONVERGED = "     convergence has been achieved in   9 iterations\n   JOB DONE.\n"


@pytest.mark.parametrize(
    ("output", "status", "error", "message"),
    [
        (
            "  convergence NOT achieved after  2 iterations: stopping\n   JOB DONE.\n",
            0,
            NotConvergedError,
            "no self-consistency in 7 iterations",
        ),
        (
            " %%%%%%\n     Error in routine  cdiaghg (83):\n      S matrix not positive definite\n %%%%",
            1,
            NotConvergedError,
            "pw.x stopped in cdiaghg: S matrix not positive definite",
        ),
        (
            " %%%%%%\n     Error in routine check_atoms (1):\n     atoms #   1 and #   2 overlap!\n %%%%",
            1,
            RuntimeError,
            "check_atoms: atoms # 1 and # 2 overlap!",
        ),
        (
            "     Self-consistent Calculation\n   JOB DONE.\n",
            0,
            RuntimeError,
            "without convergence",
        ),
        (
            "     Self-consistent Calculation\n",
            -11,
            RuntimeError,
            "exit status -11 without convergence",
        ),
    ],
)
def test_convergence_is_determined_from_the_output_of_pw(
    output: str, status: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _check_convergence(output, status, 7)
    _check_convergence(CONVERGED, 0, 7)


@pytest.mark.dft
@pytest.mark.usefixtures("in_empty_folder")
def test_input_of_pw_has_the_settings(silicon: EspressoEngine) -> None:
    silicon.calculate(silicon.prepare(rattled("Si")), attempt=0)
    text = Path("espresso.pwi").read_text()
    assert "'fermi-dirac'" in text
    assert "2 2 2  1 1 1" in text
    output = Path("espresso.pwo").read_text()
    assert "number of k points=     4" in output
    assert "kinetic-energy cutoff     =      24.0000  Ry" in output
    assert silicon.program().startswith("pw.x ")


@pytest.mark.dft
def test_isolated_atom_is_polarised_with_fixed_moment(
    silicon: EspressoEngine, ledger: LabelLedger
) -> None:
    """Spin polarisation lowers the energy of the silicon atom by about 0.8 eV."""
    polarised, plain = isolated_atom("Si"), isolated_atom("Si", polarised=False)
    small = replace(silicon, vacuum_A=3.0, cutoff_eV=18 * Rydberg)
    database = label_frames([polarised, plain], small, ledger, n_workers=2)
    energies = [atoms.info["REF_energy"] for atoms in database.labelled]
    assert 0.5 < energies[1] - energies[0] < 1.1
    assert "REF_stress" not in database.labelled[0].info


@pytest.mark.dft
def test_each_attempt_is_logged_and_its_output_kept(
    silicon: EspressoEngine, ledger: LabelLedger
) -> None:
    few_iterations = replace(silicon, max_iterations=1, retries=1)
    finished = []
    database = label_frames([rattled("Si")], few_iterations, ledger, on_finished=finished.append)
    (failure,) = database.failed
    assert "no self-consistency in 3 iterations; espresso.pwo ends" in failure.reason
    log = next(label for label in finished if label.key == failure.label_key).attempts_log
    assert [attempt.outcome for attempt in log] == ["not_converged", "not_converged"]
    assert [attempt.numerics["mixing_beta"] for attempt in log] == [0.4, 0.2]
    assert [attempt.numerics["electron_maxstep"] for attempt in log] == [1, 3]
    known = ledger.find(failure.label_key)
    assert known is not None
    assert known.attempts_log == log
    output = ledger.calculations / failure.label_key / "1" / "espresso.pwo"
    assert "convergence NOT achieved" in output.read_text()


@pytest.mark.dft
@pytest.mark.usefixtures("in_empty_folder")
def test_later_attempts_give_the_same_label(silicon: EspressoEngine) -> None:
    first = silicon.calculate(silicon.prepare(rattled("Si")), attempt=0)
    for attempt in (1, 2, 3):
        later = silicon.calculate(silicon.prepare(rattled("Si")), attempt)
        assert later.energy_eV == pytest.approx(first.energy_eV, abs=1e-5)
        np.testing.assert_allclose(later.forces, first.forces, atol=2e-3)


@pytest.mark.dft
def test_frame_with_overlapping_atoms_fails_and_others_continue(
    silicon: EspressoEngine, ledger: LabelLedger
) -> None:
    overlapping = rattled("Si")
    overlapping.positions[1] = overlapping.positions[0] + 1e-3
    wide_gates = GateSettings(min_distance_ratio=1e-4)
    database = label_frames([overlapping, rattled("Si")], silicon, ledger, gates=wide_gates)
    (failure,) = database.failed
    assert failure.frame_id == 0
    assert (ledger.calculations / failure.label_key / "0" / "espresso.pwo").is_file()
    assert len(database.labelled) == 1


@pytest.fixture
def write_program(tmp_path: Path) -> Callable[[str], str]:
    """Write a shell script that replaces ``pw.x``; returns its path."""

    def write(script: str) -> str:
        path = tmp_path / "pw-script"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "outcome", "message"),
    [
        ("kill -9 $$", "died", "espresso was killed by SIGKILL"),
        ("echo 'iteration #  1'; sleep 600", "timeout", "took longer than timeout_s = 3 s"),
        (
            "exec python3 -c 'x = bytearray(10**9)\nimport time; time.sleep(600)'",
            "memory",
            "GiB of",
        ),
    ],
)
def test_killed_hanging_and_memory_exceeding_programs_are_recorded(
    bare: EspressoEngine,
    ledger: LabelLedger,
    write_program: Callable[[str], str],
    script: str,
    outcome: str,
    message: str,
) -> None:
    timeout_s = 3.0 if outcome == "timeout" else 60.0
    engine = replace(
        bare, command=write_program(script), timeout_s=timeout_s, memory_limit_GiB=0.9, retries=0
    )
    finished = []
    label_frames(
        [isolated_atom("Si", polarised=False)], engine, ledger, on_finished=finished.append
    )
    label = finished[-1]
    assert (label.outcome, label.attempts_log[-1].outcome) == (outcome, outcome)
    assert message in label.reason
    assert not _running(engine.command)


ORPHANED = """
from mlip_assets.labelling import EspressoEngine, LabelLedger, isolated_atom, label_frames
engine = EspressoEngine(**{fields!r})
label_frames([isolated_atom("Si", polarised=False)], engine, LabelLedger({ledger!r}))
"""


@pytest.mark.slow
def test_program_ends_when_its_run_is_killed(
    bare: EspressoEngine, ledger: LabelLedger, write_program: Callable[[str], str]
) -> None:
    command = write_program('echo "$0" $$ > started; exec sleep 600')
    fields = asdict(replace(bare, command=command))
    script = ORPHANED.format(fields=fields, ledger=str(ledger.path))
    run = subprocess.Popen([sys.executable, "-c", script])
    while not (started := list(ledger.calculations.glob("*/0/started"))):
        assert run.poll() is None
        time.sleep(0.05)
    program = Path("/proc") / started[0].read_text().split()[1]
    assert program.exists()
    run.kill()
    run.wait()
    deadline = time.monotonic() + 10
    while program.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not program.exists()


def _running(command: str) -> list[str]:
    """Processes with the command in their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_text()
        except OSError:
            continue
        if command in arguments and int(process.name) != os.getpid():
            found.append(arguments)
    return found


@pytest.mark.slow
def test_larger_memory_limit_repeats_the_calculation(
    bare: EspressoEngine, ledger: LabelLedger, write_program: Callable[[str], str]
) -> None:
    command = write_program("exec python3 -c 'x = bytearray(10**9)\nimport time; time.sleep(5)'")
    small = replace(bare, command=command, memory_limit_GiB=0.5, retries=0)
    atom: Atoms = isolated_atom("Si", polarised=False)
    first = label_frames([atom], small, ledger)
    assert first.n_calculated == len(ledger)
    assert label_frames([atom], small, ledger).n_calculated == 0
    assert label_frames([atom], replace(small, memory_limit_GiB=0.6), ledger).n_calculated > 0
