"""Typed persistence: each IO manager stores one type of value, whole or not at all."""
