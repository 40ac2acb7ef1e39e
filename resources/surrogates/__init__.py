"""Surrogate models, one short module a kind.

To add one, say ``orb``:

1. ``resources/surrogates/orb.py``: a frozen dataclass derived from
   :class:`~resources.surrogates.base.Surrogate` with ``elements()`` and ``build(device)``, and a
   function ``find(name, *, devices, dtype)`` that returns it or raises
   :class:`~resources.surrogates.base.SurrogateError`. The program is imported inside functions.
2. Its name: in ``FINDERS`` of ``resources/surrogate.py`` and in ``NAMED_SURROGATES`` of
   ``mlip_assets/campaign.py``, which checks campaign files without importing any model.
3. The program it needs: an extra in ``pyproject.toml``, pinned in ``constraints.txt``.
4. A test on its real weights in ``tests/resources``; ``surrogate_checks.py`` there has what every
   surrogate must pass.
"""
