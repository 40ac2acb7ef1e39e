"""``python -m mlip_assets`` is the command ``mlip``."""

from mlip_assets.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
