"""The criterion that stops the refreshes of a campaign."""

from __future__ import annotations

import re

import pytest

from mlip_assets.campaign import RefreshSettings
from mlip_assets.refresh import Rounds, reason_to_stop

SETTINGS = RefreshSettings(max_rounds=5, covered=0.9, min_error_reduction=0.1, patience=2)


def finished(*results: dict[str, float | bool]) -> Rounds:
    """A finished first run, and finished refreshes with these results."""
    rounds = Rounds()
    for number, values in enumerate([{}, *results]):
        rounds = rounds.begin(number, f"run {number}", None).record(number, finished=True, **values)
    return rounds


def refresh(
    covered_fraction: float, error_ratio: float, *, promoted: bool = True
) -> dict[str, float]:
    return {
        "covered_fraction": covered_fraction,
        "error_ratio": error_ratio,
        "promoted": promoted,
    }


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], None),
        ([refresh(1.0, 1.0)], None),
        (
            [refresh(0.95, 0.95), refresh(0.95, 0.97)],
            "converged: labels covered 95.0 % .* 5.0 %, 3.0 %",
        ),
        ([refresh(0.95, 0.95), refresh(0.80, 0.97)], None),
        ([refresh(0.95, 0.80), refresh(0.95, 0.97)], None),
        ([refresh(0.95, 0.97), refresh(0.95, 0.80)], None),
        ([refresh(0.95, 0.97), refresh(0.95, 0.5, promoted=False)], "converged"),
        ([refresh(0.2, 0.5)] * 5, "5 refreshes done, refresh.max_rounds is 5"),
    ],
)
def test_reason_to_stop_needs_coverage_and_constant_errors(
    results: list[dict[str, float | bool]], expected: str | None
) -> None:
    reason = reason_to_stop(finished(*results), SETTINGS)
    assert reason is None if expected is None else re.match(expected, reason)


def test_reason_to_stop_is_none_for_unfinished_round() -> None:
    resumed = finished().begin(1, "second", "model A").begin(1, "third", "model B")
    assert reason_to_stop(resumed, SETTINGS) is None
    converged = finished(refresh(1.0, 1.0), refresh(1.0, 1.0))
    assert reason_to_stop(converged, SETTINGS)
    assert reason_to_stop(converged.begin(3, "more", None), SETTINGS) is None
