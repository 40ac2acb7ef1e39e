"""``mlip run``, ``explore`` and ``refresh``: Dagster runs in this process, with a summary.

A run is recorded in the Dagster instance of the project, so that the UI shows it with its lineage,
metadata and checks.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mlip_assets.campaign import Campaign
from mlip_assets.cli.inspection import check_earlier_runs, plan, read_campaign
from mlip_assets.cli.logs import log_to_terminal
from mlip_assets.cli.project import data_folder, set_environment
from mlip_assets.cli.summary import failure_message, run_summary

if TYPE_CHECKING:
    import dagster as dg

PID_TAG, HOST_TAG = "mlip/pid", "mlip/host"


def run_campaign(name: str) -> int:
    """Run all assets of a campaign."""
    return _run_job("campaign", *read_campaign(name))


def explore_campaign(name: str) -> int:
    """Run a campaign up to the selected frames, without DFT."""
    return _run_job("exploration", *read_campaign(name))


def refresh_campaign(name: str) -> int:
    """Run the next round of a campaign, unless a criterion of ``refresh`` stops it."""
    campaign, path = read_campaign(name)
    if reason := _reason_to_stop(campaign, path):
        print(f"campaign {campaign.name} is not refreshed: {reason}")
        return 0
    return _run_job("refresh", campaign, path)


def _reason_to_stop(campaign: Campaign, path: Path) -> str | None:
    from mlip_assets.refresh import reason_to_stop
    from resources.campaigns import CampaignFolder

    folder = CampaignFolder(folder=str(path.parent), data=str(data_folder()))
    return reason_to_stop(folder.rounds(campaign.name), campaign.refresh)


def _run_job(job: str, campaign: Campaign, path: Path) -> int:
    check_earlier_runs(campaign)
    print(plan(campaign))
    set_environment(path.parent)  # read when the definitions are imported
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of libraries, in worker processes
    warnings.simplefilter("ignore")
    log_to_terminal()

    import dagster as dg

    from mlip_assets.definitions import defs

    started = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        _close_abandoned_runs(instance)
        instance.add_dynamic_partitions("campaign", [campaign.name])
        definition = defs.resolve_job_def(job)
        result = definition.execute_in_process(
            partition_key=campaign.name,
            instance=instance,
            raise_on_error=False,
            tags={
                **definition.run_tags,
                PID_TAG: str(os.getpid()),
                HOST_TAG: socket.gethostname(),
            },
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        print(run_summary(campaign.name, result, time.monotonic() - started))
        if not result.success:
            print(failure_message(result), file=sys.stderr)
    return 0 if result.success else 1


def _close_abandoned_runs(instance: dg.DagsterInstance) -> None:
    """Record runs of this host whose process has ended as failed, and free their pools."""
    import dagster as dg

    running = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTED], tags={HOST_TAG: socket.gethostname()}
    )
    for run in instance.get_runs(running):
        if not _is_alive(int(run.tags[PID_TAG])):
            instance.report_run_failed(run, "its process was killed; a new run resumes its work")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only checks that the process exists
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
