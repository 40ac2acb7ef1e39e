"""Values that are a folder of files: the label database and the model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from upath import UPath

from io_managers.base import TypedIOManager
from mlip_assets.common.files import is_local


class FolderIOManager(TypedIOManager):
    """Calls ``save(folder)`` and ``open(folder)`` of the value; a remote folder is copied.

    The value writes each file atomically, and its ``commit_file`` last: a folder without that file
    is not complete.
    """

    value_type: ClassVar[type[Any]]
    suffix: ClassVar[str] = ""
    commit_file: ClassVar[str]

    def write(self, value: Any, path: UPath, contract: dict[str, Any]) -> None:
        """Save locally, or upload with the commit file last."""
        if is_local(path):
            value.save(Path(str(path)))
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            value.save(folder)
            files = sorted(folder.iterdir(), key=lambda file: file.name == self.commit_file)
            for file in files:
                (path / file.name).write_bytes(file.read_bytes())

    def read(self, path: UPath) -> Any:
        """Open the folder.

        Raises
        ------
        FileNotFoundError
            The commit file is missing: the folder is not complete.
        """
        if not (path / self.commit_file).exists():
            raise FileNotFoundError(f"{path} has no {self.commit_file}; materialize it again")
        if is_local(path):
            return self.value_type.open(Path(str(path)))
        # not removed before the process ends: the value refers to these files
        folder = Path(tempfile.mkdtemp(prefix="mlip-"))
        for file in path.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return self.value_type.open(folder)
