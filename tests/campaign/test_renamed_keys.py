"""Renamed keys: first names are read with a warning, and settings are hashed and stored under them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase.build import bulk

from mlip_assets.campaign import Campaign, CampaignError, TrainingSettings, fingerprint, load
from mlip_assets.dynamics.walker import plan_walkers

#: Section, first name, present name and a value other than the default.
RENAMED = [
    (None, "seed", "random_seed", 7),
    ("exploration", "engine", "md_backend", "ase"),
    ("descriptors", "engine", "implementation", "dscribe"),
    ("sampling", "beyond", "exclude_labelled_in", ["copper", "gold"]),
    ("sampling", "axes_from", "pca_from", "copper"),
    ("sampling", "two_level_above", "presample_above", None),
    ("training", "trial_steps", "stability_steps", 100),
    ("refresh", "unsure_above", "uncertainty_threshold", 3.0),
    ("refresh", "error_gain", "min_error_reduction", 0.1),
]
every_renamed_key = pytest.mark.parametrize(("section", "first", "present", "value"), RENAMED)


def settings(section: str | None, **written: Any) -> dict[str, Any]:
    return {"name": "some", "composition": "Si", **({section: written} if section else written)}


def load_text(folder: Path, written: dict[str, Any]) -> Campaign:
    file = folder / "some.yaml"
    file.write_text(yaml.safe_dump(written))
    return load(file)


@every_renamed_key
def test_campaign_reads_first_names(section, first, present, value) -> None:
    old = Campaign(**settings(section, **{first: value}))
    new = Campaign(**settings(section, **{present: value}))
    assert old == new
    assert new != Campaign(name="some", composition="Si")
    holder = getattr(new, section) if section else new
    assert getattr(holder, present) == (tuple(value) if isinstance(value, list) else value)


@every_renamed_key
def test_load_warns_of_first_names_once(tmp_path, caplog, section, first, present, value) -> None:
    prefix = f"{section}." if section else ""
    with caplog.at_level(logging.WARNING):
        old = load_text(tmp_path, settings(section, **{first: value}))
        load_text(tmp_path, settings(section, **{first: value}))
        assert load_text(tmp_path, settings(section, **{present: value})) == old
    assert caplog.messages == [
        f"{tmp_path / 'some.yaml'}: {prefix}{first} is now {prefix}{present}; the old key is read "
        "until release 0.3"
    ]


@every_renamed_key
def test_load_refuses_both_names(tmp_path, section, first, present, value) -> None:
    prefix = f"{section}." if section else ""
    with pytest.raises(CampaignError) as error:
        load_text(tmp_path, settings(section, **{first: value, present: value}))
    assert str(error.value) == (
        f"{tmp_path / 'some.yaml'}: {prefix}{present}: given twice, as '{present}' and under its "
        f"earlier name '{first}'; remove '{first}'"
    )


def test_problems_of_first_names_are_reported_under_present_names(tmp_path) -> None:
    with pytest.raises(CampaignError, match=r"refresh\.min_error_reduction: -1") as error:
        load_text(tmp_path, settings("refresh", error_gain=-1, sed=0))
    assert "known keys: enabled, explore_with" in str(error.value)
    assert "unsure_above" not in str(error.value)


def test_to_yaml_shows_present_names_only() -> None:
    shown = yaml.safe_load(Campaign(name="some", composition="Si").to_yaml())
    for section, first, present, _ in RENAMED:
        keys = shown[section] if section else shown
        assert present in keys
        assert first not in keys


@pytest.fixture
def campaign() -> Campaign:
    """Every renamed key has another value than its default."""
    return Campaign(
        name="full",
        composition="NaCl",
        random_seed=7,
        exploration={"md_backend": "ase", "ensemble": "npt_full"},
        descriptors={"implementation": "dscribe"},
        sampling={"exclude_labelled_in": ["a", "b"], "pca_from": "c", "presample_above": None},
        training={"stability_steps": 100},
        refresh={"uncertainty_threshold": 3.0, "min_error_reduction": 0.1},
    )


def test_campaign_fingerprint_equals_that_of_release_0_1(campaign) -> None:
    assert Campaign(name="si", composition="Si").fingerprint == (
        "05199872117ff39a725f85524121d948366b496412cd06cb655ad8df6bc5ceaa"
    )
    assert campaign.fingerprint == (
        "03ab0ec08c24f95e99d6e3f14bde687ba236ea1b8cee00c59880c0136a04b43f"
    )
    assert campaign.in_round(2).fingerprint == (
        "abf34d8eb1946d4e6b77c97b713fc4155fa492b7eb7e8e167546db37ded2a7ce"
    )


@pytest.mark.parametrize(
    ("section", "digest"),
    [
        ("exploration", "28ec820e903adaea1c9131ae0d89b3db2b22ed7ff75ce8dbec4771d2a9dcbb87"),
        ("descriptors", "62c800b477eaad9052553022e9b9a2eba8d263baf1ed831d2eaf28aaaf3ba693"),
        ("sampling", "ccc63adac9e002fcaf965a29d584cc007056d3f1e26a2f7729b4b7d2cbb1d3db"),
        ("training", "8cb90f5b1c9cf814eb8f62cb2a3ed4d2fe613f73b8025303197217ed23f314bd"),
        ("refresh", "f16568b95ed7badab7be781638bd2a59a3634eaa4ec24ed44ea74db6753566fb"),
    ],
)
def test_section_fingerprint_equals_that_of_release_0_1(campaign, section, digest) -> None:
    assert fingerprint(getattr(campaign, section)) == digest


def test_walker_folder_equals_that_of_release_0_1(campaign) -> None:
    crystal = bulk("Si", a=5.43)
    crystal.info = {"seed_name": "crystal", "seed_kind": "crystal"}
    simple = Campaign(name="si", composition="Si")
    folders = [plan_walkers(c, [crystal], "0" * 64)[0].folder for c in (simple, campaign)]
    assert folders == ["crystal_300K_r0.e1056a84f372", "crystal_300K_0GPa_r0.b07eb4bfa6d8"]


def test_stored_settings_have_first_names(campaign) -> None:
    assert campaign.descriptors.stored() == {
        "engine": "dscribe",
        "r_cut": 5.0,
        "n_max": 8,
        "l_max": 6,
        "sigma": 0.5,
        "average": "outer",
        "compression": "off",
        "precision": "float64",
        "radial_table": "standard",
    }
    training = TrainingSettings()
    everything = training.stored()
    assert everything.pop("trial_steps") == 500
    assert training.stored(exclude={"stability_steps"}) == everything
    assert training.stored(include={"stability_steps"}) == {"trial_steps": 500}
