"""What every benchmark of the paper has: published rows and a miniature, both found by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from evalkit.task import Reference, Task

#: Other harnesses by protocol name, with the commit whose whole path the protocol follows.
PINNED = {"vlmevalkit": "e8e78f0", "lmms-eval": "75571cf", "internvl": "2410d1d"}
#: `same_scorer` of a benchmark whose paper scorer is InternVL's.
INTERNVL_IS_PAPER = {"internvl": "paper"}


class PaperTask(Task):
    """A benchmark of the paper."""

    def scorer_version(self) -> str:
        """The harness's commit for a protocol named after one; otherwise see `Task.scorer_version`."""
        commit = PINNED.get(self.protocol)
        return f"{self.protocol}.{commit}" if commit else super().scorer_version()

    @property
    def published_rows(self) -> Sequence[Reference]:
        """Rows of the paper's tables."""
        from evalkit_tasks.published import references

        return references(self.name)


def drawn(name: str) -> Callable[[Path], None]:
    """What draws the miniature of the task `name`: `draw` of its module in `evalkit_tasks.miniatures`."""
    return partial(_draw, name.replace("-", "_"))


def _draw(module: str, folder: Path) -> None:
    import_module(f"evalkit_tasks.miniatures.{module}").draw(folder)
