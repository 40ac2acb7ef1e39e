"""Record of a campaign's rounds, and the campaign of each round."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlip_assets.campaign import Campaign, CampaignError
from mlip_assets.refresh import Round, Rounds
from mlip_assets.trajectory import FRAME_ID_STRIDE, MAX_ROUNDS, WALKERS_PER_ROUND, round_of

#: A record as version 0.2 wrote it.
STORED = """\
[
 {
  "number": 0,
  "run_ids": [
   "first"
  ],
  "explored_with": null,
  "known_distance": 1.25,
  "known_share": null,
  "n_labels": 24,
  "error_ratio": null,
  "model": "0123456789abcdef",
  "promoted": true,
  "finished": true
 },
 {
  "number": 1,
  "run_ids": [
   "second",
   "third"
  ],
  "explored_with": "0123456789abcdef",
  "known_distance": null,
  "known_share": 0.75,
  "n_labels": null,
  "error_ratio": null,
  "model": null,
  "promoted": false,
  "finished": false
 }
]
"""


def test_rounds_open_reads_what_save_wrote(tmp_path: Path) -> None:
    rounds = Rounds().begin(0, "first", None).record(0, finished=True, covered_fraction=0.5)
    rounds = rounds.begin(1, "killed", "0123456789abcdef")
    rounds.save(tmp_path / "rounds.json")
    assert Rounds.open(tmp_path / "rounds.json") == rounds
    assert Rounds.open(tmp_path / "other.json") == Rounds()


def test_rounds_file_keeps_the_stored_keys(tmp_path: Path) -> None:
    """Files of earlier versions are read, and the same record is written with the same bytes."""
    file = tmp_path / "rounds.json"
    file.write_text(STORED, encoding="utf-8")
    rounds = Rounds.open(file)
    first, second = rounds.rounds
    assert first.coverage_radius == 1.25
    assert (second.covered_fraction, second.run_ids) == (0.75, ("second", "third"))
    rounds.save(file)
    assert file.read_text(encoding="utf-8") == STORED


def test_rounds_open_reads_attribute_names_as_keys(tmp_path: Path) -> None:
    file = tmp_path / "rounds.json"
    record = {"number": 0, "run_ids": ["a"], "coverage_radius": 2.0, "covered_fraction": 0.5}
    file.write_text(json.dumps([record]), encoding="utf-8")
    expected = Round(0, ("a",), coverage_radius=2.0, covered_fraction=0.5)
    assert Rounds.open(file).rounds == (expected,)


@pytest.mark.parametrize("text", ["", "[{]", '[{"number": 0}]', '{"rounds": 1}'])
def test_rounds_open_rejects_damaged_file_with_remedy(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rounds.json"
    file.write_text(text)
    with pytest.raises(CampaignError, match=re.escape(str(file)) + ".*restore it, or delete it"):
        Rounds.open(file)


def test_number_of_resumes_interrupted_refresh() -> None:
    rounds = Rounds()
    assert rounds.number_of("first", refreshing=True) == 0  # the first run comes before a refresh
    rounds = rounds.begin(0, "first", None).record(0, finished=True)
    assert rounds.number_of("by hand", refreshing=False) == 0
    assert rounds.number_of("second", refreshing=True) == 1
    rounds = rounds.begin(1, "second", "model A")
    assert rounds.number_of("third", refreshing=True) == 1
    resumed = rounds.begin(1, "third", "model B")
    assert resumed.rounds[1].explored_with == "model A"  # the model of the first run of the round
    done = resumed.record(1, finished=True)
    assert done.number_of("second", refreshing=True) == 1  # assets of that run, executed again
    assert done.number_of("fourth", refreshing=True) == 2
    assert done.number_of("by hand", refreshing=False) == 1


@given(st.integers(0, 80), st.integers(0, WALKERS_PER_ROUND - 1), st.integers(0, 10**9 - 1))
def test_frame_ids_of_different_rounds_differ(number: int, walker: int, step: int) -> None:
    frame_id = (number * WALKERS_PER_ROUND + walker) * FRAME_ID_STRIDE + step
    assert round_of(frame_id) == number < MAX_ROUNDS
    assert frame_id < 2**53


def test_in_round_changes_random_seed_and_sampling_of_campaign() -> None:
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


def test_campaign_rejects_itself_in_exclude_labelled_in() -> None:
    with pytest.raises(ValueError, match="'si' is this campaign; take it out of the list"):
        Campaign(name="si", composition="Si", sampling={"exclude_labelled_in": ["si"]})
