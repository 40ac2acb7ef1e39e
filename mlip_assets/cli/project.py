"""A project folder: what ``mlip init`` writes, and where the commands read and write."""

from __future__ import annotations

import os
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

#: File of the package -> its path in a project.
TEMPLATE = {
    "campaigns/silicon.yaml": "campaigns/silicon.yaml",
    "dagster.yaml": "dagster.yaml",
    "workspace.yaml": "workspace.yaml",
    "gitignore": ".gitignore",
    "README.md": "README.md",
}


class ProjectError(ValueError):
    """A project folder cannot be written or used; the message names the file and a fix."""


def init_project(folder: Path) -> int:
    """Write a project folder with an example campaign.

    Raises
    ------
    ProjectError
        ``folder`` is a file, has one of the files already, or cannot be written. Nothing is written
        in the first two cases.
    """
    targets = {source: folder / path for source, path in TEMPLATE.items()}
    if folder.exists() and not folder.is_dir():
        raise ProjectError(f"{folder} is a file; give the name of a folder")
    for target in [folder / "campaigns", *targets.values()]:
        if target.exists() or target.is_symlink():
            raise ProjectError(
                f"{target} exists already and is not replaced; give a new folder, or move it away"
            )
    try:
        for source, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_template(source).read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise ProjectError(f"{folder} cannot be written: {error.strerror}") from error
    print(f"wrote {folder}: {', '.join(TEMPLATE.values())}")
    print(f"next: cd {folder} && mlip check silicon && mlip run silicon")
    return 0


def campaigns_folder() -> Path:
    """Folder of the campaign files: ``MLIP_CAMPAIGNS``, or ``campaigns`` in the working folder."""
    return Path(os.environ.get("MLIP_CAMPAIGNS", "campaigns"))


def data_folder() -> Path:
    """Absolute folder of all results: ``MLIP_DATA``, or ``data`` in the working folder."""
    return Path(os.environ.get("MLIP_DATA", "data")).absolute()


def set_environment(campaigns: Path | None = None) -> Path:
    """Set, for this process and those it starts, the folders of the project as absolute paths.

    Parameters
    ----------
    campaigns
        Folder of the campaign files; None: :func:`campaigns_folder`.

    Returns
    -------
    Path
        ``DAGSTER_HOME``: the working folder, unless the variable is set.

    Raises
    ------
    ProjectError
        ``DAGSTER_HOME`` is not a folder.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or Path.cwd()).absolute()
    if not home.is_dir():
        raise ProjectError(
            f"DAGSTER_HOME: {home} is not a folder; create it, or unset the variable to use the "
            "working folder"
        )
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["MLIP_CAMPAIGNS"] = str((campaigns or campaigns_folder()).absolute())
    os.environ["MLIP_DATA"] = str(data_folder())
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # walkers and labels run in parallel
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    return home


def _template(name: str) -> Traversable:
    return files("mlip_assets.cli").joinpath("template").joinpath(*name.split("/"))
