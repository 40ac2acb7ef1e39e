"""Forces and stress of the DFT engines are derivatives of the free energy of the label.

Cut-off and convergence are those of the ``fast`` preset. The grids have fewer k-points, because the
derivatives are consistent on any grid. docs/labelling.md lists the errors of every preset.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mlip_assets.campaign.presets import preset_values
from mlip_assets.labelling import EspressoEngine, GpawEngine
from mlip_assets.labelling.engines.pseudopotentials import upf_files
from tests.labelling.derivatives import against_differences, rattled

pytestmark = [pytest.mark.dft, pytest.mark.usefixtures("in_empty_folder")]

#: Bounds in meV/Å and GPa. The basis changes with the cell (Pulay), most for the d shell of copper.
SYSTEMS = pytest.mark.parametrize(
    ("name", "elements", "k_spacing_per_A", "force_bound", "stress_bound"),
    [
        ("Si", ["Si"], 1.05, 1.5, 0.05),
        ("NaCl", ["Na", "Cl"], 1.95, 1.5, 0.2),  # Γ only, for which pw.x has special code
        ("Cu", ["Cu"], 1.6, 1.5, 0.6),
    ],
)


@SYSTEMS
def test_gpaw_forces_and_stress_equal_finite_differences(
    name: str,
    elements: list[str],
    k_spacing_per_A: float,
    force_bound: float,
    stress_bound: float,
) -> None:
    values = preset_values("gpaw", "fast", elements) | {"k_spacing_per_A": k_spacing_per_A}
    found = against_differences(GpawEngine(xc="PBE", smearing_eV=0.1, **values), rattled(name))
    assert abs(found.force_error_meV_per_A) < force_bound
    assert abs(found.stress_error_GPa) < stress_bound


@SYSTEMS
def test_espresso_forces_and_stress_equal_finite_differences(
    name: str,
    elements: list[str],
    k_spacing_per_A: float,
    force_bound: float,
    stress_bound: float,
    pseudo_dojo: Path,
) -> None:
    values = preset_values("espresso", "fast", elements) | {"k_spacing_per_A": k_spacing_per_A}
    files = upf_files(pseudo_dojo, elements)
    engine = EspressoEngine(xc="PBE", smearing_eV=0.1, pseudopotentials=files, **values)
    found = against_differences(engine, rattled(name))
    assert abs(found.force_error_meV_per_A) < force_bound
    assert abs(found.stress_error_GPa) < stress_bound
