"""The terminal: ``python -m mlip_assets run quickstart`` and its companions.

What ``make run`` calls. The run is a real Dagster run on the repository's own instance, so the UI
shows it with its lineage, metadata and checks.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip_assets.campaign import Campaign, CampaignError
from mlip_assets.descriptors import describe_size
from mlip_assets.surrogates.finding import load_campaign

if TYPE_CHECKING:
    import dagster as dg

PID_TAG, HOST_TAG = "mlip/pid", "mlip/host"

#: Command -> the job it runs.
JOBS = {"run": "campaign", "refresh": "refresh", "explore": "exploration"}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and return the exit status: 0 done, 1 failed, 2 wrong input."""
    parser = argparse.ArgumentParser(prog="python -m mlip_assets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, meaning in (
        ("run", "run a campaign to its end, resuming what is there"),
        ("refresh", "run the campaign's next round, unless it has converged"),
        ("explore", "explore and select, without spending a DFT call"),
        ("check", "check a campaign file and say what it would compute"),
        ("show", "print the campaign with every default filled in"),
        ("package", "put the promoted model, its card, exports and data in one folder"),
    ):
        command = commands.add_parser(name, help=meaning)
        command.add_argument(
            "campaign", help="a name in campaigns/, or the path of a campaign file"
        )
    given = parser.parse_args(arguments)
    try:
        path = _campaign_path(given.campaign)
        campaign = load_campaign(path)
        if given.command == "show":
            print(campaign.to_yaml(), end="")
            return 0
        if given.command == "package":
            return _package(campaign)
        if given.command == "refresh" and (reason := _reason_to_stop(campaign, path)):
            print(f"campaign {campaign.name} is not refreshed: {reason}")
            return 0
        _check_earlier_runs(campaign)
        print(_plan(campaign))
        if job := JOBS.get(given.command):
            return _run(campaign, path, job)
    except CampaignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _campaign_path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        return Path(name)
    return Path(os.environ.get("MLIP_CAMPAIGNS", "campaigns")) / f"{name}.yaml"


def _plan(campaign: Campaign) -> str:
    exploration, labelling = campaign.exploration, campaign.labelling
    return (
        f"campaign {campaign.name}: {campaign.composition}\n"
        f"  explore  {campaign.n_seeds} seeds in {campaign.n_walkers} walkers ({exploration.ensemble}), "
        f"{exploration.n_steps} steps of {exploration.timestep_fs:g} fs with "
        f"{' + '.join(exploration.surrogates)}\n"
        f"  describe {describe_size(campaign.descriptors, len(campaign.elements))}\n"
        f"  select   {campaign.sampling.n_samples} of {campaign.n_frames} frames\n"
        f"  label    {labelling.engine} {labelling.xc}, {labelling.cutoff_eV:g} eV, "
        f"at most {campaign.sampling.n_samples} frames + {len(campaign.elements)} isolated atoms\n"
        f"  train    MACE from {campaign.training.start_from}"
    )


def _reason_to_stop(campaign: Campaign, path: Path) -> str | None:
    from resources.campaigns import CampaignFolder

    folder = CampaignFolder(folder=str(path.parent), data=str(_data()))
    return folder.rounds(campaign.name).reason_to_stop(campaign.refresh)


def _check_earlier_runs(campaign: Campaign) -> None:
    """``sampling.exclude_labelled_in`` and ``sampling.pca_from`` name results that can be used."""
    if not campaign.sampling.exclude_labelled_in and campaign.sampling.pca_from is None:
        return  # nothing to look for, and Dagster takes seconds to import
    from io_managers.storage import Storage
    from resources.earlier import EarlierRuns

    EarlierRuns(storage=Storage(root=str(_data()))).check(campaign)


def _data() -> Path:
    return Path(os.environ.get("MLIP_DATA", "data")).absolute()


def _package(campaign: Campaign) -> int:
    from mlip_assets.assets.model import HELD_OUT_NAME
    from mlip_assets.evaluation import ModelReport
    from mlip_assets.labelling import LabelledDatabase
    from mlip_assets.release import PromotedModels, write_package
    from mlip_assets.release.promotion import LABELS_FOLDER, PROMOTED_FOLDER, REPORT_FOLDER
    from mlip_assets.training import HeldOut

    data = _data() / campaign.name
    try:
        model, promotion = PromotedModels(data / PROMOTED_FOLDER).in_use()
        kept = model.model_file.parent
        labels = LabelledDatabase.open(kept / LABELS_FOLDER)
        packed = write_package(
            data / "package",
            campaign,
            model,
            ModelReport.open(kept / REPORT_FOLDER),
            labels.labelled,
            labels.isolated,
            HeldOut.open(data / HELD_OUT_NAME),
        )
    except FileNotFoundError as error:
        print(
            f"error: campaign '{campaign.name}' has no promoted model to pack ({error}); run it "
            f"first (make run CAMPAIGN={campaign.name})",
            file=sys.stderr,
        )
        return 2
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"promoted because {promotion.reason}")
    for file in sorted(packed.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size:>12,} B  {_near(str(file))}")
    return 0


def _run(campaign: Campaign, path: Path, job: str) -> int:
    os.environ["MLIP_CAMPAIGNS"] = str(path.parent)  # read when the definitions are loaded
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of libraries, in worker processes
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores go to walkers and labels
    os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))
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
        print(_summary(campaign, result, time.monotonic() - started))
        if not result.success:
            print(_failure(result), file=sys.stderr)
    return 0 if result.success else 1


def log_to_terminal() -> None:
    """What our own packages log, as lines with the time of day."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    for name in ("mlip_assets", "resources"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.propagate = False


def _close_abandoned_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs of this host whose process was killed as failed, and free the pools they hold."""
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
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    found = {}
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        found[materialization.asset_key.path[-1]] = {
            key: value.value for key, value in materialization.metadata.items()
        }
    return found


def _summary(campaign: Campaign, result: dg.ExecuteInProcessResult, wall_s: float) -> str:
    made = _metadata(result)
    lines = ["", f"── {campaign.name} ─ {wall_s / 60:.1f} min " + "─" * 50]
    if trajectory := made.get("surrogate_trajectory"):
        lines.append(
            f"frames explored   {trajectory['n_frames']} in {trajectory['n_walkers']} walkers "
            f"({trajectory['n_walkers_stopped']} stopped by a guard), "
            f"surrogate {trajectory['surrogate']} on {trajectory['device']} by "
            f"{trajectory['engine']}"
        )
    if "known_share" in (clusters := made.get("clusters", {})):
        lines.append(
            f"covered already   {100 * clusters['known_share']:.0f} % of them by the labels of earlier "
            f"rounds; {clusters['n_frames_far_from_labels']} are unlike any label, the model is unsure "
            f"of {clusters['n_frames_unsure']}"
        )
    if selected := made.get("selected_frames"):
        lines.append(
            f"frames selected   {selected['n_selected']}; coverage {selected['coverage']:.2f} against "
            f"{selected['coverage_random_mean']:.2f} ± {selected['coverage_random_sd']:.2f} at random"
        )
    if labels := made.get("labelled_db"):
        lines.append(
            f"DFT calls         {labels['dft_calls_made']} made, {labels['dft_calls_saved']} saved; "
            f"{labels['n_failed']} failed, {labels['n_deferred']} deferred; "
            f"{labels['core_hours_spent']:.2g} core-hours"
        )
    if model := made.get("model"):
        lines.append(
            f"model errors      forces {model['test_force_rmse_meV_per_A']:.0f} meV/Å (mean predictor "
            f"{model['naive_force_rmse_meV_per_A']:.0f}), energy "
            f"{model['test_energy_rmse_meV_per_atom']:.1f} meV/atom "
            f"({model['naive_energy_rmse_meV_per_atom']:.1f}), on held-out labels"
        )
    if report := made.get("model_report"):
        lines.append(
            f"{'promoted' if report['promoted'] else 'not promoted':<18}{report['promotion_reason']}"
        )
    lines += [f"{asset:<22}{_near(values['path'])}" for asset, values in made.items()]
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            lines.append(f"CHECK NOT PASSED  {check.asset_key.path[-1]}.{check.check_name}")
    lines.append("look at it        make ui, then open http://127.0.0.1:3000/asset-groups")
    return "\n".join(lines)


def _near(path: str) -> str:
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _failure(result: dg.ExecuteInProcessResult) -> str:
    lines = []
    for event in result.filter_events(lambda event: event.is_step_failure):
        data = event.step_failure_data
        failure = data.user_failure_data
        message = failure.description if failure else data.error and data.error.to_string()
        lines.append(f"error: {event.step_key}: {message}")
    return "\n".join(lines) or "error: the run did not succeed; see its log in the UI"


if __name__ == "__main__":
    sys.exit(main())
