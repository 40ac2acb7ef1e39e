"""What the sections share: their base class, common types, renamed keys and the fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
CampaignName = Annotated[str, Field(pattern=NAME_PATTERN)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class Section(BaseModel):
    """Settings that cannot be changed once they are checked; unknown keys are refused.

    A field with a ``serialization_alias`` had that name first. The first name is still read, and
    settings are hashed and stored under it, so that results computed before the renaming are found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_first_names(cls, written: Any) -> Any:
        """Replace the first name of a renamed key by its present name."""
        if not isinstance(written, dict):
            return written
        present = {first: key for key, first in cls._first_names().items()}
        for first, key in present.items():
            if first in written and key in written:
                raise ValueError(
                    f"{key}: given twice, as '{key}' and under its earlier name '{first}'; remove "
                    f"'{first}'"
                )
        return {present.get(key, key): value for key, value in written.items()}

    @classmethod
    def _first_names(cls) -> dict[str, str]:
        """First name of each renamed key."""
        return {
            key: field.serialization_alias
            for key, field in cls.model_fields.items()
            if field.serialization_alias is not None
        }

    @classmethod
    def renamed_keys(cls, written: Any) -> Iterator[tuple[str, str]]:
        """Earlier and present name of every renamed key that is written under its earlier name.

        Parameters
        ----------
        written
            Plain values, as read from YAML.

        Yields
        ------
        tuple[str, str]
            Both with the sections that contain them, such as ``refresh.error_gain``.
        """
        if not isinstance(written, dict):
            return
        for key, first in cls._first_names().items():
            if first in written:
                yield first, key
        for key, field in cls.model_fields.items():
            section = field.annotation
            if isinstance(section, type) and issubclass(section, Section):
                for first, present in section.renamed_keys(written.get(key)):
                    yield f"{key}.{first}", f"{key}.{present}"

    def stored(
        self, *, include: set[str] | None = None, exclude: set[str] | None = None
    ) -> dict[str, Any]:
        """Plain values under the keys that settings are hashed and stored under.

        Parameters
        ----------
        include, exclude
            Fields to take alone or to leave out, by their present names.
        """
        return self.model_dump(by_alias=True, include=include, exclude=exclude)


def fingerprint(*parts: Section | dict[str, Any]) -> str:
    """SHA-256 of settings in a canonical JSON form, independent of the order of keys."""
    plain = [part.stored() if isinstance(part, Section) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def require_distinct(section: Section, *keys: str, remedy: str = "list each once") -> None:
    """Raise a ``ValueError`` that names the first entry listed twice under one of the keys."""
    for key in keys:
        for entry, count in Counter(getattr(section, key)).items():
            if count > 1:
                raise ValueError(f"{key}: {entry} is listed twice; {remedy}")


def _yaml_bool_to_str(value: Any) -> Any:
    """YAML reads a bare ``off`` as false, and ``on`` as true."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


#: Makes a text that may be ``on`` or ``off`` readable from YAML without quotes.
OnOffText = BeforeValidator(_yaml_bool_to_str)
