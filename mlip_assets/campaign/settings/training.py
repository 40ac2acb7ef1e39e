"""Section ``training``: fitting of MACE models, and the tests of the fitted model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mlip_assets.campaign.settings.section import Device, Section


class TrainingSettings(Section):
    """Training of MACE models."""

    start_from: Literal["surrogate", "scratch"] = Field(
        "surrogate",
        description="surrogate: fine-tune the exploration model | scratch: random initial weights",
    )
    fine_tuning: Literal["naive", "multihead"] = Field(
        "naive",
        description="naive: on the labels alone; the model then supports only their elements | "
        "multihead: on the labels and on replay data labelled by the exploration model",
    )
    replay: str | None = Field(
        None,
        description="extended XYZ of replay structures, against catastrophic forgetting, relative to "
        "this file; the exploration model labels them (multihead)",
    )
    num_channels: int = Field(16, ge=4, le=512, description="channels (scratch)")
    max_L: int = Field(0, ge=0, le=3, description="equivariance of the messages (scratch)")
    correlation: int = Field(2, ge=1, le=4, description="body order minus one (scratch)")
    r_max: float = Field(5.0, gt=1, le=12, description="cut-off radius, Å (scratch)")
    max_epochs: int = Field(120, ge=4, description="passes over the training set")
    patience: int | None = Field(
        None,
        ge=1,
        description="epochs without a lower validation loss that end a stage; choose more than "
        "max_epochs / 10, after which the learning rate is reduced; null: no early stopping; the "
        "epoch with the lowest loss is kept in any case",
    )
    batch_size: int = Field(4, ge=1, description="structures in a batch")
    learning_rate: float = Field(
        0.01, gt=0, lt=1, description="initial learning rate; a fifth of it in fine-tuning"
    )
    valid_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="fraction for validation, which determines the best epoch"
    )
    test_fraction: float = Field(
        0.15, gt=0, lt=0.5, description="fraction for testing, never used in training"
    )
    committee: int = Field(
        3,
        ge=1,
        le=8,
        description="models in the committee, including the main one; 1: no committee",
    )
    stability_steps: int = Field(
        500,
        ge=50,
        serialization_alias="trial_steps",
        description="steps of the MD stability test at each temperature, with a thermostat; half "
        "that number follow without one",
    )
    device: Device = Field("auto", description="auto | cpu | cuda")

    @model_validator(mode="after")
    def _check_replay(self) -> Self:
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
