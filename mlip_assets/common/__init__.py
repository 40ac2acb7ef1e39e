"""Tools for every package: atomic files, child processes, progress, compilation. No science."""
