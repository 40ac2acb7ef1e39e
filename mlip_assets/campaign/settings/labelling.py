"""Section ``labelling``: the DFT calculations, which labels are accepted, and the budget."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from mlip_assets.campaign.settings.section import OnOffText, Section


class GateSettings(Section):
    """Frames that are not computed, and labels that are not accepted for training."""

    min_distance_ratio: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="frames with two atoms closer than this fraction of the sum of their covalent "
        "radii are not computed",
    )
    max_force_eV_per_A: float = Field(
        100.0,
        gt=0,
        description="frames with a larger force on an atom are not computed (force of the surrogate) "
        "or rejected (force of DFT), eV/Å",
    )
    max_net_force_ratio: float = Field(
        0.25,
        gt=0,
        description="labels whose net force exceeds this fraction of the largest force are rejected",
    )
    max_stress_GPa: float = Field(
        100.0, gt=0, description="labels with a larger component of the stress are rejected, GPa"
    )
    max_energy_deviation_eV_per_atom: float = Field(
        5.0,
        gt=0,
        description="frames farther than this from the median energy of the frames of equal "
        "composition and periodicity are not computed (energy of the surrogate) or rejected (energy "
        "of DFT), eV/atom",
    )


class LabellingSettings(Section):
    """Density-functional theory: engine, physics, accepted labels and budget."""

    engine: Literal["gpaw", "espresso", "vasp"] = Field(
        "gpaw",
        description="DFT program: gpaw | espresso | vasp (input and output are tested, the program "
        "is not)",
    )
    preset: Literal["fast", "standard", "strict"] = Field(
        "standard",
        description="cut-off, k-points and convergence where they are null below: fast (for trial "
        "runs) | standard | strict",
    )
    xc: Literal["LDA", "PBE", "revPBE", "RPBE"] = Field(
        "PBE", description="exchange-correlation functional"
    )
    cutoff_eV: float | None = Field(
        None, ge=150, le=4000, description="plane-wave cut-off, eV; null: by preset and elements"
    )
    k_spacing_per_A: float | None = Field(
        None,
        gt=0.05,
        le=2,
        description="largest k-point spacing along periodic directions, 1/Å (2π included); null: "
        "by preset",
    )
    smearing_eV: float = Field(
        0.1, ge=0, le=1, description="Fermi-Dirac width, eV; must be above zero"
    )
    energy_convergence_eV: float | None = Field(
        None,
        gt=0,
        le=1e-2,
        description="self-consistency in energy, eV: per valence electron (gpaw) or per atom; null: "
        "by preset",
    )
    spin: Annotated[Literal["auto", "on", "off"], OnOffText] = Field(
        "auto",
        description="auto: polarised for magnetic elements and frames with magnetic moments | on | "
        "off; isolated atoms are always polarised by Hund's rules",
    )
    charge: float = Field(
        0.0, ge=-20, le=20, description="charge of each frame in |e|, with a uniform background"
    )
    pseudopotentials: str | None = Field(
        None,
        description="folder of one family, relative to this file: <symbol>….upf (espresso), "
        "<symbol>/POTCAR (vasp)",
    )
    command: str | None = Field(
        None, description="command that starts espresso or vasp; null: pw.x or vasp_std on PATH"
    )
    max_net_force_eV_per_A: float = Field(
        0.05, gt=0, description="labels with a larger net force are rejected, eV/Å"
    )
    retries: int = Field(
        2,
        ge=0,
        le=3,
        description="further attempts with more robust numerical settings and the same physics",
    )
    timeout_s: float = Field(14_400.0, gt=0, description="longest time for one calculation, s")
    memory_limit_GiB: float | None = Field(
        None, gt=0, description="largest memory of one calculation, GiB (Linux); null: no limit"
    )
    dimers: tuple[Annotated[float, Field(ge=0.3, le=5)], ...] = Field(
        (),
        description="distances over the sum of covalent radii at which dimers of every pair of "
        "elements are labelled too, such as [0.7, 0.85, 1, 1.3, 1.7]: short-range repulsion",
    )
    budget_calls: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices("budget_calls", "budget"),
        description="largest number of new DFT calls in one run; also written budget",
    )
    budget_core_hours: float | None = Field(
        None,
        ge=0,
        description="largest number of core-hours of DFT in one run; the remaining frames are "
        "computed in the next run",
    )
    gates: GateSettings = GateSettings()

    @model_validator(mode="after")
    def _check_smearing(self) -> Self:
        if self.smearing_eV == 0:
            raise ValueError(
                "smearing_eV: 0 would fix the occupations, which converge to wrong states in frames "
                "of molecular dynamics; write a width above zero, such as 0.1"
            )
        return self

    @model_validator(mode="after")
    def _check_dimers_pass_gates(self) -> Self:
        shortest = min(self.dimers, default=math.inf)
        if shortest < self.gates.min_distance_ratio:
            raise ValueError(
                f"dimers: {shortest:g} is below gates.min_distance_ratio = "
                f"{self.gates.min_distance_ratio:g}, so it would not be computed; lower "
                "gates.min_distance_ratio, or leave the distance out"
            )
        return self

    @model_validator(mode="after")
    def _check_program_files(self) -> Self:
        if self.engine == "gpaw":
            for key in ("pseudopotentials", "command"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{key}: not used by gpaw; remove it, or choose another engine"
                    )
        elif self.pseudopotentials is None:
            raise ValueError(
                f"pseudopotentials: missing; {self.engine} needs a folder with one file for each "
                "element; docs/labelling.md lists sources of pseudopotential families"
            )
        return self
