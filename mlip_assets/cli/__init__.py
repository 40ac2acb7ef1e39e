"""The command ``mlip``, also ``python -m mlip_assets``: one module per group of commands.

:mod:`run` starts Dagster runs (``run``, ``explore``, ``refresh``), :mod:`inspection` reads a campaign
(``check``, ``show``), :mod:`packaging` writes the package of a promoted model, :mod:`project` writes
and locates a project folder (``init``), :mod:`ui` starts the Dagster UI. A new command is one function
in one of these modules and one entry in :mod:`parser`.
"""

from mlip_assets.cli.parser import main

__all__ = ["main"]
