"""Committees: mean and spread of the members."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from mlip_assets.campaign import Campaign
from mlip_assets.surrogates import SurrogateError, find_surrogate
from mlip_assets.surrogates.committee import CommitteeCalculator
from resources.surrogate import SurrogateResource
from tests.surrogates import surrogate_checks as checks


@pytest.fixture(scope="module")
def perturbed(tmp_path_factory: Any) -> str:
    """A file of the bundled weights with one readout scaled by 1.1."""
    import torch

    module = find_surrogate("bundled", device="cpu", dtype="float32").module()
    with torch.no_grad():
        next(p for n, p in module.named_parameters() if "readouts.0" in n).mul_(1.1)
    file = tmp_path_factory.mktemp("models") / "perturbed.model"
    torch.save(module, file)
    return str(file)


def forces(calculator: Any) -> np.ndarray:
    atoms = checks.moved(checks.CRYSTALS["Si"], calculator)
    return np.asarray(atoms.get_forces())


def test_committee_gives_mean_and_spread(perturbed: str) -> None:
    committee = find_surrogate(["bundled", perturbed], device="cpu", dtype="float64")
    calculator = committee.calculator()
    mean = forces(calculator)
    each = [forces(member.calculator()) for member in committee.members]
    np.testing.assert_allclose(mean, (each[0] + each[1]) / 2, atol=1e-12)
    spread = calculator.results["force_spread"]
    half = np.linalg.norm(each[0] - each[1], axis=1) / 2  # of two, each is so far from the mean
    assert half.min() > 1e-4
    np.testing.assert_allclose(spread, half, atol=1e-12)
    checks.check_is_picklable(committee)


def test_committee_forces_are_energy_gradient(perturbed: str) -> None:
    committee = find_surrogate(["bundled", perturbed], device="cpu", dtype="float64")
    checks.check_forces_and_stress(committee.calculator(), "Si", tolerance=2e-3)


def test_committee_of_equal_members_has_no_spread() -> None:
    argon = bulk("Ar", cubic=True)
    argon.rattle(0.1, seed=0)
    same = [LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0) for _ in range(3)]
    argon.calc = CommitteeCalculator(same)
    alone = argon.copy()
    alone.calc = same[0]
    np.testing.assert_allclose(argon.get_forces(), alone.get_forces())
    assert argon.calc.results["force_spread"].max() < 1e-14
    molecule = argon.copy()
    molecule.pbc, molecule.cell = False, None
    molecule.calc = argon.calc
    molecule.get_potential_energy()
    assert "stress" not in molecule.calc.results


def test_campaign_resolves_committee(perturbed: str) -> None:
    settings = {"surrogate": ["bundled", perturbed], "device": "cpu"}
    campaign = Campaign(name="si", composition="Si", exploration=settings)
    committee = SurrogateResource().resolve(campaign)
    hashes = tuple(member.sha256 for member in committee.members)
    assert committee.metadata()["surrogate"] == f"bundled + {perturbed}"
    assert committee.metadata()["licence"] == "MIT; see the file's provider"
    assert committee.metadata()["package_version"].startswith("mace-torch ")
    assert committee.sha256 not in hashes
    again = Campaign(
        name="si", composition="Si", exploration={**settings, "surrogate_sha256": hashes}
    )
    assert SurrogateResource().resolve(again) == committee
    wrong = {**settings, "surrogate_sha256": [hashes[1], hashes[0]]}
    with pytest.raises(SurrogateError, match="'bundled' hashes to"):
        SurrogateResource().resolve(Campaign(name="si", composition="Si", exploration=wrong))


def test_committee_supports_common_elements(perturbed: str, tmp_path: Any) -> None:
    pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")
    committee = find_surrogate(["chgnet", perturbed], device="cpu", dtype="float32")
    assert set(committee.elements()) == {"O", "Na", "Mg", "Al", "Si", "Cl", "Ar", "Cu"}
    with pytest.raises(SurrogateError, match="does not support Fe"):
        committee.require_elements(["Fe"])
    with pytest.raises(SurrogateError, match="'chgnet' is not a MACE model"):
        committee.save_model(tmp_path / "tuned.model")


@pytest.mark.parametrize(
    ("surrogate", "sha256", "message"),
    [
        (["bundled"], None, "two or more"),
        ([], None, "two or more"),
        (3, None, "neither a name nor a file"),
        (["bundled", "bundled"], None, "twice"),
        (["bundled", "chgnet"], ["0" * 64], "1 given for 2"),
        ("bundled", ["0" * 64, "1" * 64], "2 given for 1"),
    ],
)
def test_campaign_refuses_invalid_committee(surrogate: Any, sha256: Any, message: str) -> None:
    settings = {"surrogate": surrogate, "surrogate_sha256": sha256}
    with pytest.raises(ValueError, match=message):
        Campaign(name="si", composition="Si", exploration=settings)
