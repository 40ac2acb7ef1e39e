"""What is wrong with a campaign, as sentences: the key, the value and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError


class CampaignError(ValueError):
    """A campaign that cannot be run; the message lists every problem found, one per line."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """``; did you mean '…'?`` with the choice most similar to a word, or an empty text."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), list(by_lower), 1, cutoff=0.5)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence per problem: key, value, what is wrong, what to write.

    Parameters
    ----------
    error
        Raised by the validation of ``model``.
    model
        The settings that were validated; its fields give the known keys and their descriptions.
    """
    return [_sentence(problem, model) for problem in error.errors()]


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    key, value = ".".join(location), problem["input"]
    section = _section_at(location[:-1], model)
    field = section.model_fields.get(location[-1]) if section and location else None
    meaning = f" ({field.description})" if field and field.description else ""
    match problem["type"]:
        case "extra_forbidden":
            assert section is not None
            known = list(section.model_fields)
            return (
                f"{key}: unknown key{nearest(location[-1], known)}; known keys: {', '.join(known)}"
            )
        case "missing":
            return f"{key}: missing; add '{key}: …'{meaning}"
        case "value_error":
            prefix = f"{key}." if key else ""
            return prefix + str(problem["ctx"]["error"])
        case "literal_error":
            choices = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
            near = nearest(str(value), choices)
            return f"{key}: {value!r} is not possible{near}; choose from: {', '.join(choices)}"
        case "float_parsing" | "int_parsing" | "float_type" | "int_type" if _has_unit(value):
            number = str(value).split()[0]
            return f"{key}: {value!r} contains a unit{meaning}; write the number alone: {number}"
    return f"{key}: {value!r}: {problem['msg']}{meaning}"


def _has_unit(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"^\s*[-+0-9.eE]+\s+\S+", value) is not None


def _section_at(location: list[str], model: type[BaseModel]) -> type[BaseModel] | None:
    """The section of ``model`` at a path of keys; None where the path does not end at a section."""
    section = model
    for part in location:
        field = section.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return None
        if not issubclass(field.annotation, BaseModel):
            return None
        section = field.annotation
    return section
