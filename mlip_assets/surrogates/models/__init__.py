"""Surrogate models, one short module per kind.

To add one, for example ``orb``:

1. ``mlip_assets/surrogates/models/orb.py``: a frozen dataclass derived from
   :class:`~mlip_assets.surrogates.surrogate.Surrogate` with ``distribution``, ``elements()``,
   ``build(device)`` and, if it is known, the ``licence()`` of the weights. A function
   ``find(name, *, devices, dtype)`` returns it or raises
   :class:`~mlip_assets.surrogates.surrogate.SurrogateError`. The package is imported inside
   functions.
2. Its name: in ``FINDERS`` of ``mlip_assets/surrogates/registry.py``, and in ``NAMED_SURROGATES`` of
   ``mlip_assets/campaign/settings/exploration.py``, which checks campaign files without importing
   any model.
3. The package it needs: an extra in ``pyproject.toml``, pinned in ``constraints.txt``.
4. A test on its real weights in ``tests/surrogates``; ``surrogate_checks.py`` there has the checks
   for every surrogate.
"""
