"""EMT: forces are derivatives of its energy; campaigns cannot use it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk
from ase.units import GPa

from mlip_assets.campaign import CampaignError, load
from mlip_assets.labelling import Calculation, EmtEngine, EngineError, LabelLedger, label_frames
from tests.labelling.derivatives import against_differences, rattled


def test_finite_differences_detect_wrong_forces_and_stress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check of the DFT engines, applied to a model with exact derivatives."""
    engine = EmtEngine()
    right = against_differences(engine, rattled("Cu"), step_A=0.005, strain=0.002)
    assert abs(right.force_error_meV_per_A) < 0.1
    assert abs(right.stress_error_GPa) < 0.02
    assert right.label.stress is not None
    wrong = Calculation(
        right.label.energy_eV, 1.02 * right.label.forces, right.label.stress + 0.1 * GPa
    )
    calculated = iter([wrong])
    calculate = EmtEngine.calculate
    monkeypatch.setattr(
        EmtEngine,
        "calculate",
        lambda self, structure, attempt: (
            next(calculated, None) or calculate(self, structure, attempt)
        ),
    )
    found = against_differences(engine, rattled("Cu"), step_A=0.005, strain=0.002)
    assert abs(found.force_error_meV_per_A) > 1
    assert abs(found.stress_error_GPa) > 0.03


def test_emt_labels_its_elements_and_refuses_others(ledger: LabelLedger) -> None:
    (labelled,) = label_frames([bulk("Cu")], EmtEngine(), ledger).labelled
    assert labelled.info["engine"] == "emt"
    with pytest.raises(EngineError, match="no parameters for Si"):
        label_frames([bulk("Si")], EmtEngine(), ledger)


def test_campaign_with_emt_engine_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "copper.yaml"
    file.write_text("name: copper\ncomposition: Cu\nlabelling: {engine: emt}\n")
    with pytest.raises(CampaignError, match=r"labelling.engine: 'emt' is not possible.*gpaw, espr"):
        load(file)
