"""A picture without pyplot, a table of readable numbers, and how both reach the UI."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Rows shown of a long table; the whole is in the stored file.
TABLE_ROWS = 100
#: Colours that people with any colour vision tell apart (P. Tol, "muted").
COLOURS = (
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#44AA99", "#882255", "#999933",
    "#AA4499",
)  # fmt: skip


def markdown(picture: bytes) -> dg.MetadataValue:
    """A picture the UI opens in a dialog."""
    encoded = base64.b64encode(picture).decode()
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{encoded})")


def table(
    rows: Iterable[dict[str, Any]] | pd.DataFrame, most: int = TABLE_ROWS
) -> dg.MetadataValue:
    """The first rows of a table, numbers rounded to what a reader compares."""
    if hasattr(rows, "to_dict"):
        rows = rows.head(most).to_dict("records")
    kept = list(islice(rows, most))
    if not kept:
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.table(
        [dg.TableRecord({key: _readable(value) for key, value in row.items()}) for row in kept]
    )


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    """A figure without pyplot, whose global state does not suit a long-lived server."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=95)  # a row of two is then as wide as the dialog
    return buffer.getvalue()


def legend(axis: Any) -> None:
    """Above the axes, where it hides nothing."""
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        fontsize=8,
        frameon=False,
        borderpad=0.1,
        reverse=True,
    )


def _readable(value: Any) -> Any:
    if value is None or value != value:  # noqa: PLR0124  not a number: the value is missing
        return ""
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}")
    return value.item() if isinstance(value, np.generic) else value
