"""Section ``exploration``: the surrogate, and the conditions of the molecular dynamics."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from mlip_assets.campaign.settings.section import Device, Section, require_distinct

Ensemble = Literal["nve", "nvt", "npt_isotropic", "npt_full"]
MdBackend: TypeAlias = Literal["ase", "torchsim"]
MdBackendChoice: TypeAlias = Literal["auto", "ase", "torchsim"]

#: Surrogates known by name, besides ``bundled``, ``own-model`` and any MACE file. A name may be
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
#: Names that may be followed by a folder.
FOLDER_SURROGATES = ("m3gnet",)
#: Names of surrogates that are not MACE models and cannot be fine-tuned.
NOT_MACE = ("chgnet", "m3gnet", "lennard-jones")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _parse_surrogate(value: Any) -> Any:
    """A text is kept; a list of texts becomes a tuple."""
    if isinstance(value, str) and value:
        return value
    names = list(value) if isinstance(value, list | tuple) else []
    if len(names) >= 2 and all(isinstance(name, str) and name for name in names):
        if len(set(names)) < len(names):
            raise ValueError(f"a member of the committee {names} is listed twice; list each once")
        return tuple(names)
    raise ValueError(
        f"{value!r} is neither a name nor a file; write one, or a list of two or more for a committee"
    )


class ExplorationSettings(Section):
    """Molecular dynamics with the surrogate."""

    surrogate: Annotated[str | tuple[str, ...], BeforeValidator(_parse_surrogate)] = Field(
        BUNDLED_SURROGATE,
        description=f"{BUNDLED_SURROGATE} | {' | '.join(NAMED_SURROGATES)} | m3gnet:<folder> | "
        f"{OWN_SURROGATE}: the best model this campaign has trained | path to a MACE .model file (a "
        "pickle: only from a source you trust) | a list of these: a committee, whose mean forces "
        "move the atoms",
    )
    surrogate_sha256: Sha256 | tuple[Sha256, ...] | None = Field(
        None,
        description="expected SHA-256 of the model file, one for each member of a committee; a "
        "mismatch is an error",
    )
    device: Device = Field("auto", description="auto | cpu | cuda | cuda:0 …")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the model")
    md_backend: MdBackendChoice = Field(
        "auto",
        serialization_alias="engine",
        description="how the surrogate evaluates the walkers: ase, one structure at a time | "
        "torchsim, many in one batch, for MACE (extra torchsim) | auto: torchsim on a GPU and for "
        "small cells, where installed",
    )
    ensemble: Ensemble = Field(
        "nvt",
        description="nvt: Langevin at constant volume | npt_isotropic: the volume fluctuates at "
        "constant shape of the cell | npt_full: the whole cell fluctuates | nve: no thermostat; "
        "seeds that are not periodic in all directions run at constant volume",
    )
    temperatures_K: tuple[float, ...] = Field(
        (300.0, 1200.0), description="constant target temperatures, K; each seed runs at each"
    )
    temperature_ramps_K: tuple[
        Annotated[tuple[tuple[Annotated[int, Field(ge=0)], float], ...], Field(min_length=2)], ...
    ] = Field(
        (),
        description="temperature ramps, in addition to temperatures_K: each a list of [step, K] "
        "points, linear between them and constant after the last",
    )
    pressures_GPa: tuple[Annotated[float, Field(ge=-50, le=1000)], ...] = Field(
        (), description="target pressures of the npt ensembles, GPa; empty: 0 with npt"
    )
    timestep_fs: float = Field(2.0, ge=0.05, le=10, description="time step, fs")
    friction_per_ps: float = Field(10.0, gt=0, le=1000, description="Langevin friction, 1/ps")
    barostat_period_fs: float = Field(
        500.0,
        ge=10,
        le=100_000,
        description="period of the barostat for a cell with a bulk modulus of 100 GPa, fs (npt)",
    )
    n_steps: int = Field(400, ge=1, lt=1_000_000_000, description="steps of every walker")
    sample_every: int = Field(5, ge=1, description="steps between two stored frames")
    checkpoint_every: int = Field(
        250,
        ge=1,
        description="steps between two checkpoints; an interrupted walker repeats at most that number",
    )
    replicas: int = Field(1, ge=1, le=10_000, description="walkers per seed and condition")

    @property
    def surrogates(self) -> tuple[str, ...]:
        """The surrogate, or the members of the committee."""
        return (self.surrogate,) if isinstance(self.surrogate, str) else self.surrogate

    @model_validator(mode="before")
    @classmethod
    def _default_pressure_for_npt(cls, written: Any) -> Any:
        """An npt ensemble without pressures runs at 0 GPa."""
        if isinstance(written, dict) and str(written.get("ensemble", "")).startswith("npt"):
            return {**written, "pressures_GPa": written.get("pressures_GPa") or (0.0,)}
        return written

    @model_validator(mode="after")
    def _check_hash_count(self) -> Self:
        expected = self.surrogate_sha256
        hashes = (expected,) if isinstance(expected, str) else expected
        if hashes is not None and len(hashes) != len(self.surrogates):
            raise ValueError(
                f"surrogate_sha256: {len(hashes)} given for {len(self.surrogates)} in surrogate; "
                "give one for each, in the same order"
            )
        return self

    @model_validator(mode="after")
    def _check_temperatures(self) -> Self:
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
        return self

    @model_validator(mode="after")
    def _check_ensemble(self) -> Self:
        keys = ("temperatures_K", "temperature_ramps_K", "pressures_GPa")
        require_distinct(self, *keys, remedy="use replicas instead")
        if self.pressures_GPa and not self.ensemble.startswith("npt"):
            raise ValueError(
                f"pressures_GPa: ensemble {self.ensemble} has no barostat; write 'ensemble: "
                "npt_isotropic', or leave pressures_GPa out"
            )
        if self.temperature_ramps_K and self.ensemble == "nve":
            raise ValueError(
                "temperature_ramps_K: ensemble nve has no thermostat; write 'ensemble: nvt'"
            )
        return self

    @model_validator(mode="after")
    def _check_frames_are_stored(self) -> Self:
        if self.sample_every > self.n_steps:
            raise ValueError(
                f"sample_every: {self.sample_every} exceeds n_steps = {self.n_steps}, so no frame "
                "would be stored; lower sample_every"
            )
        return self
