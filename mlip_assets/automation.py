"""Jobs, the sensor of campaign files, and the schedule of refreshes."""

import json
import os
from collections.abc import Iterator

import dagster as dg

from mlip_assets.assets.contract import campaign_partitions
from mlip_assets.campaign import CampaignError
from mlip_assets.refresh import reason_to_stop
from resources.campaigns import REFRESH_TAG, CampaignFolder

#: When the refresh runs, as a cron expression in UTC; a deployment can set its own.
REFRESH_CRON = os.environ.get("MLIP_REFRESH_CRON", "0 3 * * 0")

campaign_job = dg.define_asset_job(
    "campaign",
    selection=dg.AssetSelection.all(),
    description="One complete campaign, from its file to a trained model. Finished work is reused.",
)

refresh_job = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all(),
    tags={REFRESH_TAG: "true"},
    description="The next round of a campaign: explore with the promoted model, label frames that "
    "the labels do not cover, train again. An interrupted round is resumed.",
)

exploration_job = dg.define_asset_job(
    "exploration",
    selection=dg.AssetSelection.groups("exploration", "selection"),
    description="Explore and select frames without DFT calls, to inspect the selection first.",
)


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for each new valid campaign file; reports an invalid one.",
)
def campaign_files(
    context: dg.SensorEvaluationContext, campaigns: CampaignFolder
) -> dg.SensorResult:
    """Read every file; an invalid file is logged when it changes, and does not stop the others."""
    existing = set(context.instance.get_dynamic_partitions("campaign"))
    reported: dict[str, float] = json.loads(context.cursor or "{}")
    new: list[str] = []
    invalid: dict[str, float] = {}
    problems: list[str] = []
    for file in campaigns.files():
        try:
            campaigns.load(file.stem)
        except CampaignError as error:
            invalid[file.name] = file.stat().st_mtime
            if reported.get(file.name) != invalid[file.name]:
                context.log.error("Campaign file not valid:\n%s", error)
            problems.append(str(error))
        else:
            if file.stem not in existing:
                new.append(file.stem)
                context.log.info("New campaign: %s", file.stem)
    if not new:
        reason = "; ".join(problems) if problems else "no new campaign file"
        return dg.SensorResult(skip_reason=reason, cursor=json.dumps(invalid))
    return dg.SensorResult(
        dynamic_partitions_requests=[campaign_partitions.build_add_request(new)],
        cursor=json.dumps(invalid),
    )


@dg.schedule(
    cron_schedule=REFRESH_CRON,
    job=refresh_job,
    execution_timezone="UTC",
    description="Refreshes every campaign that has not converged. Off by default.",
)
def campaign_refresh(
    context: dg.ScheduleEvaluationContext, campaigns: CampaignFolder
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run per campaign and tick, except for campaigns that are invalid, busy or converged."""
    reasons, requested = [], 0
    for name in context.instance.get_dynamic_partitions("campaign"):
        try:
            campaign = campaigns.load(name)
            reason = reason_to_stop(campaigns.rounds(name), campaign.refresh)
        except CampaignError as error:
            context.log.error("Not refreshed:\n%s", error)
            continue
        if not campaign.refresh.enabled:
            continue
        if reason is None and _is_busy(context.instance, name):
            reason = "its last run is not finished"
        if reason is not None:
            context.log.info("Not refreshed: %s: %s", name, reason)
            reasons.append(f"{name}: {reason}")
            continue
        requested += 1
        tick = context.scheduled_execution_time.isoformat()
        yield dg.RunRequest(
            run_key=f"{name}@{tick}", partition_key=name, tags={"mlip/campaign": name}
        )
    if not requested:
        nothing = "no campaign with refresh enabled has a partition yet"
        yield dg.SkipReason("; ".join(reasons) or nothing)


def _is_busy(instance: dg.DagsterInstance, name: str) -> bool:
    """Whether a run of the campaign is queued or running."""
    statuses = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    ours = dg.RunsFilter(statuses=statuses, tags={"dagster/partition": name})
    return bool(instance.get_run_ids(ours, limit=1))
