"""Chemical elements and formulas, as a campaign names them."""

from __future__ import annotations

from collections.abc import Iterable

from ase.data import atomic_numbers
from ase.formula import Formula

from mlip_assets.campaign.messages import nearest

#: Symbols of all elements, H to Og; ASE's X is none.
_SYMBOLS = tuple(symbol for symbol, number in atomic_numbers.items() if number > 0)


def first_unknown(symbols: Iterable[str]) -> str | None:
    """The first of some symbols that is not a chemical element; None if all are elements."""
    return next((symbol for symbol in symbols if symbol not in _SYMBOLS), None)


def nearest_element(word: str) -> str:
    """``; did you mean '…'?`` with the element most similar to a word, or an empty text."""
    return nearest(word, _SYMBOLS)


def count_elements(composition: str) -> dict[str, int]:
    """Atoms of each element in one formula unit.

    Raises
    ------
    ValueError
        The text is not a chemical formula, or a symbol in it is not an element.
    """
    try:
        counts = Formula(composition).count()
    except ValueError:
        counts = {}
    unknown = first_unknown(counts)
    if counts and unknown is None:
        return dict(counts)
    wrong = unknown or composition
    raise ValueError(
        f"composition: '{wrong}' is not a chemical element or formula{nearest_element(wrong)}; "
        "write a formula such as Si, NaCl or Cu3Au"
    )
