"""Section ``descriptors``: the SOAP power spectrum of a frame."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mlip_assets.campaign.settings.section import OnOffText, Section


class DescriptorSettings(Section):
    """SOAP power spectrum, averaged over the atoms of a frame."""

    implementation: Literal["numba", "dscribe"] = Field(
        "numba",
        serialization_alias="engine",
        description="numba: the kernels of this project | dscribe: the same descriptor, to validate "
        "them",
    )
    r_cut: float = Field(5.0, gt=1, le=15, description="cut-off radius, Å")
    n_max: int = Field(8, ge=1, le=14, description="number of radial basis functions")
    l_max: int = Field(6, ge=0, le=14, description="largest angular momentum")
    sigma: float = Field(0.5, gt=0.05, le=2, description="width of the atomic Gaussians, Å")
    average: Literal["outer", "inner", "species"] = Field(
        "outer",
        description="mean over the atoms of a frame: outer: of their power spectra | inner: of their "
        "density coefficients | species: outer, separately for each element",
    )
    compression: Annotated[Literal["off", "mu2", "mu1nu1", "crossover"], OnOffText] = Field(
        "off",
        description="shorter vectors for many elements (Darby et al. 2022): off | mu2 | mu1nu1 | "
        "crossover",
    )
    precision: Literal["float64", "float32"] = Field(
        "float64", description="of the arithmetic; descriptors are stored as float32"
    )
    radial_table: Literal["standard", "fine"] = Field(
        "standard",
        description="relative error of the interpolated radial functions: standard: below 1e-8 | "
        "fine: below 1e-12 (numba)",
    )

    @model_validator(mode="after")
    def _check_implementation_supports(self) -> Self:
        if self.implementation == "dscribe" and self.average == "species":
            raise ValueError(
                "average: 'species' is not supported by dscribe; write 'implementation: numba', or "
                "'average: outer'"
            )
        if self.implementation == "dscribe" and self.precision == "float32":
            raise ValueError(
                "precision: dscribe computes in float64 only; write 'implementation: numba', or "
                "'precision: float64'"
            )
        return self

    def soap_arguments(self) -> dict[str, Any]:
        """Keyword arguments of :func:`mlip_assets.descriptors.soap_power_spectrum`."""
        arguments = self.model_dump(exclude={"precision"})
        return {**arguments, "dtype": self.precision}
