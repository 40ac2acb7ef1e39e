"""The measured part of the model card of the bundled surrogate: its tables as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from io_managers.parquet import TrajectoryIOManager
from io_managers.storage import Storage
from mlip_assets.campaign import Campaign
from mlip_assets.common.files import write_text
from mlip_assets.evaluation import ModelReport
from mlip_assets.surrogates.models.bundled import BUNDLED_FOLDER


def write_card(folder: Path, sections: dict[str, str]) -> None:
    """Replace the text between the ``measured`` markers of the model card."""
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    card = (BUNDLED_FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    body = "\n\n".join(f"### {title}\n\n{text}" for title, text in sections.items())
    text = f"{card.split(begin)[0]}{begin}\n\n{body}\n\n{end}{card.split(end)[1]}"
    write_text(folder / "MODEL_CARD.md", text)


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table of the rows, numbers with three digits."""

    def shown(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)

    cells = [{k.replace("_", " "): shown(value) for k, value in row.items()} for row in rows]
    lines = [list(cells[0]), ["---"] * len(cells[0]), *(list(row.values()) for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows_of(table: Callable[[ModelReport], Any], reports: Mapping[str, ModelReport]) -> str:
    """One of the pipeline's tables, with the rows of all materials."""
    return markdown(
        {"material": name, **record.data}
        for name, report in reports.items()
        for record in table(report).records
    ).replace("| surrogate |", "| teacher |")


def error_rows(metrics: Mapping[str, Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Rows of the results of :func:`evaluate`, by composition."""
    for composition, found in metrics.items():
        ours, baseline = (found[of]["test"] for of in ("splits", "mean_predictor"))
        errors = ("force_rmse_meV_per_A", "energy_rmse_meV_per_atom", "stress_rmse_GPa")
        row = {"composition": composition, "frames": ours["n_frames"]}
        for error in errors:
            row |= {error: ours[error], f"of the mean {error.split('_')[0]}": baseline[error]}
        yield row


def exploration_rows(data: Path, campaigns: Sequence[Campaign]) -> Iterable[dict[str, Any]]:
    """Rows on the walkers of the last pass, whose surrogate is the model."""
    stored = TrajectoryIOManager(storage=Storage(root=str(data)))
    for campaign in campaigns:
        name, exploration = campaign.name, campaign.exploration
        walkers = stored.read(stored.place("surrogate_trajectory", name)).walkers
        stopped = [walker.stopped_by.split(":")[0] for walker in walkers if walker.stopped_by]
        yield {
            "campaign": name.rpartition("-")[0],
            "temperatures_K": ", ".join(f"{t:g}" for t in exploration.temperatures_K),
            "time_ps": exploration.n_steps * exploration.timestep_fs / 1e3,
            "walkers": len(walkers),
            "finished": len(walkers) - len(stopped),
            "others stopped by": ", ".join(dict.fromkeys(stopped)),
        }
