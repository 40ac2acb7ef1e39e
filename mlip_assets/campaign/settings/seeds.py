"""Section ``seeds``: the starting structures of the walkers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlip_assets.campaign.settings.section import Section, require_distinct

SeedKind = Literal[
    "crystal",
    "strained",
    "sheared",
    "vacancy",
    "interstitial",
    "antisite",
    "rattled",
    "slab",
    "alloy",
    "liquid",
    "melt_quench",
    "cluster",
    "molecule",
]
Prototype = Literal[
    "sc",
    "fcc",
    "bcc",
    "hcp",
    "diamond",
    "rocksalt",
    "zincblende",
    "wurtzite",
    "cesiumchloride",
    "fluorite",
    "perovskite",
    "rutile",
]


class SeedSettings(Section):
    """Starting structures."""

    files: tuple[str, ...] = Field(
        (),
        description="structure files (any format ASE reads, relative to this file) used as the "
        "crystals; empty: the known prototype of the composition",
    )
    prototype: Prototype | None = Field(
        None,
        description="crystal structure to build where no file is given: sc, fcc, bcc, hcp or diamond "
        "for an element, else by the formula: AB rocksalt, zincblende, wurtzite, cesiumchloride | "
        "AB2 fluorite, rutile | ABX3 perovskite; null: the known structure of the composition",
    )
    lattice_constant_A: float | None = Field(
        None,
        gt=1,
        lt=50,
        description="lattice constant a of the prototype, Å",
    )
    kinds: Annotated[tuple[SeedKind, ...], Field(min_length=1)] = Field(
        ("crystal", "strained", "vacancy", "rattled", "liquid", "cluster"),
        description="kinds of seed to build: crystal | strained: volume | sheared | vacancy | "
        "interstitial: one for each element | antisite: one for each pair of elements | rattled | "
        "slab | alloy: random | liquid: random packing, relaxed | melt_quench: a liquid and a glass "
        "by molecular dynamics | cluster | molecule: in a box",
    )
    crystal_atoms: int = Field(
        8, ge=1, le=10_000, description="smallest number of atoms in a crystal supercell"
    )
    strains: tuple[Annotated[float, Field(gt=-0.3, lt=0.3)], ...] = Field(
        (-0.05, 0.05), description="linear strains of the strained crystals (0.05 = 5 % longer)"
    )
    shears: tuple[Annotated[float, Field(gt=-0.3, lt=0.3)], ...] = Field(
        (0.05,),
        description="shear strains ε_xy = ε_yx of the sheared crystals, at constant volume",
    )
    rattle_A: float = Field(
        0.15, gt=0, lt=1, description="standard deviation of the random displacements (rattled), Å"
    )
    surfaces: Annotated[tuple[tuple[int, int, int], ...], Field(min_length=1)] = Field(
        ((1, 0, 0),),
        description="lattice planes of the slabs, Miller indices of the crystal's cell",
    )
    slab_thickness_A: float = Field(
        6.0, gt=0, le=200, description="smallest thickness of a slab, Å"
    )
    slab_atoms: int = Field(8, ge=1, le=10_000, description="smallest number of atoms in a slab")
    alloy_atoms: int = Field(
        16, ge=2, le=10_000, description="smallest number of atoms in the random alloy"
    )
    liquid_atoms: int = Field(
        8, ge=2, le=10_000, description="smallest number of atoms in the liquid cell"
    )
    liquid_density_ratio: float = Field(
        1.0, gt=0.2, lt=1.5, description="density of the liquid over that of the crystal"
    )
    melt_temperature_K: float = Field(
        2500.0, gt=0, le=20_000, description="temperature of the melt, K (melt_quench)"
    )
    melt_steps: int = Field(
        500, ge=1, description="steps in the melt, of exploration.timestep_fs (melt_quench)"
    )
    quench_steps: int = Field(500, ge=1, description="steps of cooling to 300 K (melt_quench)")
    cluster_atoms: int = Field(
        5, ge=2, le=1000, description="smallest number of atoms in the gas-phase cluster"
    )
    molecules: tuple[str, ...] = Field(
        (),
        description="molecules by their names in the G2 set, such as H2O or CH3CH2OH; empty: that of "
        "the composition",
    )
    vacuum_A: float = Field(
        4.5, ge=3, le=30, description="vacuum on every side of a cluster, molecule or slab, Å"
    )

    @model_validator(mode="after")
    def _check_entries(self) -> Self:
        require_distinct(self, "kinds")
        if (0, 0, 0) in self.surfaces:
            raise ValueError(
                "surfaces: (0, 0, 0) is not a lattice plane; write indices such as [1, 1, 1]"
            )
        require_distinct(self, "surfaces", "molecules")
        return self

    @model_validator(mode="after")
    def _check_crystal_source(self) -> Self:
        if self.files and self.prototype:
            raise ValueError(
                "prototype: the crystals are read from files; leave out one of the two"
            )
        if (self.lattice_constant_A is None) != (self.prototype is None):
            raise ValueError(
                "lattice_constant_A: a prototype needs its lattice constant, and a lattice constant "
                "its prototype; write both or neither"
            )
        return self
