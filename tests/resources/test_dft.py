from __future__ import annotations

from pathlib import Path

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling import GpawEngine
from resources.dft import DftResource


def test_dft_resource_makes_engine_and_ledger(tmp_path: Path) -> None:
    resource = DftResource(ledger_path=str(tmp_path / "ledger" / "labels.db"))
    settings = LabellingSettings(
        cutoff_eV=275.0, k_spacing_per_A=0.5, energy_convergence_eV=1e-5, xc="LDA"
    )
    engine = resource.engine(settings, ["Si"])
    assert isinstance(engine, GpawEngine)
    assert (engine.cutoff_eV, engine.xc) == (275.0, "LDA")
    ledger = resource.ledger()
    assert ledger.path == tmp_path / "ledger" / "labels.db"
    assert len(ledger) == 0
    assert not ledger.path.exists()
