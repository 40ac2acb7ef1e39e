"""Decorators of Numba that keep the types of functions, and the identity of compiled code."""

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
    """A function called by compiled code, and compiled with its callers."""
    return cast("Function", numba.njit(error_model="numpy")(function))


def cached_entry(function: Function, *variant: object) -> Function:
    """A compiled function called by Python: it releases the GIL and is cached on disk.

    ``variant`` and the processor are part of its cache name. Numba numbers the cached versions of one
    name: two processes that cache different code at the same time may use the same number, and then
    load the code of the other.
    """
    name = [function.__name__, *variant, binding.get_host_cpu_name()]
    function.__qualname__ = "-".join(map(str, name))
    return cast("Function", numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def emitted(function: Callable[..., Any]) -> Any:
    """A Numba intrinsic: it emits code when its caller is compiled, with literal arguments.

    Its first argument is the typing context of Numba, not an argument of the caller.
    """
    return extending.intrinsic(prefer_literal=True)(function)


def hash_of(*modules: ModuleType) -> str:
    """SHA-256 of the source of modules and of the versions of the compiler."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
