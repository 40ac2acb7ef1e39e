"""The record of a campaign's rounds, and when they have done enough."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlip_assets.campaign import Campaign, CampaignError, RefreshSettings
from mlip_assets.refresh.rounds import Rounds
from mlip_assets.trajectory import FRAME_ID_STRIDE, MAX_ROUNDS, WALKERS_PER_ROUND, round_of

SETTINGS = RefreshSettings(max_rounds=5, covered=0.9, min_error_reduction=0.1, patience=2)


def ended(*found: dict[str, float | bool]) -> Rounds:
    """A first run and refreshes that found this."""
    rounds = Rounds()
    for number, values in enumerate([{}, *found]):
        rounds = rounds.begin(number, f"run {number}", None).record(number, finished=True, **values)
    return rounds


def refresh(known_share: float, error_ratio: float, *, promoted: bool = True) -> dict[str, float]:
    return {"known_share": known_share, "error_ratio": error_ratio, "promoted": promoted}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rounds = ended(refresh(0.5, 0.7)).begin(2, "killed", "0123456789abcdef")
    rounds.save(tmp_path / "rounds.json")
    assert Rounds.open(tmp_path / "rounds.json") == rounds
    assert Rounds.open(tmp_path / "other.json") == Rounds()


@pytest.mark.parametrize("text", ["", "[{]", '[{"number": 0}]', '{"rounds": 1}'])
def test_a_torn_record_is_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rounds.json"
    file.write_text(text)
    with pytest.raises(CampaignError, match=re.escape(str(file)) + ".*restore it, or delete it"):
        Rounds.open(file)


def test_a_refresh_that_was_killed_is_gone_on_with() -> None:
    rounds = Rounds()
    assert rounds.number_of("first", refreshing=True) == 0  # nothing to go beyond yet
    rounds = rounds.begin(0, "first", None).record(0, finished=True)
    assert rounds.number_of("by hand", refreshing=False) == 0
    assert rounds.number_of("second", refreshing=True) == 1
    rounds = rounds.begin(1, "second", "model A")
    assert rounds.number_of("third", refreshing=True) == 1
    resumed = rounds.begin(1, "third", "model B")
    assert resumed.rounds[1].explored_with == "model A"  # what it began with
    assert reason_to_stop(resumed, SETTINGS) is None
    done = resumed.record(1, finished=True)
    assert done.number_of("second", refreshing=True) == 1  # steps of it that are run again
    assert done.number_of("fourth", refreshing=True) == 2
    assert done.number_of("by hand", refreshing=False) == 1


@pytest.mark.parametrize(
    ("found", "reason"),
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
def test_it_stops_when_neither_the_map_nor_the_error_moves(found, reason) -> None:
    told = reason_to_stop(ended(*found), SETTINGS)
    assert told is None if reason is None else re.match(reason, told)


def test_a_round_that_is_not_finished_never_stops_the_loop() -> None:
    converged = ended(refresh(1.0, 1.0), refresh(1.0, 1.0))
    assert reason_to_stop(converged, SETTINGS)
    assert converged.begin(3, "more", reason_to_stop(None), SETTINGS) is None


@given(st.integers(0, 80), st.integers(0, WALKERS_PER_ROUND - 1), st.integers(0, 10**9 - 1))
def test_every_round_has_frames_of_its_own(number: int, walker: int, step: int) -> None:
    frame_id = (number * WALKERS_PER_ROUND + walker) * FRAME_ID_STRIDE + step
    assert round_of(frame_id) == number < MAX_ROUNDS
    assert frame_id < 2**53


def test_a_refresh_is_the_campaign_with_other_random_numbers() -> None:
    written = Campaign(
        name="si",
        composition="Si",
        random_seed=7,
        sampling={"n_samples": 30, "n_clusters": 20},
        refresh={"n_samples": 10},
    )
    assert written.in_round(0, "model") is written
    first, second, again = written.in_round(1, "model"), written.in_round(2), written.in_round(1)
    assert len({written.random_seed, first.random_seed, second.random_seed}) == 3
    assert first.random_seed == again.random_seed
    assert (first.round, first.explored_with) == (1, "model")
    assert first.exploration.surrogate == "own-model"
    assert second.exploration.surrogate == written.exploration.surrogate
    assert (first.sampling.n_samples, first.sampling.n_clusters) == (10, None)
    assert first.sampling.pca_from == "si"
    assert written.round == 0


def test_a_campaign_does_not_go_beyond_itself() -> None:
    with pytest.raises(ValueError, match="'si' is this campaign; take it out of the list"):
        Campaign(name="si", composition="Si", sampling={"exclude_labelled_in": ["si"]})
