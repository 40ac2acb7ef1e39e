"""The campaign: the few lines a person writes, and every setting they stand for.

``load("campaigns/silicon.yaml")`` reads the file, fills in the defaults, checks everything that
can be checked without computing, and returns a frozen :class:`Campaign`. What is wrong is told all
at once in one :class:`CampaignError`, each line naming the file, the key, the value and a fix.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from ase.data import atomic_numbers
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from mlip_assets.structures import find_molecule, find_prototype, parent_lattice

if TYPE_CHECKING:
    from ase import Atoms

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
Ensemble = Literal["nve", "nvt", "npt_isotropic", "npt_full"]
Engine = Literal["ase", "torchsim"]
EngineChoice = Literal["auto", "ase", "torchsim"]

#: Surrogates known by name, beside ``bundled``, ``own-model`` and any MACE file. A name may be
#: followed by a folder, as in ``m3gnet:models/M3GNet``.
NAMED_SURROGATES = (
    "mace-mp-0",
    "mace-mp-0-small",
    "mace-mp-0-large",
    "mace-mp-0b",
    "mace-mp-0b-small",
    "mace-mp-0b2",
    "mace-mp-0b2-small",
    "mace-mp-0b2-large",
    "mace-mp-0b3",
    "mace-mpa-0",
    "mace-omat-0",
    "mace-omat-0-small",
    "mace-matpes-pbe-0",
    "mace-matpes-r2scan-0",
    "chgnet",
    "m3gnet",
    "lennard-jones",
)
BUNDLED_SURROGATE = "bundled"
OWN_SURROGATE = "own-model"
_FOLDER_SURROGATES = ("m3gnet",)
_NOT_MACE = ("chgnet", "m3gnet", "lennard-jones")

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
CampaignName = Annotated[str, Field(pattern=NAME_PATTERN)]


class CampaignError(ValueError):
    """A campaign file that cannot be run; the message lists every problem found, one a line."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _on_and_off_are_words(value: Any) -> Any:
    """YAML reads a bare ``off`` as false, and ``on`` as true."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


class SeedSettings(_Section):
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
        "AB2 fluorite, rutile | ABX3 perovskite; null: what the composition is known to form",
    )
    lattice_constant_A: float | None = Field(
        None,
        gt=1,
        lt=50,
        description="lattice constant a of the prototype, Å",
    )
    kinds: Annotated[tuple[SeedKind, ...], Field(min_length=1)] = Field(
        ("crystal", "strained", "vacancy", "rattled", "liquid", "cluster"),
        description="which kinds of seed to build: crystal | strained: volume | sheared | vacancy | "
        "interstitial: one for each element | antisite: one for each pair of elements | rattled | "
        "slab | alloy: random | liquid: random packing, relaxed | melt_quench: a liquid and a glass "
        "by molecular dynamics | cluster | molecule: in a box",
    )
    crystal_atoms: int = Field(
        8, ge=1, le=10_000, description="fewest atoms in a crystal supercell"
    )
    strains: tuple[Annotated[float, Field(gt=-0.3, lt=0.3)], ...] = Field(
        (-0.05, 0.05), description="linear strains of the strained crystals (0.05 = 5 % longer)"
    )
    shears: tuple[Annotated[float, Field(gt=-0.3, lt=0.3)], ...] = Field(
        (0.05,),
        description="shear strains ε_xy = ε_yx of the sheared crystals, whose volume stays",
    )
    rattle_A: float = Field(0.15, gt=0, lt=1, description="standard deviation of the rattle, Å")
    surfaces: Annotated[tuple[tuple[int, int, int], ...], Field(min_length=1)] = Field(
        ((1, 0, 0),),
        description="lattice planes of the slabs, Miller indices of the crystal's cell",
    )
    slab_thickness_A: float = Field(6.0, gt=0, le=200, description="least thickness of a slab, Å")
    slab_atoms: int = Field(8, ge=1, le=10_000, description="fewest atoms in a slab")
    alloy_atoms: int = Field(16, ge=2, le=10_000, description="fewest atoms in the random alloy")
    liquid_atoms: int = Field(8, ge=2, le=10_000, description="atoms in the liquid-like cell")
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
    cluster_atoms: int = Field(5, ge=2, le=1000, description="atoms in the gas-phase cluster")
    molecules: tuple[str, ...] = Field(
        (),
        description="molecules by their names in the G2 set, such as H2O or CH3CH2OH; empty: that of "
        "the composition",
    )
    vacuum_A: float = Field(
        4.5, ge=3, le=30, description="vacuum on every side of a cluster, molecule or slab, Å"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"kinds: {list(self.kinds)} names a kind twice; name each once")
        if (0, 0, 0) in self.surfaces:
            raise ValueError("surfaces: (0, 0, 0) is no lattice plane; write one such as [1, 1, 1]")
        for key in ("surfaces", "molecules"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise ValueError(f"{key}: an entry is named twice; name each once")
        if self.files and self.prototype:
            raise ValueError("prototype: the crystals are those of files; leave one of the two out")
        if (self.lattice_constant_A is None) != (self.prototype is None):
            raise ValueError(
                "lattice_constant_A: a prototype and its lattice constant go together; write both or "
                "neither"
            )
        return self


def _one_or_a_committee(value: Any) -> Any:
    """A text stays; a list of texts becomes a tuple."""
    if isinstance(value, str) and value:
        return value
    names = list(value) if isinstance(value, list | tuple) else []
    if len(names) >= 2 and all(isinstance(name, str) and name for name in names):
        if len(set(names)) < len(names):
            raise ValueError(f"{names} names a model twice, which would vote twice; name each once")
        return tuple(names)
    raise ValueError(
        f"{value!r} is neither a name nor a file; write one, or a list of two or more for a committee"
    )


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ExplorationSettings(_Section):
    """Molecular dynamics with the surrogate."""

    surrogate: Annotated[str | tuple[str, ...], BeforeValidator(_one_or_a_committee)] = Field(
        BUNDLED_SURROGATE,
        description=f"{BUNDLED_SURROGATE} | {' | '.join(NAMED_SURROGATES)} | m3gnet:<folder> | "
        f"{OWN_SURROGATE}: the best this campaign has trained | path to a MACE .model file (a pickle: "
        "only from a source you trust) | a list of these: a committee, whose mean forces act",
    )
    surrogate_sha256: Sha256 | tuple[Sha256, ...] | None = Field(
        None,
        description="expected SHA-256 of the model file, one for each of a committee; a mismatch is "
        "an error",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto | cpu | cuda | cuda:0 …"
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the model")
    engine: EngineChoice = Field(
        "auto",
        description="how walkers ask the surrogate: ase, one by one | torchsim, many in one batch, "
        "for MACE (extra torchsim) | auto: torchsim on a GPU and for small cells, where installed",
    )
    ensemble: Ensemble = Field(
        "nvt",
        description="nvt: Langevin at constant volume | npt_isotropic: the volume breathes, the "
        "shape of the cell stays | npt_full: all of the cell moves | nve: no thermostat; seeds that "
        "are not periodic in all directions keep their volume",
    )
    temperatures_K: tuple[float, ...] = Field(
        (300.0, 1200.0), description="constant target temperatures, K; each seed runs at each"
    )
    temperature_ramps_K: tuple[
        Annotated[tuple[tuple[Annotated[int, Field(ge=0)], float], ...], Field(min_length=2)], ...
    ] = Field(
        (),
        description="heating and cooling beside them: each ramp a list of [step, K] points, linear "
        "between them and constant after the last",
    )
    pressures_GPa: tuple[Annotated[float, Field(ge=-50, le=1000)], ...] = Field(
        (), description="target pressures of the npt ensembles, GPa; npt without any: 0"
    )
    timestep_fs: float = Field(2.0, ge=0.05, le=10, description="time step, fs")
    friction_per_ps: float = Field(10.0, gt=0, le=1000, description="Langevin friction, 1/ps")
    barostat_period_fs: float = Field(
        500.0,
        ge=10,
        le=100_000,
        description="period in which a cell of 100 GPa bulk modulus breathes, fs (npt)",
    )
    n_steps: int = Field(400, ge=1, lt=1_000_000_000, description="steps of every walker")
    sample_every: int = Field(5, ge=1, description="steps between two stored frames")
    checkpoint_every: int = Field(
        250, ge=1, description="steps between two checkpoints; a kill loses no more of a walker"
    )
    replicas: int = Field(1, ge=1, le=10_000, description="walkers per seed and condition")

    @model_validator(mode="before")
    @classmethod
    def _at_no_pressure(cls, written: Any) -> Any:
        """Constant pressure without a pressure means none."""
        if isinstance(written, dict) and str(written.get("ensemble", "")).startswith("npt"):
            return {**written, "pressures_GPa": written.get("pressures_GPa") or (0.0,)}
        return written

    @property
    def surrogates(self) -> tuple[str, ...]:
        """The surrogate, or the members of the committee."""
        return (self.surrogate,) if isinstance(self.surrogate, str) else self.surrogate

    @model_validator(mode="after")
    def _a_hash_each(self) -> Self:
        expected = self.surrogate_sha256
        hashes = (expected,) if isinstance(expected, str) else expected
        if hashes is not None and len(hashes) != len(self.surrogates):
            raise ValueError(
                f"surrogate_sha256: {len(hashes)} given for {len(self.surrogates)} in surrogate; "
                "give one for each, in the same order"
            )
        return self

    @model_validator(mode="after")
    def _physical(self) -> Self:
        ramps = self.temperature_ramps_K
        for key, temperatures in (
            ("temperatures_K", self.temperatures_K),
            ("temperature_ramps_K", [temperature for ramp in ramps for _, temperature in ramp]),
        ):
            for temperature in temperatures:
                if not 0 < temperature <= 20_000:
                    raise ValueError(
                        f"{key}: {temperature:g} K is not possible; give temperatures between "
                        "0 and 20000 K"
                    )
        if not self.temperatures_K and not ramps:
            raise ValueError("temperatures_K: no temperature and no ramp; give at least one")
        for ramp in ramps:
            steps = [step for step, _ in ramp]
            if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
                raise ValueError(
                    f"temperature_ramps_K: the steps {steps} of a ramp must increase; write points "
                    "as [step, K], such as [[0, 300], [1000, 1500]]"
                )
        for key in ("temperatures_K", "temperature_ramps_K", "pressures_GPa"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise ValueError(f"{key}: an entry is named twice; use replicas instead")
        if self.pressures_GPa and not self.ensemble.startswith("npt"):
            raise ValueError(
                f"pressures_GPa: ensemble {self.ensemble} has no barostat; write 'ensemble: "
                "npt_isotropic', or leave pressures_GPa out"
            )
        if ramps and self.ensemble == "nve":
            raise ValueError(
                "temperature_ramps_K: ensemble nve has no thermostat; write 'ensemble: nvt'"
            )
        if self.sample_every > self.n_steps:
            raise ValueError(
                f"sample_every: {self.sample_every} exceeds n_steps = {self.n_steps}, so no frame "
                "would be stored; lower sample_every"
            )
        return self


class GuardSettings(_Section):
    """When a walker is stopped; its good frames are kept."""

    check_every: int = Field(
        5,
        ge=1,
        description="steps between two looks at distances, bonds and energy; forces, temperature "
        "and volume are looked at in every step",
    )
    max_force_eV_per_A: float = Field(50.0, gt=0, description="largest force on an atom, eV/Å")
    max_temperature_factor: float = Field(
        5.0, gt=1, description="instantaneous over target temperature (beyond 1500 K of margin)"
    )
    min_distance_ratio: float = Field(
        0.55, gt=0, lt=1, description="smallest distance over the sum of the covalent radii"
    )
    max_energy_jump_eV_per_atom: float = Field(
        1.0, gt=0, description="change of the potential energy from one look to the next, eV/atom"
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
        "null: it may fall apart",
    )
    framework: tuple[str, ...] = Field(
        (), description="elements that must stay around their sites; empty: all may diffuse"
    )
    max_framework_displacement_ratio: float = Field(
        0.3,
        gt=0,
        description="root-mean-square displacement of the framework over its nearest distance",
    )
    retries: int = Field(
        1, ge=0, le=10, description="fresh starts from the last good frame before a walker stops"
    )
    retry_timestep_factor: float = Field(
        0.5, gt=0, le=1, description="shorter time step of every retry"
    )
    retry_temperature_factor: float = Field(
        0.8, gt=0, le=1, description="lower temperature of every retry"
    )

    @model_validator(mode="after")
    def _elements(self) -> Self:
        for symbol in self.framework:
            if atomic_numbers.get(symbol, 0) < 1:
                symbols = [symbol for symbol, number in atomic_numbers.items() if number > 0]
                raise ValueError(
                    f"framework: '{symbol}' is not a chemical element{nearest(symbol, symbols)}"
                )
        return self


class DescriptorSettings(_Section):
    """SOAP power spectrum, averaged over the atoms of a frame."""

    engine: Literal["numba", "dscribe"] = Field(
        "numba", description="numba: our kernels; dscribe: the same numbers, to cross-check them"
    )
    r_cut: float = Field(5.0, gt=1, le=15, description="cut-off radius, Å")
    n_max: int = Field(8, ge=1, le=14, description="radial basis functions")
    l_max: int = Field(6, ge=0, le=14, description="highest angular momentum")
    sigma: float = Field(0.5, gt=0.05, le=2, description="width of the atomic Gaussians, Å")
    average: Literal["outer", "inner", "species"] = Field(
        "outer",
        description="over the atoms of a frame: outer, of their power spectra; inner, of their "
        "densities before that; species, outer for each element apart",
    )
    compression: Annotated[
        Literal["off", "mu2", "mu1nu1", "crossover"], BeforeValidator(_on_and_off_are_words)
    ] = Field(
        "off",
        description="shorter vectors for many elements (Darby et al. 2022): off | mu2 | mu1nu1 | "
        "crossover",
    )
    precision: Literal["float64", "float32"] = Field(
        "float64", description="of the arithmetic; descriptors are stored as float32"
    )
    radial_table: Literal["standard", "fine"] = Field(
        "standard",
        description="interpolation of the radial functions, relative error: standard, below 1e-8; "
        "fine, below 1e-12 (numba)",
    )

    @model_validator(mode="after")
    def _engine_can(self) -> Self:
        if self.engine == "dscribe" and self.average == "species":
            raise ValueError(
                "average: 'species' is not offered by engine dscribe; write 'engine: numba', or "
                "'average: outer'"
            )
        if self.engine == "dscribe" and self.precision == "float32":
            raise ValueError(
                "precision: engine dscribe computes in float64 only; write 'engine: numba', or "
                "'precision: float64'"
            )
        return self


class SamplingSettings(_Section):
    """From all frames to the few that are labelled."""

    method: Literal["direct", "random", "uniform_stride", "fps"] = Field(
        "direct",
        description="direct: stratified selection | baselines: random | uniform_stride | fps: "
        "farthest point",
    )
    n_samples: int = Field(40, ge=1, description="frames to label")
    components: Literal["kaiser", "variance", "fixed"] = Field(
        "variance",
        description="principal components kept: kaiser: eigenvalues above one | variance | fixed: "
        "n_components",
    )
    variance: float = Field(
        0.99, gt=0, le=1, description="explained variance that decides the number of components"
    )
    n_components: int | None = Field(
        None, ge=1, description="number of principal components; makes components fixed"
    )
    weighting: Annotated[
        Literal["explained_variance", "off"], BeforeValidator(_on_and_off_are_words)
    ] = Field("off", description="whether a component counts in the clustering by what it explains")
    clustering: Literal["kmeans", "minibatch_kmeans", "birch", "faiss"] = Field(
        "kmeans", description="algorithm; faiss needs the extra of that name"
    )
    n_clusters: int | None = Field(None, ge=1, description="clusters; null: one per sample")
    two_level_above: int | None = Field(
        100_000,
        ge=1000,
        description="frames (ten a sample at least); larger pools are reduced to so many before "
        "they are clustered; null: never",
    )
    allocation: Literal["equitable", "proportional"] = Field(
        "equitable", description="how many frames a cluster gives once every cluster gave one"
    )
    prefer_small_cells: bool = Field(
        False, description="choose among the frames of a cluster with the fewest atoms, as 2DIRECT"
    )
    duplicate_tolerance: float = Field(
        1e-3,
        ge=0,
        lt=1,
        description="frames closer than this fraction of the map's radius are never both selected",
    )
    beyond: tuple[CampaignName, ...] = Field(
        (),
        description="other campaigns whose labelled frames count as selected already",
    )
    axes_from: CampaignName | None = Field(
        None,
        description="campaign whose map is used, so that both are drawn alike; this one's own name: "
        "that of its first run; null: a map of its own",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, written: Any) -> Any:
        """Take a number of components for what fixes it."""
        if not isinstance(written, dict):
            return written
        read = dict(written)
        if read.get("n_components") is not None:
            read.setdefault("components", "fixed")
        return read

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.components == "fixed") != (self.n_components is not None):
            raise ValueError(
                f"components: {self.components} does not go with n_components = "
                f"{self.n_components}; give a number with 'fixed', and none with 'kaiser' or "
                "'variance'"
            )
        if self.n_clusters is not None and self.n_clusters > self.n_samples:
            raise ValueError(
                f"n_clusters: {self.n_clusters} clusters cannot all be represented by n_samples = "
                f"{self.n_samples} frames; lower n_clusters or raise n_samples"
            )
        if self.prefer_small_cells and self.method != "direct":
            raise ValueError(
                f"prefer_small_cells: method '{self.method}' does not look at the cells; use method "
                "'direct', or leave prefer_small_cells out"
            )
        return self


class GateSettings(_Section):
    """What is not worth a calculation, and which calculations are not worth training on."""

    min_distance_ratio: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="frames with atoms nearer than this share of their covalent radii are not "
        "computed",
    )
    max_force_eV_per_A: float = Field(
        100.0,
        gt=0,
        description="frames with a larger force on an atom are not computed if the surrogate says "
        "so, and refused if DFT does, eV/Å",
    )
    max_net_force_ratio: float = Field(
        0.25,
        gt=0,
        description="labels whose forces sum to more than this share of the largest are refused",
    )
    max_stress_GPa: float = Field(
        100.0, gt=0, description="labels with a larger component of the stress are refused, GPa"
    )
    max_energy_deviation_eV_per_atom: float = Field(
        5.0,
        gt=0,
        description="frames this far from the median energy of their likes are not computed if the "
        "surrogate says so, and refused if DFT does, eV/atom",
    )


class LabellingSettings(_Section):
    """Density-functional theory: the engine and its physics, what a label must hold, what it may cost."""

    engine: Literal["gpaw", "espresso", "vasp"] = Field(
        "gpaw",
        description="DFT program: gpaw | espresso | vasp (input and output tested, never run)",
    )
    preset: Literal["fast", "standard", "strict"] = Field(
        "standard",
        description="cut-off, k-points and convergence where they are null below: fast (to try "
        "things out) | standard | strict",
    )
    xc: Literal["LDA", "PBE", "revPBE", "RPBE"] = Field("PBE", description="functional")
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
    smearing_eV: float = Field(0.1, ge=0, le=1, description="Fermi-Dirac width, eV; never zero")
    energy_convergence_eV: float | None = Field(
        None,
        gt=0,
        le=1e-2,
        description="self-consistency in energy, eV: per valence electron (gpaw) or per atom; null: "
        "by preset",
    )
    spin: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_and_off_are_words)] = Field(
        "auto",
        description="auto: polarised for magnetic elements and frames that bring moments | on | "
        "off; free atoms have the spin of Hund's rules always",
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
        None, description="how to start espresso or vasp; null: pw.x or vasp_std on PATH"
    )
    max_net_force_eV_per_A: float = Field(
        0.05, gt=0, description="a label whose forces sum to more than this is refused, eV/Å"
    )
    retries: int = Field(
        2, ge=0, le=3, description="further attempts with safer numerics, never other physics"
    )
    timeout_s: float = Field(14_400.0, gt=0, description="longest time for one calculation, s")
    memory_limit_GiB: float | None = Field(
        None, gt=0, description="most memory of one calculation, GiB (Linux); null: no limit"
    )
    dimers: tuple[Annotated[float, Field(ge=0.3, le=5)], ...] = Field(
        (),
        description="distances over the sum of covalent radii at which two atoms of every pair of "
        "elements are labelled too, such as [0.7, 0.85, 1, 1.3, 1.7]: how cores repel",
    )
    budget_calls: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices("budget_calls", "budget"),
        description="most new DFT calls in one run; also written budget",
    )
    budget_core_hours: float | None = Field(
        None,
        ge=0,
        description="most core-hours of DFT in one run; what is left resumes in the next",
    )
    gates: GateSettings = GateSettings()

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        if self.smearing_eV == 0:
            raise ValueError(
                "smearing_eV: 0 would fix the occupations, which converge to wrong states in frames "
                "of molecular dynamics; write a width above zero, such as 0.1"
            )
        nearest = min(self.dimers, default=math.inf)
        if nearest < self.gates.min_distance_ratio:
            raise ValueError(
                f"dimers: {nearest:g} is nearer than gates.min_distance_ratio = "
                f"{self.gates.min_distance_ratio:g} lets be computed; lower that, or leave it out"
            )
        if self.engine == "gpaw":
            for key in ("pseudopotentials", "command"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: gpaw takes none; remove it, or choose another engine")
        elif self.pseudopotentials is None:
            raise ValueError(
                f"pseudopotentials: missing; {self.engine} needs a folder with one file for each "
                "element; docs/labelling.md tells where families come from"
            )
        return self


class TrainingSettings(_Section):
    """MACE."""

    start_from: Literal["surrogate", "scratch"] = Field(
        "surrogate",
        description="surrogate: fine-tune the exploration model; scratch: random weights",
    )
    fine_tuning: Literal["naive", "multihead"] = Field(
        "naive",
        description="naive: the labels alone, whose elements alone the model then knows | multihead: "
        "what the exploration model says of the structures of replay is taught beside them",
    )
    replay: str | None = Field(
        None,
        description="extended XYZ of structures the tuned model must not forget, relative to this "
        "file, labelled by the exploration model itself (multihead)",
    )
    num_channels: int = Field(16, ge=4, le=512, description="channels (scratch)")
    max_L: int = Field(0, ge=0, le=3, description="equivariance of the messages (scratch)")
    correlation: int = Field(2, ge=1, le=4, description="body order minus one (scratch)")
    r_max: float = Field(5.0, gt=1, le=12, description="cut-off radius, Å (scratch)")
    max_epochs: int = Field(120, ge=4, description="passes over the training set")
    patience: int | None = Field(
        None,
        ge=1,
        description="epochs without a lower validation loss after which a stage ends, best above a "
        "tenth of max_epochs, when the learning rate falls; null: none, for a few validation frames "
        "are noisy and the best epoch is kept anyway",
    )
    batch_size: int = Field(4, ge=1, description="structures in a batch")
    learning_rate: float = Field(
        0.01, gt=0, lt=1, description="initial step of the optimiser; a fifth of it when tuning"
    )
    valid_fraction: float = Field(0.1, gt=0, lt=0.5, description="share used to pick the epoch")
    test_fraction: float = Field(0.15, gt=0, lt=0.5, description="share never seen in training")
    committee: int = Field(
        3, ge=1, le=8, description="models in the committee, the main one included; 1: none"
    )
    trial_steps: int = Field(
        500,
        ge=50,
        description="steps of the report's dynamics at each temperature, half as many of which follow "
        "without a thermostat",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto | cpu | cuda"
    )

    @model_validator(mode="after")
    def _replay_and_multihead(self) -> Self:
        if self.fine_tuning == "multihead" and self.start_from == "scratch":
            raise ValueError(
                "fine_tuning: multihead needs a model to start from; write 'start_from: surrogate'"
            )
        if self.fine_tuning == "multihead" and self.replay is None:
            raise ValueError(
                "fine_tuning: multihead needs structures to replay; write 'replay: <file>.xyz', or "
                "'fine_tuning: naive'"
            )
        if self.fine_tuning == "naive" and self.replay is not None:
            raise ValueError(
                f"replay: '{self.replay}' is not used by 'fine_tuning: naive'; write 'start_from: "
                "surrogate' and 'fine_tuning: multihead', or leave replay out"
            )
        return self


class RefreshSettings(_Section):
    """The loop: explore with what was learnt, label what that does not cover, train again."""

    enabled: bool = Field(True, description="whether the campaign_refresh schedule refreshes it")
    explore_with: Literal["promoted", "surrogate"] = Field(
        "promoted",
        description="promoted: the campaign's best model explores and is tuned further; surrogate: "
        "exploration.surrogate explores and is tuned again",
    )
    n_samples: int | None = Field(
        None, ge=1, description="frames a refresh labels at most; null: sampling.n_samples"
    )
    max_rounds: int = Field(10, ge=1, le=80, description="refreshes after the first run, at most")
    covered: float = Field(
        0.95, gt=0, le=1, description="converged: share of what is explored that labels cover, and"
    )
    error_gain: float = Field(
        0.05, ge=0, lt=1, description="… that a refresh lowers the errors by less than this share"
    )
    patience: int = Field(2, ge=1, description="… so many times in turn")
    unsure_above: float = Field(
        2.0,
        gt=0,
        description="expected force error of a frame, over the held-out RMSE, from which it is "
        "labelled wherever it lies",
    )


class Campaign(_Section):
    """Everything that decides what one campaign computes. Frozen; equal settings hash equally."""

    name: CampaignName = Field(description="the file's stem; also the partition key")
    composition: str = Field(description="chemical formula, such as Si or NaCl")
    seed: int = Field(0, ge=0, lt=2**32, description="every random choice derives from this")
    seeds: SeedSettings = SeedSettings()
    exploration: ExplorationSettings = ExplorationSettings()
    guards: GuardSettings = GuardSettings()
    descriptors: DescriptorSettings = DescriptorSettings()
    sampling: SamplingSettings = SamplingSettings()
    labelling: LabellingSettings = LabellingSettings()
    training: TrainingSettings = TrainingSettings()
    refresh: RefreshSettings = RefreshSettings()

    _round: int = PrivateAttr(0)
    _explored_with: str | None = PrivateAttr(None)

    @property
    def round(self) -> int:
        """0 for the campaign as it is written, k for its k-th refresh."""
        return self._round

    @property
    def explored_with(self) -> str | None:
        """The promoted model, by its folder, that a refresh explores with; None: the surrogate."""
        return self._explored_with

    def in_round(self, number: int, explored_with: str | None = None) -> Campaign:
        """The campaign as one of its refreshes runs it; 0 is the first run, as it is written.

        A refresh has random numbers of its own, the map of the first run, and as many clusters as
        frames to choose.

        Parameters
        ----------
        explored_with
            Folder of the promoted model that explores and is tuned; None: the surrogate.
        """
        if number == 0:
            return self
        explores = {"surrogate": OWN_SURROGATE, "surrogate_sha256": None} if explored_with else {}
        chooses = {
            "n_samples": self.refresh.n_samples or self.sampling.n_samples,
            "n_clusters": None,
            "axes_from": self.name,
        }
        refreshed = self.model_copy(
            update={
                "seed": zlib.crc32(f"{self.seed} {number}".encode()),
                "exploration": self.exploration.model_copy(update=explores),
                "sampling": self.sampling.model_copy(update=chooses),
            }
        )
        refreshed._round, refreshed._explored_with = number, explored_with
        return refreshed

    @property
    def formula(self) -> dict[str, int]:
        """Atoms of each element in one formula unit."""
        return _count_elements(self.composition)

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols, by atomic number."""
        return tuple(sorted(self.formula, key=atomic_numbers.__getitem__))

    @property
    def n_seeds(self) -> int:
        """How many seeds the settings ask for."""
        seeds, n_elements = self.seeds, len(self.elements)
        each = {
            "crystal": max(len(seeds.files), 1),
            "strained": len(seeds.strains),
            "sheared": len(seeds.shears),
            "interstitial": n_elements,
            "antisite": n_elements * (n_elements - 1),
            "slab": len(seeds.surfaces),
            "melt_quench": 2,
            "molecule": max(len(seeds.molecules), 1),
        }
        return sum(each.get(kind, 1) for kind in seeds.kinds)

    @property
    def n_walkers(self) -> int:
        """Seeds × temperatures and ramps × pressures × replicas.

        Fewer run where several pressures meet a seed that is not periodic, which has none.
        """
        exploration = self.exploration
        n_temperatures = len(exploration.temperatures_K) + len(exploration.temperature_ramps_K)
        n_pressures = max(len(exploration.pressures_GPa), 1)
        return self.n_seeds * n_temperatures * n_pressures * exploration.replicas

    @property
    def n_frames(self) -> int:
        """Frames stored when no walker is stopped early (the starting frame is not stored)."""
        return self.n_walkers * (self.exploration.n_steps // self.exploration.sample_every)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all settings."""
        return fingerprint(self)

    def to_yaml(self) -> str:
        """The full campaign as YAML, each setting with its meaning and unit as a comment."""
        return "\n".join(_commented_yaml(self)) + "\n"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _count_elements(self.composition)
        for kind in ("antisite", "alloy"):
            if kind in self.seeds.kinds and len(self.elements) < 2:
                raise ValueError(
                    f"seeds.kinds: '{kind}' needs two elements or more, but the composition is "
                    f"{self.composition}; leave it out"
                )
        if self.name in self.sampling.beyond:
            raise ValueError(
                f"sampling.beyond: '{self.name}' is this campaign; take it out of the list: a refresh "
                "always goes beyond what the campaign has labelled (make refresh)"
            )
        tuned = self.exploration.surrogates[0].partition(":")[0]
        if self.training.start_from == "surrogate" and tuned in _NOT_MACE:
            raise ValueError(
                f"training.start_from: '{tuned}' is no MACE model and cannot be fine-tuned; write "
                "'start_from: scratch'"
            )
        if self.sampling.n_samples > self.n_frames:
            raise ValueError(
                f"sampling.n_samples: {self.sampling.n_samples} frames wanted, but {self.n_walkers} "
                f"walkers of {self.exploration.n_steps} steps stored every "
                f"{self.exploration.sample_every} give at most {self.n_frames}; lower n_samples, or "
                "raise exploration.n_steps or exploration.replicas"
            )
        return self


def fingerprint(*parts: BaseModel | dict[str, Any]) -> str:
    """SHA-256 of settings in a canonical JSON form, independent of key order."""
    plain = [part.model_dump() if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load(path: str | os.PathLike[str]) -> Campaign:
    """Read a campaign file, fill in every default and check it.

    Parameters
    ----------
    path
        A YAML file; its stem is the campaign's name.

    Raises
    ------
    CampaignError
        The file is missing, is not YAML, or has unknown keys or impossible values. Relative paths
        in it are resolved against its folder, and files it names must exist and be readable.
    """
    file = Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [f.name for f in file.parent.glob("*.yaml")], 1)
        hint = f"; did you mean '{file.parent / near[0]}'?" if near else ""
        raise CampaignError(f"{file}: no such campaign file{hint}")
    try:
        text = file.read_text(encoding="utf-8")
        written = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, stricter
    except UnicodeDecodeError as error:
        raise CampaignError(f"{file}: not UTF-8 text ({error}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise CampaignError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(written, dict):
        raise CampaignError(
            f"{file}: expected 'key: value' lines, at least 'name: {file.stem}' and 'composition: …'"
        )
    return _parse(written, file)


def _parse(written: dict[str, Any], file: Path) -> Campaign:
    try:
        campaign = Campaign.model_validate(written)
    except ValidationError as error:
        lines = [f"{file}: {_explain(problem)}" for problem in error.errors()]
        raise CampaignError("\n".join(lines)) from error
    if campaign.name != file.stem:
        raise CampaignError(
            f"{file}: name: '{campaign.name}' differs from the file name; write 'name: {file.stem}' "
            f"or rename the file to '{campaign.name}.yaml'"
        )
    return _with_files_resolved(_with_preset(campaign), file)


def _with_preset(campaign: Campaign) -> Campaign:
    """What the file leaves to the preset, filled in."""
    from mlip_assets.campaign.presets import preset_values

    labelling = campaign.labelling
    values = preset_values(labelling.engine, labelling.preset, campaign.elements)
    unset = {key: value for key, value in values.items() if getattr(labelling, key) is None}
    return campaign.model_copy(update={"labelling": labelling.model_copy(update=unset)})


def _with_files_resolved(campaign: Campaign, file: Path) -> Campaign:
    """Absolute paths for the files a campaign names; each must exist, and structures must be read."""
    updates: dict[str, BaseModel] = {}
    if campaign.seeds.files:
        files = tuple(_readable_structure(name, campaign, file) for name in campaign.seeds.files)
        updates["seeds"] = campaign.seeds.model_copy(update={"files": files})
    _check_known_structures(campaign, file)
    found = tuple(_found_surrogate(name, file) for name in campaign.exploration.surrogates)
    surrogate = found if len(found) > 1 else found[0]
    updates["exploration"] = campaign.exploration.model_copy(update={"surrogate": surrogate})
    if campaign.labelling.pseudopotentials is not None:
        folder = (file.parent / campaign.labelling.pseudopotentials).resolve()
        if not folder.is_dir():
            raise CampaignError(
                f"{file}: labelling.pseudopotentials: there is no folder {folder}; give a path "
                f"relative to {file.parent}"
            )
        update = {"pseudopotentials": str(folder)}
        updates["labelling"] = campaign.labelling.model_copy(update=update)
    if campaign.training.replay is not None:
        update = {"replay": _readable_replay(campaign.training.replay, file)}
        updates["training"] = campaign.training.model_copy(update=update)
    return campaign.model_copy(update=updates)


def _check_known_structures(campaign: Campaign, file: Path) -> None:
    """Crystal, alloy lattice and molecules must be known, as far as the kinds of seed need them."""
    seeds = campaign.seeds
    key = "seeds.prototype" if seeds.prototype else "composition"
    try:
        if not seeds.files and set(seeds.kinds) - {"cluster", "molecule", "alloy"}:
            find_prototype(campaign.composition, seeds.prototype, seeds.lattice_constant_A)
        if not seeds.files and "alloy" in seeds.kinds and not seeds.prototype:
            parent_lattice(campaign.formula)
    except ValueError as error:
        raise CampaignError(f"{file}: {key}: {error}") from error
    if "molecule" not in seeds.kinds:
        return
    for name in seeds.molecules or (campaign.composition,):
        try:
            foreign = set(find_molecule(name).symbols) - set(campaign.elements)
        except ValueError as error:
            raise CampaignError(f"{file}: seeds.molecules: {error}") from error
        if foreign:
            raise CampaignError(
                f"{file}: seeds.molecules: {name} holds {', '.join(sorted(foreign))}, which the "
                f"composition {campaign.composition} lacks"
            )


def _found_surrogate(name: str, file: Path) -> str:
    """A known name as it is; a file or the folder after a name with its absolute path."""
    known = [BUNDLED_SURROGATE, OWN_SURROGATE, *NAMED_SURROGATES]
    family, colon, folder = name.partition(":")
    if colon and family in _FOLDER_SURROGATES:
        path = (file.parent / folder).resolve()
        if not path.is_dir():
            raise CampaignError(
                f"{file}: exploration.surrogate: '{name}': there is no folder {path}; write "
                f"'{family}:' and the folder of its model, or '{family}' alone"
            )
        return f"{family}:{path}"
    if name in known:
        return name
    path = (file.parent / name).resolve()
    if not path.is_file():
        raise CampaignError(
            f"{file}: exploration.surrogate: '{name}' is neither a known model nor a file "
            f"({path} does not exist){nearest(name, known)}"
        )
    return str(path)


def _readable_structure(name: str, campaign: Campaign, file: Path) -> str:
    where = f"{file}: seeds.files: '{name}'"
    path, (atoms,) = _read_structures(name, file, where, "-1:")
    foreign = sorted(set(atoms.get_chemical_symbols()) - set(campaign.elements))
    if foreign:
        raise CampaignError(
            f"{where} holds {', '.join(foreign)}, which the composition {campaign.composition} lacks"
        )
    return str(path)


def _readable_replay(name: str, file: Path) -> str:
    where = f"{file}: training.replay: '{name}'"
    path, structures = _read_structures(name, file, where, ":")
    if len(structures) < 2:
        raise CampaignError(
            f"{where} holds {len(structures)} structure(s); give two or more, to train on and to "
            "validate on"
        )
    nameless = [i for i, atoms in enumerate(structures) if not atoms.numbers.all()]
    if nameless:
        raise CampaignError(
            f"{where}: structure {nameless[0]} holds X, which is no chemical element; leave it out"
        )
    return str(path)


def _read_structures(name: str, file: Path, where: str, index: str) -> tuple[Path, list[Atoms]]:
    from ase.io import read

    path = (file.parent / name).resolve()
    if not path.is_file():
        raise CampaignError(
            f"{where} does not exist ({path}); give a path relative to {file.parent}"
        )
    try:
        return path, list(read(path, index=index))
    except Exception as error:  # ASE's readers raise whatever their parsers meet
        raise CampaignError(
            f"{where} cannot be read as a structure ({type(error).__name__}: {error}); use a format "
            "ASE reads, such as .cif, .xyz or POSCAR"
        ) from error


def _count_elements(composition: str) -> dict[str, int]:
    from ase.formula import Formula

    try:
        counts = Formula(composition).count()
    except ValueError:
        counts = {}
    unknown = [symbol for symbol in counts if not 0 < atomic_numbers.get(symbol, 0) <= 118]
    if counts and not unknown:
        return dict(counts)
    wrong = unknown[0] if unknown else composition
    symbols = [symbol for symbol, number in atomic_numbers.items() if number > 0]
    near = nearest(wrong, symbols)
    raise ValueError(
        f"composition: '{wrong}' is not a chemical element or formula{near}; "
        "write a formula such as Si, NaCl or Cu3Au"
    )


def nearest(word: str, choices: list[str]) -> str:
    """``; did you mean '…'?`` with the choice most like a word, or nothing."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), list(by_lower), 1, cutoff=0.5)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def _explain(problem: Any) -> str:
    """One pydantic problem as a sentence: key, value, what is wrong, what to write."""
    location = [str(part) for part in problem["loc"]]
    key, value = ".".join(location), problem["input"]
    section = _section_at(location[:-1])
    field = section.model_fields.get(location[-1]) if section and location else None
    meaning = f" ({field.description})" if field and field.description else ""
    match problem["type"]:
        case "extra_forbidden":
            assert section is not None
            known = list(section.model_fields)
            return (
                f"{key}: unknown key{nearest(location[-1], known)}; known keys: {', '.join(known)}"
            )
        case "missing":
            return f"{key}: missing; add '{key}: …'{meaning}"
        case "value_error":
            prefix = f"{key}." if key else ""
            return prefix + str(problem["ctx"]["error"])
        case "literal_error":
            choices = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
            near = nearest(str(value), choices)
            return f"{key}: {value!r} is not possible{near}; choose from: {', '.join(choices)}"
        case "float_parsing" | "int_parsing" | "float_type" | "int_type" if _has_unit(value):
            number = str(value).split()[0]
            return f"{key}: {value!r} has a unit in it{meaning}; write the number alone: {number}"
    return f"{key}: {value!r}: {problem['msg']}{meaning}"


def _has_unit(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"^\s*[-+0-9.eE]+\s+\S+", value) is not None


def _section_at(location: list[str]) -> type[BaseModel] | None:
    section: type[BaseModel] = Campaign
    for part in location:
        field = section.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return None
        if not issubclass(field.annotation, BaseModel):
            return None
        section = field.annotation
    return section


def _commented_yaml(section: BaseModel, indent: str = "") -> Iterator[str]:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            yield f"\n{indent}{key}:  # {(type(value).__doc__ or '').splitlines()[0]}"
            yield from _commented_yaml(value, indent + "  ")
        else:
            yield f"{indent}{key}: {_flow(value)}  # {field.description}"


def _flow(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    if isinstance(plain, float) and math.isfinite(plain):
        return repr(plain)
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).replace("\n...", "").strip()


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice (YAML keeps the last one silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
