"""What the installation is called, and the command that adds an extra to it.

The package on an index is `mini-internvl-evalkit`; `evalkit` there is somebody else's. In a checkout, the
command is that of an editable installation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

#: Read by pyproject.toml too.
VERSION = "0.1.0"
DISTRIBUTION = "mini-internvl-evalkit"

#: Modules by the extra that installs them, the one to name for a module first (tests/test_dependencies.py
#: compares it with pyproject.toml).
EXTRAS: dict[str, tuple[str, ...]] = {
    "api": ("httpx2", "openai"),
    "leaderboard": ("altair", "duckdb", "streamlit"),
    "mlflow": ("mlflow",),
    "notebook": ("IPython",),
    "ray": ("ray",),
    "train": ("accelerate", "peft", "tensorboard", "yaml"),
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "video": ("av",),
    "wandb": ("wandb",),
}

_ROOT = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """The folder of the checkout that this code runs from, or None for an installed wheel."""
    return _ROOT if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "tests").is_dir() else None


def install_command(extra: str = "") -> str:
    """The command that adds an extra (or evalkit itself) to this installation, ready to paste."""
    quote = '"' if os.name == "nt" else "'"  # cmd knows no single quotes
    wanted = f"[{extra}]" if extra else ""
    root = checkout()
    if root is None:
        name = f"{DISTRIBUTION}{wanted}"
        return f"pip install {quote}{name}{quote}" if wanted else f"pip install {name}"
    place = "." if root == Path.cwd().resolve() else str(root)
    return f"pip install -e {quote}{place}{wanted}{quote}"


def fix_for(module: str) -> str:
    """The command that installs a missing module: its extra, or the package of its name."""
    top = module.partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if top in modules), None)
    return install_command(extra) if extra else f"pip install {top}"


def missing(extra: str, find: Callable[[str], object] = find_spec) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra] if find(module) is None]


def namesake() -> str | None:
    """Name and version of another installed distribution whose files lie in `evalkit/` too, or None."""
    try:
        found = distribution("evalkit")
    except PackageNotFoundError:
        return None
    return None if _is_ours(found) else f"{found.metadata['Name']} {found.version}"


def _is_ours(found: Distribution) -> bool:
    return any(point.group == "evalkit.tasks" for point in found.entry_points)
