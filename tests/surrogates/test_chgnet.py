"""CHGNet with the weights of its package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from mlip_assets.campaign import CampaignError
from mlip_assets.surrogates import SurrogateError, find_surrogate, load_campaign
from tests.surrogates import surrogate_checks as checks

pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")


@pytest.fixture(scope="module")
def surrogate() -> Any:
    return find_surrogate("chgnet", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def calculator(surrogate: Any) -> Any:
    return surrogate.calculator()


@pytest.mark.parametrize("composition", ["Si", "MgO"])
def test_chgnet_forces_are_energy_gradient(calculator: Any, composition: str) -> None:
    checks.check_forces_and_stress(calculator, composition)
    checks.check_symmetries(calculator, composition)


def test_chgnet_accepts_slab_and_molecule(calculator: Any) -> None:
    checks.check_boundaries(calculator)


@pytest.mark.parametrize(
    ("atoms", "experiment_A"),
    [
        (bulk("Si", "diamond", 5.43, cubic=True), 5.431),
        (bulk("NaCl", "rocksalt", 5.64, cubic=True), 5.640),
        (bulk("MgO", "rocksalt", 4.21, cubic=True), 4.211),
    ],
    ids=["Si", "NaCl", "MgO"],
)
def test_chgnet_lattice_constants(calculator: Any, atoms: Any, experiment_A: float) -> None:
    assert checks.lattice_constant(calculator, atoms) == pytest.approx(experiment_A, rel=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("composition", ["Si", "MgO"])
def test_chgnet_explores(surrogate: Any, composition: str, tmp_path: Path) -> None:
    checks.check_exploration(surrogate, composition, tmp_path)


@pytest.mark.slow
def test_chgnet_walker_resumes_bit_for_bit(surrogate: Any, tmp_path: Path) -> None:
    checks.check_resume(surrogate, tmp_path)


def test_chgnet_metadata_and_elements(surrogate: Any) -> None:
    checks.check_is_picklable(surrogate)
    assert len(surrogate.elements()) == 89
    assert len(surrogate.metadata()["surrogate_sha256"]) == 64
    assert surrogate.metadata()["package_version"].startswith("chgnet 0.")
    assert "BSD" in surrogate.metadata()["licence"]
    with pytest.raises(SurrogateError, match="float32 only"):
        find_surrogate("chgnet", device="cpu", dtype="float64")


def test_load_campaign_refuses_unsupported_use_of_chgnet(tmp_path: Any) -> None:
    text = "name: mine\ncomposition: {}\nexploration:\n  surrogate: chgnet\n{}"
    scratch = "training:\n  start_from: scratch\n"
    for composition, more, message in (
        ("Po", scratch, "'chgnet' does not support Po"),
        ("Si", "", "'chgnet' is not a MACE model"),
        ("Si", "  dtype: float64\n" + scratch, "float32 only"),
    ):
        (tmp_path / "mine.yaml").write_text(text.format(composition, more))
        with pytest.raises(CampaignError, match=message):
            load_campaign(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text.format("Si", scratch))
    assert load_campaign(tmp_path / "mine.yaml").exploration.surrogate == "chgnet"
