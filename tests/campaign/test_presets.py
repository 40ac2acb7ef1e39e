"""Presets set the numerical parameters that a campaign leaves out, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlip_assets.campaign import Campaign, CampaignError, load
from mlip_assets.campaign.presets import preset_values


def campaign(folder: Path, labelling: str, composition: str = "Si") -> Campaign:
    file = folder / "some.yaml"
    file.write_text(f"name: some\ncomposition: {composition}\nlabelling: {{{labelling}}}\n")
    return load(file)


def test_written_settings_take_precedence_over_the_preset(tmp_path: Path) -> None:
    labelling = campaign(tmp_path, "preset: strict, k_spacing_per_A: 0.7").labelling
    strict = preset_values("gpaw", "strict", ["Si"])
    assert labelling.k_spacing_per_A == 0.7
    assert labelling.cutoff_eV == strict["cutoff_eV"]
    assert labelling.energy_convergence_eV == strict["energy_convergence_eV"]
    assert campaign(tmp_path, "").labelling.preset == "standard"


@pytest.mark.parametrize("engine", ["gpaw", "espresso", "vasp"])
@pytest.mark.parametrize("elements", [["Si"], ["Na", "Cl"]])
def test_stricter_preset_is_at_least_as_accurate_in_every_setting(
    engine: str, elements: list[str]
) -> None:
    fast, standard, strict = (
        preset_values(engine, preset, elements) for preset in ("fast", "standard", "strict")
    )
    for key, sign in (("cutoff_eV", 1), ("k_spacing_per_A", -1), ("energy_convergence_eV", -1)):
        ordered = [sign * values[key] for values in (fast, standard, strict)]
        assert ordered == sorted(ordered)
        assert ordered[0] < ordered[2]


def test_preset_cutoff_follows_the_hardest_element(tmp_path: Path) -> None:
    soft, mixed = (campaign(tmp_path, "", c).labelling.cutoff_eV for c in ("Si", "SiC"))
    assert soft is not None
    assert mixed is not None
    assert soft < mixed


@pytest.mark.parametrize(
    ("labelling", "message"),
    [
        ("smearing_eV: 0", "labelling.smearing_eV: 0 would fix the occupations"),
        ("engine: espresso", "labelling.pseudopotentials: missing; espresso needs a folder"),
        ("engine: espresso, pseudopotentials: missing", "there is no folder .*missing"),
        ("pseudopotentials: pp", "labelling.pseudopotentials: not used by gpaw"),
        ("spin: maybe", "labelling.spin: 'maybe' is not possible"),
        ("preset: quick", "labelling.preset: 'quick' is not possible"),
    ],
)
def test_load_reports_impossible_labelling_settings(
    tmp_path: Path, labelling: str, message: str
) -> None:
    with pytest.raises(CampaignError, match=message):
        campaign(tmp_path, labelling)


def test_load_reads_spin_without_quotes(tmp_path: Path) -> None:
    """YAML reads a bare on as true."""
    assert [campaign(tmp_path, f"spin: {s}").labelling.spin for s in ("on", "off")] == ["on", "off"]


def test_pseudopotentials_are_relative_to_the_campaign_file(tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    labelling = campaign(tmp_path, "engine: espresso, pseudopotentials: family").labelling
    assert labelling.pseudopotentials == str(tmp_path / "family")
