"""The arguments of ``mlip``, its help, and its exit status: 0 done, 1 failed, 2 wrong input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from mlip_assets.campaign import CampaignError
from mlip_assets.cli import inspection, packaging, project, run, ui

DESCRIPTION = """\
From a campaign file to a trained MACE potential. A campaign is a short YAML file in the folder
campaigns/; results are written to data/. Start with `mlip init my-project`, then `mlip run
silicon` in that folder."""

EPILOG = """\
environment variables:
  MLIP_CAMPAIGNS  folder of the campaign files (default: campaigns)
  MLIP_DATA       folder of all results (default: data)
  DAGSTER_HOME    folder of dagster.yaml and of the history of runs (default: this folder)

exit status:
  0 done, 1 failed, 2 wrong input"""

#: Command -> its function of the campaign argument, one line of help, and a description.
CAMPAIGN_COMMANDS: dict[str, tuple[Callable[[str], int], str, str]] = {
    "run": (
        run.run_campaign,
        "run a campaign from seeds to a trained model",
        "Run all assets of a campaign. An interrupted run is resumed: finished work is not repeated.",
    ),
    "explore": (
        run.explore_campaign,
        "run a campaign up to the selected frames, without DFT",
        "Run the surrogate dynamics and the selection of frames, and stop before the first DFT "
        "calculation.",
    ),
    "refresh": (
        run.refresh_campaign,
        "run the next round of a campaign, unless it has converged",
        "Explore with the promoted model, label frames that the labels do not cover, and train "
        "again. Does nothing if the campaign has converged.",
    ),
    "check": (
        inspection.check_campaign,
        "check a campaign file and print the planned computation",
        "Read a campaign file, report the first error with the key and a fix, and print the number "
        "of walkers, frames and labels. Nothing is computed.",
    ),
    "show": (
        inspection.show_campaign,
        "print a campaign with all default values",
        "Print the campaign as complete YAML, with units. The output is a valid campaign file.",
    ),
    "package": (
        packaging.package_campaign,
        "write the promoted model, its card, exports and data to one folder",
        "Write data/<campaign>/package: the promoted model, its model card, a LAMMPS export, an ASE "
        "script and the labelled data.",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        The command line without the program name; None: that of this process.

    Returns
    -------
    int
        Exit status: 0 done, 1 failed, 2 wrong input.
    """
    given = _parser().parse_args(arguments)
    try:
        return int(given.function(given))
    except (CampaignError, project.ProjectError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlip",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mlip {version('mlip-autopipe')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    init = commands.add_parser(
        "init",
        help="write a new project folder",
        description="Write a project folder: campaigns/ with an example, dagster.yaml, "
        "workspace.yaml, .gitignore and README.md. Existing files are never replaced.",
    )
    init.add_argument("folder", type=Path, help="the new folder, or an existing one without these")
    init.set_defaults(function=lambda given: project.init_project(given.folder))

    for name, (function, line, description) in CAMPAIGN_COMMANDS.items():
        command = commands.add_parser(name, help=line, description=description)
        command.add_argument(
            "campaign", help="a name in campaigns/, or the path of a campaign file (.yaml)"
        )
        command.set_defaults(function=lambda given, run=function: run(given.campaign))

    show_ui = commands.add_parser(
        "ui",
        help="start the Dagster UI and daemon",
        description="Start the Dagster UI and daemon of the project in this folder, on 127.0.0.1. "
        "Ctrl-C stops both.",
    )
    show_ui.add_argument("--port", type=int, default=3000, help="port of the UI (default: 3000)")
    show_ui.set_defaults(function=lambda given: ui.start_ui(given.port))
    return parser
