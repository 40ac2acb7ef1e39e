"""Numba's decorators with the types of what they decorate, and the identity of compiled code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import llvmlite
import numba
from llvmlite import binding
from numba import extending

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """A function that compiled code calls; it is compiled along with its callers."""
    return cast("Function", numba.njit(error_model="numpy")(function))


def cached_entry(function: Function, *variant: object) -> Function:
    """A compiled function for Python to call: without the interpreter's lock, and kept on disk.

    ``variant`` and the processor are part of the name it is kept by. Numba numbers what it keeps by
    one name: two processes that keep different code at the same time may take the same number, and
    from then on run each other's code.
    """
    name = [function.__name__, *variant, binding.get_host_cpu_name()]
    function.__qualname__ = "-".join(map(str, name))
    return cast("Function", numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def emitted(function: Callable[..., Any]) -> Any:
    """A function that emits its code while its caller is compiled, given the constants it takes.

    The first of its arguments is Numba's, not the caller's.
    """
    return extending.intrinsic(prefer_literal=True)(function)


def hash_of(*modules: ModuleType) -> str:
    """Hash of the source of modules, and of the versions of the compiler."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
