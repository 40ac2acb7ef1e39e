"""VASP: input files, and reading of output that was written by hand; VASP itself is not run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.labelling import EngineError, NotConvergedError, VaspEngine, isolated_atom
from mlip_assets.labelling.engines.engine import hash_of
from mlip_assets.labelling.engines.pseudopotentials import potcar_files
from mlip_assets.labelling.engines.vasp import _check_convergence


@pytest.fixture
def potcars(tmp_path: Path) -> Path:
    for name, valence in (("Na_pv", 7), ("Cl", 7), ("Fe", 8), ("Fe_pv", 14), ("Si_GW", 4)):
        (tmp_path / "potpaw" / name).mkdir(parents=True)
        potcar = tmp_path / "potpaw" / name / "POTCAR"
        header = f"  PAW_PBE {name} 01Jan2000\n  {valence}.0000\n parameters from PSCTR are:\n"
        potcar.write_text(
            f"{header}   TITEL  = PAW_PBE {name} 01Jan2000\n"
            "   LULTRA =        F\n   IUNSCR =        0\n   RPACOR =    1.500\n"
            f"   POMASS =    1.0; ZVAL   =    {valence}.000    mass and valenz\n End of Dataset\n"
        )
    return tmp_path / "potpaw"


@pytest.fixture
def engine(potcars: Path) -> VaspEngine:
    return VaspEngine(
        xc="PBE",
        cutoff_eV=520,
        k_spacing_per_A=0.45,
        smearing_eV=0.1,
        energy_convergence_eV=1e-7,
        pseudopotentials=potcar_files(potcars, ["Na", "Cl", "Fe"]),
    )


def incar() -> dict[str, str]:
    lines = [line.split("=") for line in Path("INCAR").read_text().splitlines() if "=" in line]
    return {key.strip(): value.strip() for key, value in lines}


def alternating_salt() -> Atoms:
    """Rock salt with alternating elements in the list of atoms."""
    return bulk("NaCl", "rocksalt", a=5.64, cubic=True)


@pytest.mark.usefixtures("in_empty_folder")
def test_vasp_input_is_complete_and_in_one_atom_order(engine: VaspEngine) -> None:
    salt = alternating_salt()
    order = engine.write_input(engine.prepare(salt), attempt=0)
    tags = incar()
    assert float(tags["ENCUT"]) == 520
    assert (tags["ISMEAR"], float(tags["SIGMA"])) == ("-1", 0.1)
    assert float(tags["EDIFF"]) == pytest.approx(8e-7)
    assert (tags["NSW"], tags["ISIF"], tags["ISYM"], tags["NELM"]) == ("0", "2", "0", "100")
    assert tags["GGA"] == "PE"
    assert not {"ISPIN", "MAGMOM", "NELECT", "NUPDOWN"} & set(tags)
    poscar = Path("POSCAR").read_text().splitlines()
    symbols, numbers = poscar[5].split(), poscar[6].split()
    potcar = Path("POTCAR").read_text().splitlines()
    names = [line.split()[3] for line in potcar if "TITEL" in line]
    assert [name.partition("_")[0] for name in names] == symbols
    assert set(names) == {"Na_pv", "Cl"}
    assert numbers == ["4", "4"]
    written = np.array([line.split()[:3] for line in poscar[-8:]], float)
    np.testing.assert_allclose(written[order], salt.positions, atol=1e-8)


@pytest.mark.usefixtures("in_empty_folder")
def test_vasp_k_points_equal_those_of_other_engines(engine: VaspEngine) -> None:
    slab = alternating_salt()
    slab.pbc = [True, True, False]
    engine.write_input(engine.prepare(slab), attempt=0)
    assert Path("KPOINTS").read_text().splitlines()[1:] == ["0", "Gamma", "3 3 1", "0.5 0.5 0"]


@pytest.mark.usefixtures("in_empty_folder")
def test_vasp_spin_and_charge_are_those_of_the_settings(engine: VaspEngine) -> None:
    iron = Atoms("Fe", cell=[2.87] * 3, pbc=True)
    engine.write_input(engine.prepare(iron), attempt=0)
    assert (incar()["ISPIN"], incar()["MAGMOM"]) == ("2", "1*4.0000")
    engine.write_input(engine.prepare(isolated_atom("Cl")), attempt=0)
    assert float(incar()["NUPDOWN"]) == 1
    charged = replace(engine, charge=1.0)
    charged.write_input(charged.prepare(alternating_salt()), attempt=0)
    assert float(incar()["NELECT"]) == 4 * 7 + 4 * 7 - 1


@pytest.mark.usefixtures("in_empty_folder")
def test_attempts_change_numerical_settings_only(engine: VaspEngine) -> None:
    salt, written = engine.prepare(alternating_salt()), []
    for attempt in range(4):
        engine.write_input(salt, attempt)
        written.append(incar())
    assert len({tuple(sorted(tags.items())) for tags in written}) == 4
    changed = {key for tags in written for key in tags if tags[key] != written[0].get(key)}
    assert changed <= {"ALGO", "AMIX", "BMIX", "NELM"}


def test_potcar_files_are_found_and_hashed(engine: VaspEngine, potcars: Path) -> None:
    # Fe/POTCAR takes precedence over Fe_pv
    assert Path(engine.pseudopotentials["Fe"][0]).parent.name == "Fe"
    with pytest.raises(EngineError, match="no POTCAR for Cu"):
        potcar_files(potcars, ["Cu", "Na"])
    (potcars / "Cl" / "POTCAR").write_text("another")
    changed = replace(engine, pseudopotentials=potcar_files(potcars, ["Na", "Cl", "Fe"]))
    assert hash_of(changed) != hash_of(engine)
    with pytest.raises(EngineError, match="has changed since"):
        replace(engine, command=sys.executable).check(["Cl"])


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("aborting loop because EDIFF is reached", None),
        ("aborting loop EDIFF was not reached (unconverged)", NotConvergedError),
        ("aborting loop because hard stop was set", NotConvergedError),
        ("vasp.6.4.2 20Jul23", RuntimeError),
    ],
)
def test_convergence_is_determined_from_the_outcar(
    message: str, error: type[Exception] | None
) -> None:
    outcar = f" Iteration 1( 12)\n ------------------------ {message} ---------\n"
    if error is None:
        _check_convergence(outcar, 0, 100)
    else:
        with pytest.raises(error, match=r"self-consistency|without convergence"):
            _check_convergence(outcar, 0, 100)


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="version" type="string">6.4.2</i></generator>
 <kpoints>
  <varray name="kpointlist"><v>0.25 0.25 0.25</v></varray><varray name="weights"><v>1.0</v></varray>
 </kpoints>
 <atominfo>
  <atoms>3</atoms>
  <array name="atoms"><set>
   <rc><c>Na</c><c>1</c></rc><rc><c>Na</c><c>1</c></rc><rc><c>Cl</c><c>2</c></rc>
  </set></array>
 </atominfo>
 <structure name="initialpos">
  <crystal><varray name="basis">
   <v>4.0 0.0 0.0</v><v>0.0 4.0 0.0</v><v>0.0 0.0 4.0</v>
  </varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0</v><v>0.5 0.5 0.5</v></varray>
 </structure>
 <calculation>
  <scstep><energy>
   <i name="e_fr_energy">-6.75</i><i name="e_wo_entrp">-6.5</i><i name="e_0_energy">-6.625</i>
  </energy></scstep>
  <structure>
   <crystal><varray name="basis">
    <v>4.0 0.0 0.0</v><v>0.0 4.0 0.0</v><v>0.0 0.0 4.0</v>
   </varray></crystal>
   <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0</v><v>0.5 0.5 0.5</v></varray>
  </structure>
  <varray name="forces"><v>0.1 0.2 0.3</v><v>0 0 0</v><v>-0.1 -0.2 -0.3</v></varray>
  <varray name="stress"><v>10.0 0.0 0.0</v><v>0.0 20.0 0.0</v><v>0.0 0.0 30.0</v></varray>
  <energy>
   <i name="e_fr_energy">-6.75</i><i name="e_wo_entrp">-6.5</i><i name="e_0_energy">-6.625</i>
  </energy>
 </calculation>
</modeling>
"""


@pytest.mark.usefixtures("in_empty_folder")
def test_vasp_results_are_free_energy_and_forces_in_frame_order(
    engine: VaspEngine, tmp_path: Path
) -> None:
    """A script replaces VASP; the atoms in its files are sorted by element, as those of VASP."""
    (tmp_path / "example-vasprun.xml").write_text(VASPRUN)
    program = tmp_path / "vasp-script"
    program.write_text(
        f"#!/bin/sh\ncp {tmp_path}/example-vasprun.xml vasprun.xml\n"
        "printf ' vasp.6.4.2 20Jul23\\n aborting loop because EDIFF is reached\\n' > OUTCAR\n"
    )
    program.chmod(0o755)
    engine_with_script = replace(engine, command=str(program))
    places = [[0, 0, 0], [2, 2, 2], [2, 2, 0]]
    frame = Atoms("NaClNa", places, cell=[4, 4, 4], pbc=True)
    label = engine_with_script.calculate(engine_with_script.prepare(frame), attempt=0)
    assert label.energy_eV == -6.75
    np.testing.assert_allclose(label.forces, [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3], [0, 0, 0]])
    assert label.stress is not None
    kilobar = 0.1 / 160.21766
    np.testing.assert_allclose(np.diag(label.stress), -np.array([10, 20, 30]) * kilobar, rtol=1e-5)
    assert engine_with_script.program() == "vasp 6.4.2"
