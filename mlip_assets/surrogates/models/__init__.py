"""Surrogate models, one short module a kind.

To add one, say ``orb``:

1. ``mlip_assets/surrogates/models/orb.py``: a frozen dataclass derived from
   :class:`~mlip_assets.surrogates.surrogate.Surrogate` with ``elements()`` and ``build(device)``, and a
   function ``find(name, *, devices, dtype)`` that returns it or raises
   :class:`~mlip_assets.surrogates.surrogate.SurrogateError`. The program is imported inside functions.
2. Its name: in ``FINDERS`` of ``mlip_assets/surrogates/finding.py`` and in ``NAMED_SURROGATES`` of
   ``mlip_assets/campaign``, which checks campaign files without importing any model.
3. The program it needs: an extra in ``pyproject.toml``, pinned in ``constraints.txt``.
4. A test on its real weights in ``tests/surrogates``; ``surrogate_checks.py`` there has what every
   surrogate must pass.
"""
