"""Section ``guards``: limits at which a walker is stopped."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from mlip_assets.campaign.elements import first_unknown, nearest_element
from mlip_assets.campaign.settings.section import Section


class GuardSettings(Section):
    """Limits at which a walker is stopped; its valid frames are kept."""

    check_every: int = Field(
        5,
        ge=1,
        description="steps between two checks of distances, bonds and energy; forces, temperature "
        "and volume are checked in every step",
    )
    max_force_eV_per_A: float = Field(50.0, gt=0, description="largest force on an atom, eV/Å")
    max_temperature_factor: float = Field(
        5.0,
        gt=1,
        description="largest ratio of instantaneous to target temperature, tested only where the two "
        "differ by more than 1500 K",
    )
    min_distance_ratio: float = Field(
        0.55, gt=0, lt=1, description="smallest distance over the sum of the covalent radii"
    )
    max_energy_jump_eV_per_atom: float = Field(
        1.0,
        gt=0,
        description="largest change of the potential energy between two checks, eV/atom",
    )
    min_volume_ratio: float = Field(
        0.6, gt=0, lt=1, description="smallest volume over that of the seed (npt)"
    )
    max_volume_ratio: float = Field(
        1.6, gt=1, description="largest volume over that of the seed (npt)"
    )
    max_gap_ratio: float | None = Field(
        2.0,
        gt=1,
        description="widest gap between two parts of a structure over the widest in its seed; "
        "null: dissociation is allowed",
    )
    framework: tuple[str, ...] = Field(
        (), description="elements that must stay near their sites; empty: all may diffuse"
    )
    max_framework_displacement_ratio: float = Field(
        0.3,
        gt=0,
        description="root-mean-square displacement of the framework over its nearest distance",
    )
    retries: int = Field(
        1, ge=0, le=10, description="restarts from the last valid frame before a walker is stopped"
    )
    retry_timestep_factor: float = Field(
        0.5, gt=0, le=1, description="factor on the time step at every retry"
    )
    retry_temperature_factor: float = Field(
        0.8, gt=0, le=1, description="factor on the temperature at every retry"
    )

    @model_validator(mode="after")
    def _check_framework_elements(self) -> Self:
        unknown = first_unknown(self.framework)
        if unknown is not None:
            raise ValueError(
                f"framework: '{unknown}' is not a chemical element{nearest_element(unknown)}"
            )
        return self
