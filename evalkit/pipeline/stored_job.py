"""What a stored run was asked to do, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import RunFolderError
from evalkit.pipeline.options import RunOptions


def stored_job(
    manifest: Mapping[str, Any], path: Path, data_root: Path | None, offline: bool
) -> tuple[str, RunOptions]:
    """The task's name, and the flags that decide which samples were asked and how.

    Args:
        path: the run folder, for errors. data_root: takes the place of the run's own.

    Raises:
        RunFolderError: the manifest lacks something.
    """
    try:
        task, model = manifest["task"], manifest["model"]
        settings, selection = manifest["settings"], manifest["selection"]
        return str(task["name"]), RunOptions(
            model=str(model["spec"]),
            data_root=data_root or Path(manifest["data"]["root"]),
            split=str(task["split"]),
            protocol=str(task["protocol"]),
            limit=selection["limit"],
            sample_ids=tuple(selection["sample_ids"]),
            seed=int(selection["seed"]),
            gen=tuple(settings["gen"]),
            max_tiles=settings["max_tiles"],
            offline=offline,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path}: manifest.json lacks {error}; restore it") from None
