"""What all assets of the pipeline have in common: definition, metadata, checks and progress."""

import functools
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from mlip_assets.common.files import write_text
from mlip_assets.common.progress import Progress, ProgressReport
from mlip_assets.figures.canvas import rounded

_log = logging.getLogger(__name__)

#: One partition per campaign file; the sensor ``campaign_files`` adds them.
campaign_partitions = dg.DynamicPartitionsDefinition(name="campaign")

OWNERS = ["team:mlip-autopipe"]

#: Shortest time between two progress events of a run, seconds.
EVENT_EVERY_S = 10.0

#: Longest metadata key that fits the key column of an asset page in the UI.
MAX_KEY_LENGTH = 34

#: For temporary errors, such as a full disk or a busy GPU. Wrong input is not retried: see
#: :func:`pipeline_asset`. Molecular dynamics, labels and training resume, so a second attempt
#: computes only what is missing.
RETRIES = dg.RetryPolicy(max_retries=1, delay=10, backoff=dg.Backoff.EXPONENTIAL)

AssetFunction = Callable[..., dg.MaterializeResult[Any]]


def pipeline_asset(
    *,
    group: str,
    kinds: set[str],
    io_manager: str,
    code_version: str,
    checks: Sequence[tuple[str, str]] = (),
    blocking_checks: Sequence[tuple[str, str]] = (),
    required_info: Sequence[str] = (),
    pool: str | None = None,
) -> Callable[[AssetFunction], dg.AssetsDefinition]:
    """``dg.asset`` with the pipeline's partitions, owners, retries and error handling.

    Parameters
    ----------
    group, kinds, code_version, pool
        As in ``dg.asset``.
    io_manager
        Key of the typed IO manager that stores the value.
    checks
        Name and description of each asset check that the function reports.
    blocking_checks
        Likewise; if one of them fails, the run ends and no downstream asset is computed.
    required_info
        Keys that ``Atoms.info`` of every stored structure must contain.

    Notes
    -----
    The docstring of the function is the description in the UI, and its source file is linked there.
    Metadata are shown in the order in which the function returns them: numbers are rounded by
    :func:`mlip_assets.figures.rounded`, and ``wall_s`` is inserted before the first table. A
    ValueError means wrong input: the step fails without a retry, and its message is the
    description of the failure.
    """

    def decorate(function: AssetFunction) -> dg.AssetsDefinition:
        name = function.__name__

        @functools.wraps(function)
        def timed(*args: Any, **inputs: Any) -> dg.MaterializeResult[Any]:
            started = time.perf_counter()
            _log.info("%s: started", name)
            try:
                result = function(*args, **inputs)
            except ValueError as error:
                raise dg.Failure(description=str(error), allow_retries=False) from error
            except Exception as error:
                _log.error("%s: %s: %s", name, type(error).__name__, error)
                raise
            wall_s = time.perf_counter() - started
            _log.info("%s: done in %.1f s", name, wall_s)
            return result._replace(metadata=_arranged(result.metadata or {}, wall_s))

        # With checks beside the value, Dagster reads a return annotation as "nothing is stored".
        timed.__annotations__ = {k: v for k, v in function.__annotations__.items() if k != "return"}
        blocks = [(check, False) for check in checks] + [(c, True) for c in blocking_checks]
        return dg.asset(
            name=name,
            partitions_def=campaign_partitions,
            group_name=group,
            kinds=kinds,
            owners=OWNERS,
            io_manager_key=io_manager,
            code_version=code_version,
            retry_policy=RETRIES,
            pool=pool,
            metadata={"required_info": list(required_info)} | _source_link(function),
            check_specs=[
                dg.AssetCheckSpec(check, asset=name, description=description, blocking=blocking)
                for (check, description), blocking in blocks
            ],
            description=inspect.getdoc(function),
        )(timed)

    return decorate


def _source_link(function: AssetFunction) -> dict[str, Any]:
    """Where the function is defined; ``dg.with_source_code_references`` would find this module."""
    file, line = inspect.getsourcefile(function), function.__code__.co_firstlineno
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=str(file), line_number=line)
        references = dg.CodeReferencesMetadataValue(code_references=[reference])
    return {"dagster/code_references": references}


def _arranged(metadata: Mapping[str, Any], wall_s: float) -> dict[str, Any]:
    """Rounded numbers, and the wall time before the first table."""
    items = [(key, rounded(value)) for key, value in metadata.items()]
    tables = [isinstance(value, dg.TableMetadataValue) for _, value in items]
    at = tables.index(True) if any(tables) else len(items)
    return dict([*items[:at], ("wall_s", rounded(wall_s)), *items[at:]])


def observed_progress(
    context: dg.AssetExecutionContext, label: str, total: int, unit: str
) -> Progress:
    """Progress of a running asset, also reported as an observation every ten seconds."""
    return Progress(label, total, unit, every_s=EVENT_EVERY_S, on_progress=observed(context))


def observed(context: dg.AssetExecutionContext) -> Callable[[ProgressReport], None]:
    """A function that reports the units done and the rate to the UI, as observations."""

    def observe(report: ProgressReport) -> None:
        values: dict[str, float] = {
            f"{report.unit}_done": report.done,
            f"{report.unit}_total": report.total,
            **report.metrics,
        }
        if report.remaining_s is not None:
            values[f"{report.unit}_per_s"] = report.rate_per_s
            values["eta_s"] = report.remaining_s
        context.log_event(
            dg.AssetObservation(
                context.asset_key,
                partition=context.partition_key,
                description=str(report),
                metadata=rounded(values),
            )
        )

    return observe


def download(context: dg.AssetExecutionContext, name: str, page: str) -> dict[str, Any]:
    """A link by which the UI sends a web page to the browser, also from a remote machine.

    Dagster's web server sends every file in its folder of compute logs under ``/logs``, as a
    download; the page is stored there with the logs of the run. Where logs are not local files, no
    link is given.

    Parameters
    ----------
    name
        Of the file, without ``.html``.
    """
    logs = context.instance.compute_log_manager
    if not isinstance(logs, LocalComputeLogManager):
        return {}
    write_text(logs.get_captured_local_path([context.run.run_id, name], "html"), page)
    link = f"[download {name}.html](/logs/{context.run.run_id}/{name}/html)"
    return {f"{name}_download": dg.MetadataValue.md(link)}


def check(name: str, passed: bool, **values: Any) -> dg.AssetCheckResult:
    """The result of one asset check, with the values on which it was decided."""
    return dg.AssetCheckResult(check_name=name, passed=bool(passed), metadata=rounded(values))
