"""YAML as campaigns are written: a strict reader, and a writer that adds each setting's meaning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel


def read_yaml(text: str) -> Any:
    """Plain values of a YAML text.

    Raises
    ------
    yaml.YAMLError
        The text is not YAML, or a key is written twice in one mapping.
    """
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, stricter


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice (YAML keeps the last one silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def commented_yaml(section: BaseModel, indent: str = "") -> Iterator[str]:
    """Lines of YAML, one per setting, each with the description of its field as a comment."""
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            yield f"\n{indent}{key}:  # {(type(value).__doc__ or '').splitlines()[0]}"
            yield from commented_yaml(value, indent + "  ")
        else:
            yield f"{indent}{key}: {_flow(value)}  # {field.description}"


def _flow(value: Any) -> str:
    """One value on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    if isinstance(plain, float) and math.isfinite(plain):
        return repr(plain)
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).replace("\n...", "").strip()
