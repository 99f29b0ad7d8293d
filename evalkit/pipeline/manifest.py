"""The manifest: what was asked, with every version, hash and setting that makes a value reproducible."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from evalkit import registry, task_files
from evalkit.contracts import Json, ModelInfo
from evalkit.data.images import file_digest
from evalkit.doors import cause
from evalkit.environment import git_revision, hardware, versions
from evalkit.errors import RunFolderError
from evalkit.pipeline.job import Job
from evalkit.pipeline.judge_options import without_password
from evalkit.pipeline.options import RunOptions, options_of, stored
from evalkit.pipeline.overrides import parse_gen
from evalkit.pipeline.repeats import seeds
from evalkit.request_form import without_secrets

FORMAT = 1


def now() -> str:
    """UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def build(job: Job, info: ModelInfo, options: RunOptions) -> dict[str, Json]:
    """The manifest of a new run."""
    _, extra = parse_gen(without_secrets(options.gen_items))
    return {
        "format": FORMAT,
        # microseconds keep runs of one second in the order they were made
        "created": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        "model": model_json(info, options.model),
        "task": {
            "name": job.task.name,
            "title": job.task.title,
            "version": job.task.version,
            "protocol": job.task.protocol,
            "scorer": job.task.scorer_version(),
            "split": job.split,
        },
        "includes": [
            {"path": str(path.resolve()), "hash": file_digest(path)}
            for file in registry.included_files()
            for path in task_files.sources(file)
        ],
        "data": data_json(job),
        "prompt": prompt_json(job),
        "selection": {
            "expected": len(job.samples),
            "limited": job.limited,
            "limit": options.limit if job.limited else None,
            "sample_ids": list(options.sample_ids),
            "seed": options.seed,
            "subset_seed": options.subset_seed,
            "repeats": job.repeats,
            "seeds": seeds(job.generation, job.repeats) if job.generation.temperature > 0 else None,
        },
        "settings": {
            "generation": dataclasses.asdict(job.generation),
            "image_policy": dataclasses.asdict(job.request(0).image_policy),
            "nonstandard": dict(job.nonstandard),
            "model_options": extra,
            "base_url": without_password(options.base_url) if options.base_url else None,
            **stored(options, "question"),
        },
        "judge": judge.to_json() if (judge := options.judge_options) else None,
        "versions": versions(),
        "git": git_revision(),
        "hardware": hardware(),
        "sessions": [],
        "outcome": None,
    }


def model_json(info: ModelInfo, spec: str) -> dict[str, Json]:
    """Identity of the model, and what was asked for."""
    content = dataclasses.asdict(info)
    return {**content, "settings": dict(info.settings), "notes": list(info.notes), "spec": spec}


def data_json(job: Job) -> dict[str, Json]:
    """Where the samples came from and their content hash."""
    return {
        "root": str(job.root.resolve()),
        "hash": job.data,
        "older_hash": job.older_data,
        "samples": len(job.every),
        "subset": job.subset,
    }


def prompt_json(job: Job) -> dict[str, Json]:
    """The task's own prompt hash, and a hash over every text that is sent."""
    return {"fingerprint": job.task.prompt_fingerprint(), "hash": job.prompts}


def session(info: ModelInfo, options: RunOptions) -> dict[str, Json]:
    """One stretch of generating into the folder, as it begins."""
    return {
        "started": now(),
        **stored(options, "place"),
        **stored(options, "computation"),
        "device": info.device,
        "engine": info.engine,
        "versions": versions(),
        "git": git_revision(),
        "hardware": hardware(),
    }


def stored_options(
    manifest: Mapping[str, Any], path: Path, data_root: Path | None, offline: bool
) -> tuple[str, RunOptions]:
    """What a stored run was asked: the task's name, and the options that decide questions and answers.

    Args:
        path: the run folder, for errors. data_root: takes the place of the run's own.

    Raises:
        RunFolderError: the manifest lacks something.
    """
    try:
        task, model = manifest["task"], manifest["model"]
        settings, selection = manifest["settings"], manifest["selection"]
        session = (manifest.get("sessions") or [{}])[-1]
        known: dict[str, Any] = {
            name: settings[name] for name in options_of(RunOptions, "question") if name in settings
        }
        known |= {
            name: session[entry.stored]
            for name, entry in options_of(RunOptions, "computation").items()
            if entry.stored in session
        }
        # as they were found to be: a default may be another one by now
        known |= {
            "split": str(task["split"]),
            "protocol": str(task["protocol"]),
            "limit": selection["limit"],
            "sample_id": tuple(selection["sample_ids"]),
            "seed": int(selection["seed"]),
            # one seed for both, before there were two
            "subset_seed": int(selection.get("subset_seed", selection["seed"])),
            "repeats": int(selection.get("repeats", 1)),
            "gen": tuple(settings["gen"]),
            "max_tiles": settings["max_tiles"],
            "data_root": data_root or Path(manifest["data"]["root"]),
        }
        options = RunOptions(model=str(model["spec"]), offline=offline, **known)
        options.check()
        return str(task["name"]), options
    except KeyError as error:
        raise RunFolderError(f"{path}: manifest.json lacks {error}; restore it") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunFolderError(f"{path}: manifest.json is not a run's ({cause(error)}); restore it") from None
