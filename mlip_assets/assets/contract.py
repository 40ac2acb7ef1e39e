"""What every asset of the pipeline has in common, stated once."""

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import numpy as np

from mlip_assets.common.progress import Progress, ProgressReport

_log = logging.getLogger(__name__)

#: One partition a campaign file; the sensor adds them.
campaign_partitions = dg.DynamicPartitionsDefinition(name="campaign")

OWNERS = ["team:mlip-autopipe"]

#: Least time between two progress events of a run, seconds.
EVENT_EVERY_S = 10.0

#: For what may pass by itself, such as a full disk being freed or a GPU being busy. Wrong input is
#: not retried: see :func:`pipeline_asset`. Molecular dynamics, labels and training resume, so a
#: second attempt pays only for what is missing.
RETRIES = dg.RetryPolicy(max_retries=1, delay=10, backoff=dg.Backoff.EXPONENTIAL)

AssetFunction = Callable[..., dg.MaterializeResult[Any]]


def pipeline_asset(
    *,
    group: str,
    kinds: set[str],
    io_manager: str,
    code_version: str,
    checks: Sequence[tuple[str, str]] = (),
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
        Name and description of each asset check the function reports.
    required_info
        Keys that every stored structure must carry.

    Notes
    -----
    The wall time is added to the metadata. A ValueError means wrong input, which no retry mends:
    it fails the step at once, with its message as the step's description.
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
            wall_s = round(time.perf_counter() - started, 2)
            _log.info("%s: done in %.1f s", name, wall_s)
            return result._replace(metadata={**(result.metadata or {}), "wall_s": wall_s})

        # With checks beside the value, Dagster reads a return annotation as "nothing is stored".
        timed.__annotations__ = {k: v for k, v in function.__annotations__.items() if k != "return"}
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
            metadata={"required_info": list(required_info)},
            check_specs=[dg.AssetCheckSpec(c, asset=name, description=why) for c, why in checks],
            description=function.__doc__,
        )(timed)

    return decorate


def observed_progress(
    context: dg.AssetExecutionContext, label: str, total: int, unit: str
) -> Progress:
    """Progress of a running asset, also told as an observation every ten seconds."""
    return Progress(label, total, unit, every_s=EVENT_EVERY_S, on_progress=observed(context))


def observed(context: dg.AssetExecutionContext) -> Callable[[ProgressReport], None]:
    """Tells the UI, as observations of the asset, how many units are done and how fast."""

    def observe(report: ProgressReport) -> None:
        known: dict[str, float] = {
            f"{report.unit}_done": report.done,
            f"{report.unit}_total": report.total,
            **report.metrics,
        }
        if report.remaining_s is not None:
            known[f"{report.unit}_per_s"] = float(f"{report.rate_per_s:.3g}")
            known["eta_s"] = round(report.remaining_s, 1)
        context.log_event(
            dg.AssetObservation(
                context.asset_key,
                partition=context.partition_key,
                description=str(report),
                metadata=known,
            )
        )

    return observe


def check(name: str, passed: bool, **figures: Any) -> dg.AssetCheckResult:
    """The result of one asset check, with the figures it was decided on."""
    plain = {key: _plain(value) for key, value in figures.items()}
    return dg.AssetCheckResult(check_name=name, passed=bool(passed), metadata=plain)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
