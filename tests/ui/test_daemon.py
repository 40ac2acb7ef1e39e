"""What happens by itself: a real daemon finds campaign files and runs the refresh."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.timeout(900)]

DAEMON = ("dagster-daemon", "run", "-w", "workspace.yaml")


def test_sensor_adds_partitions_for_valid_files_and_reports_an_invalid_one(project, tiny_campaign):
    tiny_campaign(project.campaigns, "first")
    (project.campaigns / "broken.yaml").write_text("name: broken\ncomposition: Xy\n")
    with project.instance() as instance, project.running(*DAEMON):
        project.wait_for(
            lambda: instance.has_dynamic_partition("campaign", "first"), "partition of a file"
        )
        project.wait_for(
            lambda: any("broken.yaml" in (t.skip_reason or "") for t in _ticks(instance)),
            "a tick that names the invalid file",
        )
        tiny_campaign(project.campaigns, "second")
        project.wait_for(
            lambda: instance.has_dynamic_partition("campaign", "second"), "partition of a new file"
        )
        assert set(instance.get_dynamic_partitions("campaign")) == {"first", "second"}
        assert TickStatus.FAILURE not in {tick.status for tick in _ticks(instance)}


def test_schedule_runs_the_refresh_of_a_campaign(project, tiny_campaign):
    tiny_campaign(project.campaigns)
    every_minute = {"MLIP_REFRESH_CRON": "* * * * *"}
    by_schedule = dg.RunsFilter(
        job_name="refresh", tags={"dagster/schedule_name": "campaign_refresh"}
    )
    of_seeds = dg.AssetRecordsFilter(dg.AssetKey("seeds"), asset_partitions=["tiny"])
    with project.instance() as instance, project.running(*DAEMON, **every_minute):
        project.run("dagster", "schedule", "start", "campaign_refresh", *DAEMON[2:], **every_minute)
        (run, *_) = project.wait_for(
            lambda: instance.get_runs(by_schedule), "a run by the schedule"
        )
        assert run.tags["dagster/partition"] == "tiny"
        (made,) = project.wait_for(
            lambda: instance.fetch_materializations(of_seeds, limit=1).records, "seeds by that run"
        )
        assert made.run_id == run.run_id


def _ticks(instance: dg.DagsterInstance) -> list[InstigatorTick]:
    return [
        tick
        for sensor in instance.all_instigator_state()
        for tick in instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id)
    ]
