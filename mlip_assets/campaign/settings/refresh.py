"""Section ``refresh``: the active-learning loop and its convergence."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlip_assets.campaign.settings.section import Section


class RefreshSettings(Section):
    """Active learning: explore with the trained model, label what is not covered, train again."""

    enabled: bool = Field(True, description="whether the campaign_refresh schedule refreshes it")
    explore_with: Literal["promoted", "surrogate"] = Field(
        "promoted",
        description="promoted: the campaign's best model explores and is fine-tuned | surrogate: "
        "exploration.surrogate explores and is fine-tuned",
    )
    n_samples: int | None = Field(
        None,
        ge=1,
        description="largest number of frames that a refresh labels; null: sampling.n_samples",
    )
    max_rounds: int = Field(
        10, ge=1, le=80, description="largest number of refreshes after the first run"
    )
    covered: float = Field(
        0.95,
        gt=0,
        le=1,
        description="converged: the fraction of explored frames covered by labels is at least this, "
        "and",
    )
    min_error_reduction: float = Field(
        0.05,
        ge=0,
        lt=1,
        serialization_alias="error_gain",
        description="… a refresh reduces the errors by less than this fraction,",
    )
    patience: int = Field(2, ge=1, description="… in this number of consecutive refreshes")
    uncertainty_threshold: float = Field(
        2.0,
        gt=0,
        serialization_alias="unsure_above",
        description="expected force error of a frame over the held-out RMSE, above which the frame "
        "may be labelled even where labels cover it",
    )
