"""Convergence of a campaign: when no further refresh is started."""

from __future__ import annotations

from mlip_assets.campaign import RefreshSettings
from mlip_assets.refresh.rounds import Rounds


def reason_to_stop(rounds: Rounds, settings: RefreshSettings) -> str | None:
    """Reason why no further refresh is started, as a text; None if one is.

    A campaign has converged if two conditions are met. Labels covered the last exploration, apart
    from a small fraction of frames. None of the last ``patience`` refreshes reduced the errors by
    ``min_error_reduction``. An unfinished round is always resumed.
    """
    refreshes = [r for r in rounds.rounds if r.number > 0]
    if rounds.next_number < len(rounds.rounds):
        return None
    if len(refreshes) >= settings.max_rounds:
        return f"{len(refreshes)} refreshes done, refresh.max_rounds is {settings.max_rounds}"
    last = refreshes[-settings.patience :]
    if len(last) < settings.patience or any(
        r.error_reduction >= settings.min_error_reduction for r in last
    ):
        return None
    covered_fraction = last[-1].covered_fraction or 0.0
    if covered_fraction < settings.covered:
        return None
    reductions = ", ".join(f"{100 * r.error_reduction:.1f} %" for r in last)
    return (
        f"converged: labels covered {100 * covered_fraction:.1f} % of what the last refresh explored "
        f"(refresh.covered: {100 * settings.covered:g} %), and the last {len(last)} reduced the "
        f"errors by {reductions} (refresh.min_error_reduction: "
        f"{100 * settings.min_error_reduction:g} %)"
    )
