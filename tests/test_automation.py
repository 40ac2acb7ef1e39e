"""The schedule of refreshes on a real instance, without a daemon."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from mlip_assets.automation import campaign_refresh, refresh_job
from mlip_assets.refresh.rounds import ROUNDS_NAME, Rounds
from resources.campaigns import REFRESH_TAG, CampaignFolder


@pytest.fixture
def tick(tmp_path):
    """``tick(instance)``: what one tick of the schedule yields."""
    campaigns = CampaignFolder(folder=str(tmp_path), data=str(tmp_path / "data"))

    def evaluate(instance):
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 1, 4, 3, tzinfo=UTC),
        )
        return list(campaign_refresh(context, campaigns=campaigns))

    return evaluate


def write(folder, name, refresh="{}", rounds=None):
    (folder / f"{name}.yaml").write_text(f"name: {name}\ncomposition: Si\nrefresh: {refresh}\n")
    if rounds is not None:
        (folder / "data" / name).mkdir(parents=True)
        rounds.save(folder / "data" / name / ROUNDS_NAME)


def done(n_refreshes):
    rounds = Rounds()
    for number in range(n_refreshes + 1):
        rounds = rounds.begin(number, f"run {number}", None).record(number, finished=True)
    return rounds


def test_schedule_requests_a_run_or_gives_a_reason_for_each_campaign(tmp_path, tick):
    write(tmp_path, "new")
    write(tmp_path, "due", rounds=done(1))
    write(tmp_path, "busy", rounds=done(1))
    write(tmp_path, "disabled", "{enabled: false}")
    write(tmp_path, "ended", "{max_rounds: 2}", rounds=done(2))
    write(tmp_path, "torn", rounds=done(1))
    (tmp_path / "data" / "torn" / ROUNDS_NAME).write_text("[{")
    write(tmp_path, "invalid", "{max_round: 2}")
    names = ["new", "due", "busy", "disabled", "ended", "torn", "invalid"]
    with dg.DagsterInstance.local_temp() as instance:
        instance.add_dynamic_partitions("campaign", names)
        instance.create_run_for_job(
            job_def=dg.job(name="nothing")(lambda: None),
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": "busy"},
        )
        requests = tick(instance)
        assert {request.partition_key for request in requests} == {"new", "due"}
        assert len({request.run_key for request in requests}) == 2
        for name in ("new", "due"):
            instance.delete_dynamic_partition("campaign", name)
        (skipped,) = tick(instance)
    assert "busy: its last run is not finished" in skipped.skip_message
    assert "ended: 2 refreshes done, refresh.max_rounds is 2" in skipped.skip_message
    assert refresh_job.tags[REFRESH_TAG] == "true"


def test_schedule_skips_without_campaigns(tick):
    with dg.DagsterInstance.local_temp() as instance:
        (skipped,) = tick(instance)
    assert skipped.skip_message == "no campaign with refresh enabled has a partition yet"
