"""The library: what ``mlip_assets`` offers as a library, and the example of each function."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mlip_assets

FUNCTIONS = [name for name in mlip_assets.__all__ if name[0].islower()]
CLASSES = [name for name in mlip_assets.__all__ if name[0].isupper()]
#: What the library promises.
PROMISED = {
    "load_campaign",
    "build_seeds",
    "explore",
    "soap_power_spectrum",
    "direct_select",
    "measure_coverage",
    "label_frames",
    "fit_mace",
    "evaluate",
}
#: Functions whose example takes more than a few seconds.
SLOW = {"fit_mace"}
#: Packages that cost time to import.
HEAVY = ("ase", "dagster", "mace", "matplotlib", "numba", "numpy", "pandas", "pyarrow", "torch")
MAX_IMPORT_S = 0.05


def test_all_is_sorted_complete_and_defined():
    assert mlip_assets.__all__ == sorted(mlip_assets._PACKAGES)
    assert set(FUNCTIONS) >= PROMISED
    for name in mlip_assets.__all__:
        value = getattr(mlip_assets, name)
        package = importlib.import_module(f"mlip_assets.{mlip_assets._PACKAGES[name]}")
        assert value is getattr(package, name)
        assert name in package.__all__
        assert inspect.isclass(value) == (name in CLASSES)
        assert value.__doc__


def test_type_checker_and_interpreter_see_the_same_names():
    """The imports under TYPE_CHECKING are those that ``__getattr__`` makes."""
    tree = ast.parse(Path(mlip_assets.__file__).read_text(encoding="utf-8"))
    (guarded,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    typed = {
        alias.name: node.module.removeprefix("mlip_assets.")
        for node in guarded.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert typed == mlip_assets._PACKAGES


def test_dir_lists_names_before_their_first_use():
    listed = _python("import mlip_assets; print(*dir(mlip_assets))").split()
    assert set(listed) >= set(mlip_assets.__all__)


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'explode'"):
        mlip_assets.explode  # noqa: B018


def test_import_loads_no_heavy_package():
    loaded = _python("import sys, mlip_assets; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_import_takes_no_time():
    """CPU time, and the shortest of five, because other processes may run on this machine."""
    code = "from time import process_time as t; a = t(); import mlip_assets; print(t() - a)"
    assert min(float(_python(code)) for _ in range(5)) < MAX_IMPORT_S


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FUNCTIONS],
)
def test_example_in_docstring(name, tmp_path, monkeypatch):
    """The section ``Examples`` of each function, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    function = getattr(mlip_assets, name)
    module = sys.modules[function.__module__]
    finder = doctest.DocTestFinder(recurse=False)
    tests = [t for t in finder.find(function, name, module=module, globs={}) if t.examples]
    assert "Examples\n    --------" in (function.__doc__ or ""), f"{name} has no section Examples"
    assert tests, f"{name} has no example"
    messages: list[str] = []
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST
    )
    for test in tests:
        runner.run(test, out=messages.append)
    assert not runner.failures, "".join(messages)


def _python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
