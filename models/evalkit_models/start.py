"""The console script. It stands outside the package `evalkit`, which another distribution can overwrite.

`evalkit` on the package index is a stranger's library. Installed beside this project it replaces
`evalkit/__init__.py`, or hides a checkout altogether; then the command says so instead of failing anywhere.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_REINSTALL = "pip install --force-reinstall --no-deps mini-internvl-evalkit"


def overwritten() -> str | None:
    """One line that names the other package and the fix, or None if `evalkit` is this project's."""
    spec = find_spec("evalkit")
    if spec is None or spec.origin is None:
        return f"the package evalkit is missing: {_REINSTALL}"
    origin = Path(spec.origin)
    if b"Evaluation harness: asks benchmarks" in origin.read_bytes()[:200]:
        return None
    in_checkout = (Path(__file__).resolve().parents[2] / "pyproject.toml").is_file()
    again = "" if in_checkout else f", then {_REINSTALL}"
    return (
        f"{origin.parent}: another distribution named evalkit has overwritten this package: "
        f"pip uninstall -y evalkit{again}"
    )


def main() -> None:
    """Run the command line."""
    if (cause := overwritten()) is not None:
        print(f"evalkit: error: {cause}", file=sys.stderr)
        sys.exit(3)
    import_module("evalkit.cli.main").main()
