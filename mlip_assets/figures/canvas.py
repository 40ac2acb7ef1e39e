"""Canvas of a picture without pyplot, tables, rounded numbers, and their form as metadata."""

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

#: Rows shown of a long table; the stored file has all.
TABLE_ROWS = 100
#: Significant figures of a number by itself, and of numbers that are compared in a table.
FIGURES, TABLE_FIGURES = 3, 5
#: Colours that people with any colour vision can distinguish (P. Tol, "muted").
COLOURS = (
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#44AA99", "#882255", "#999933",
    "#AA4499",
)  # fmt: skip


def markdown(picture: bytes) -> dg.MetadataValue:
    """A picture that the UI opens in a dialog."""
    encoded = base64.b64encode(picture).decode()
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{encoded})")


def table(
    rows: Iterable[dict[str, Any]] | pd.DataFrame, max_rows: int = TABLE_ROWS
) -> dg.MetadataValue:
    """The first rows of a table, with rounded numbers; None is an empty cell."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        shown = rows.head(max_rows).astype(object)
        rows = shown.where(shown.notna(), None).to_dict("records")
    kept = list(islice(rows, max_rows))
    if not kept:
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    key: "" if value is None else rounded(value, TABLE_FIGURES)
                    for key, value in row.items()
                }
            )
            for row in kept
        ]
    )


def rounded(value: Any, figures: int = FIGURES) -> Any:
    """``value`` with its numbers rounded to significant figures, as plain Python numbers.

    The integer part of a number keeps all digits: 0.36574 is 0.366, 12.345 is 12.3 and 1046.11 is
    1046. Dictionaries, lists and tuples are rounded item by item.
    """
    if isinstance(value, dict):
        return {key: rounded(item, figures) for key, item in value.items()}
    if type(value) in (list, tuple):  # Dagster's own values are named tuples
        return [rounded(item, figures) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{figures}g}" if abs(value) < 10**figures else f"{value:.0f}")
    return value.item() if isinstance(value, np.generic) else value


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    """A figure without pyplot, whose global state does not suit a server process."""
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
    """Draw the legend above the axes, where it covers no data."""
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        fontsize=8,
        frameon=False,
        borderpad=0.1,
        reverse=True,
    )
