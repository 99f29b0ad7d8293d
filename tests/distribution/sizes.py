"""Packages and megabytes of the default installation and of each extra: the table of docs/install.md.

Reads the metadata of the environment it runs in, which must hold all extras.
"""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from evalkit.installation import DISTRIBUTION, EXTRAS


def closure(name: str, extra: str = "") -> dict[str, Distribution]:
    """A distribution and everything that it needs, by name."""
    found: dict[str, Distribution] = {}
    left = [(name, extra)]
    seen = set(left)
    while left:
        now, wanted = left.pop()
        try:
            found[now] = distribution(now)
        except PackageNotFoundError:
            print(f"not installed, and not counted: {now}")
            continue
        for text in found[now].requires or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": wanted}):
                for part in ("", *need.extras):
                    step = (need.name.lower().replace("_", "-"), part)
                    if step not in seen:
                        seen.add(step)
                        left.append(step)
    return found


def megabytes(found: dict[str, Distribution]) -> float:
    """Of the installed files."""
    paths = {Path(str(file.locate())) for item in found.values() for file in item.files or ()}
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    """Print the table."""
    core = closure(DISTRIBUTION)
    print(f"| default | {len(core) - 1} | {megabytes(core):.0f} |")
    for extra in (*EXTRAS, "docs"):
        found = {**closure(DISTRIBUTION, extra)}
        added = {name: item for name, item in found.items() if name not in core}
        print(f"| `{extra}` | {len(added)} | {megabytes(added):.0f} |")
    ten = sorted(((megabytes({name: item}), name) for name, item in core.items()), reverse=True)[:10]
    print("largest of the default:", ", ".join(f"{name} {size:.0f}" for size, name in ten))


if __name__ == "__main__":
    main()
