"""M3GNet with the weights in the folder MLIP_M3GNET_PATH (M3GNet-MP-2021.2.8-PES)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from mlip_assets.campaign import CampaignError
from mlip_assets.surrogates import SurrogateError, find_surrogate, load_campaign
from mlip_assets.surrogates.models.chgnet import ChgnetSurrogate
from tests.surrogates import surrogate_checks as checks

pytest.importorskip("matgl", reason="the extra 'm3gnet' is not installed")
FOLDER = os.environ.get("MLIP_M3GNET_PATH", "")
on_weights = pytest.mark.skipif(
    not FOLDER, reason="MLIP_M3GNET_PATH does not name a folder with M3GNet-MP-2021.2.8-PES"
)


@pytest.fixture(scope="module")
def surrogate() -> Any:
    return find_surrogate(f"m3gnet:{FOLDER}", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def calculator(surrogate: Any) -> Any:
    return surrogate.calculator()


@on_weights
@pytest.mark.parametrize("composition", ["Si", "MgO"])
def test_m3gnet_forces_are_energy_gradient(calculator: Any, composition: str) -> None:
    checks.check_forces_and_stress(calculator, composition)
    checks.check_symmetries(calculator, composition)


@on_weights
def test_m3gnet_accepts_slab_and_molecule(calculator: Any) -> None:
    checks.check_boundaries(calculator)


@on_weights
@pytest.mark.parametrize(
    ("name", "structure", "published_A"),
    [
        ("Si", "diamond", 5.45671),
        ("Cu", "fcc", 3.61748),
        ("NaCl", "rocksalt", 5.69132),
        ("MgO", "rocksalt", 4.26133),
        ("GaAs", "zincblende", 5.75044),
        ("CsCl", "cesiumchloride", 4.20103),
    ],
)
def test_m3gnet_lattice_constants_agree_with_published_table(
    calculator: Any, name: str, structure: str, published_A: float
) -> None:
    """The table in the model's README; the sum of messages of matgl 3.0 has an error of 3 % for NaCl."""
    crystal = bulk(name, structure, a=published_A, cubic=True)
    found = checks.lattice_constant(calculator, crystal)
    assert found == pytest.approx(published_A, rel=5e-4)


@on_weights
@pytest.mark.parametrize("composition", ["Si", "MgO"])
def test_m3gnet_explores(surrogate: Any, composition: str, tmp_path: Path) -> None:
    checks.check_exploration(surrogate, composition, tmp_path)


@on_weights
def test_m3gnet_walker_resumes_bit_for_bit(surrogate: Any, tmp_path: Path) -> None:
    checks.check_resume(surrogate, tmp_path)


@on_weights
def test_m3gnet_metadata_and_elements(surrogate: Any, tmp_path: Path) -> None:
    checks.check_is_picklable(surrogate)
    assert surrogate.elements() == ChgnetSurrogate.elements(surrogate)  # the same 89
    text = f"name: mine\ncomposition: Po\nexploration:\n  surrogate: m3gnet:{FOLDER}\n"
    (tmp_path / "mine.yaml").write_text(text + "training:\n  start_from: scratch\n")
    with pytest.raises(CampaignError, match="does not support Po"):
        load_campaign(tmp_path / "mine.yaml")


def test_find_m3gnet_reports_missing_files_and_failed_download(
    tmp_path: Path, monkeypatch: Any
) -> None:
    with pytest.raises(SurrogateError, match=r"has no model\.json, model\.pt, state\.pt"):
        find_surrogate(f"m3gnet:{tmp_path}", device="cpu", dtype="float32")
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("network unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(SurrogateError, match=r"network unreachable.*m3gnet:<folder>"):
        find_surrogate("m3gnet", device="cpu", dtype="float32")
