"""GPAW and Quantum ESPRESSO give equal labels within the differences of their element data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlip_assets.campaign.presets import preset_values
from mlip_assets.labelling import EspressoEngine, GpawEngine
from mlip_assets.labelling.engines.pseudopotentials import upf_files
from tests.labelling.derivatives import rattled


@pytest.mark.dft
@pytest.mark.usefixtures("in_empty_folder")
@pytest.mark.parametrize(
    ("name", "elements", "k_spacing_per_A"), [("Si", ["Si"], 1.05), ("NaCl", ["Na", "Cl"], 1.0)]
)
def test_gpaw_and_espresso_labels_agree(
    name: str, elements: list[str], k_spacing_per_A: float, pseudo_dojo: Path
) -> None:
    """Energy differences to 5 meV/atom, forces to 2 % and 15 meV/Å, stress to 0.5 GPa."""

    def values(engine: str) -> dict[str, float]:
        return preset_values(engine, "fast", elements) | {"k_spacing_per_A": k_spacing_per_A}

    gpaw = GpawEngine(xc="PBE", smearing_eV=0.1, **values("gpaw"))
    files = upf_files(pseudo_dojo, elements)
    espresso = EspressoEngine(
        xc="PBE", smearing_eV=0.1, pseudopotentials=files, **values("espresso")
    )
    frames = [rattled(name, seed=1), rattled(name, seed=2)]
    frames[1].set_cell(1.02 * frames[1].cell.array, scale_atoms=True)
    gpaw_labels, espresso_labels = (
        [engine.calculate(engine.prepare(atoms), attempt=0) for atoms in frames]
        for engine in (gpaw, espresso)
    )
    differences = [
        labels[1].energy_eV - labels[0].energy_eV for labels in (gpaw_labels, espresso_labels)
    ]
    assert abs(differences[0]) > 0.02
    assert differences[0] == pytest.approx(differences[1], abs=0.005 * len(frames[0]))
    for one, other in zip(gpaw_labels, espresso_labels, strict=True):
        np.testing.assert_allclose(one.forces, other.forces, rtol=0.02, atol=0.015)
        assert one.stress is not None
        np.testing.assert_allclose(one.stress, other.stress, atol=0.5 * 0.00624)
