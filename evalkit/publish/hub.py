"""What is uploaded to the Hugging Face Hub, listed first, and the upload itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit.data.images import contents_digest
from evalkit.errors import CheckpointError, EvalkitError, UsageError
from evalkit.publish.cards import Training, model_card, results_card

if TYPE_CHECKING:
    from evalkit.pipeline.results import RunResult

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_RUN_FILES = ("manifest.json", "summary.json", "records.parquet")
#: Of a checkpoint's folder: what a model is made of. Pickles and what only training reads stay at home.
_MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "README.md", "LICENSE*")


@dataclass(frozen=True)
class Upload:
    """A repository and its files.

    Attributes:
        repository: OWNER/NAME. kind: of the repository.
        files: path in the repository to what is sent, a file or a text.
    """

    repository: str
    kind: Literal["model", "dataset"]
    files: Mapping[str, Path | str]

    def listing(self) -> list[str]:
        """A line a file, with its bytes."""
        sizes = {name: _size(content) for name, content in self.files.items()}
        lines = [f"{size:>15,}  {name}" for name, size in sizes.items()]
        return [*lines, f"{sum(sizes.values()):>15,}  bytes to the {self.kind} {self.repository}"]


def plan_upload(paths: Sequence[Path], repository: str, licence: str | None) -> Upload:
    """What `evalkit push` would send.

    Args:
        paths: run folders; or one checkpoint, and run folders whose scores go onto its card.
        repository: OWNER/NAME.
        licence: for a checkpoint's card.

    Raises:
        UsageError: no such name of a repository, two checkpoints, or a run that is not finished.
        CheckpointError: a folder is neither a run nor a checkpoint, or a run is of other weights.
        RunFolderError: a run is broken or not scored.
    """
    from evalkit.pipeline.results import load_run

    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"--to {repository}: give OWNER/NAME, letters, digits, '.', '-' and '_'")
    checkpoints = [path for path in paths if not (path / "manifest.json").is_file()]
    if len(checkpoints) > 1:
        raise UsageError(f"{checkpoints[1]}: one checkpoint at a time")
    runs = [load_run(path) for path in paths if path not in checkpoints]
    if waiting := [run for run in runs if run.status in ("running", "failed")]:
        raise UsageError(f"{waiting[0].path}: is {waiting[0].status}; only finished runs are published")
    if checkpoints:
        return _checkpoint(checkpoints[0], repository, runs, licence)
    return _results(runs, repository)


def upload(plan: Upload, *, private: bool) -> str:
    """Send everything in one commit; the repository is made if it is not there.

    Returns:
        The address of the commit.

    Raises:
        EvalkitError: not logged in, no right to write, or no network; nothing was changed then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    operations = [
        CommitOperationAdd(name, content.encode() if isinstance(content, str) else str(content))
        for name, content in plan.files.items()
    ]
    try:
        api.create_repo(plan.repository, repo_type=plan.kind, private=private or None, exist_ok=True)
        commit = api.create_commit(
            plan.repository, operations, commit_message="Upload by evalkit push", repo_type=plan.kind
        )
    except Exception as error:  # the client raises many kinds
        cause = " ".join(str(error).split())[:300]
        failed = EvalkitError(
            f"{plan.repository}: nothing was published ({type(error).__name__}: {cause}); log in with "
            "`hf auth login` or set HF_TOKEN, and run the same command again"
        )
        failed.exit_code = 3
        raise failed from error
    return str(commit.commit_url)


def _results(runs: Sequence[RunResult], repository: str) -> Upload:
    files: dict[str, Path | str] = {}
    places: list[str] = []
    for run in runs:
        place = _place(run)
        if place in places:
            raise UsageError(f"{run.path}: another run is published as {place} already; give one of the two")
        places.append(place)
        files |= {f"{place}/{name}": run.path / name for name in _RUN_FILES if (run.path / name).is_file()}
    return Upload(repository, "dataset", {"README.md": results_card(repository, runs, places), **files})


def _place(run: RunResult) -> str:
    task = run.manifest["task"]
    names = (str(run.summary["model"]), f"{task['name']}-{task['split']}", run.path.name)
    return "/".join(re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run" for name in names)


def _checkpoint(folder: Path, repository: str, runs: Sequence[RunResult], licence: str | None) -> Upload:
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder}: neither a run folder (manifest.json) nor a checkpoint (config.json)"
        )
    paths = {path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    weights = sorted(path for path in paths if path.suffix == ".safetensors")
    if not weights:
        raise CheckpointError(f"{folder}: holds no *.safetensors; there is no model to publish")
    digest = contents_digest(weights) if runs else None  # as manifests hold it
    if others := [run for run in runs if run.manifest["model"].get("weights") != digest]:
        raise CheckpointError(
            f"{others[0].path}: is a run of other weights ({others[0].manifest['model'].get('name')}) than "
            f"those of {folder}; evaluate this checkpoint, or leave the run out"
        )
    files: dict[str, Path | str] = {path.name: path for path in sorted(paths)}
    if "README.md" not in files:
        files["README.md"] = model_card(repository, _training(folder), runs, licence)
    elif runs:
        raise UsageError(
            f"{folder}: has a README.md, which would be published as it is; remove it, and a card with the "
            "scores is written, or leave the runs out"
        )
    return Upload(repository, "model", files)


def _training(folder: Path) -> Training | None:
    """Of the training whose `final/` or step folder this is."""
    states = (folder / "training/state.json", folder.parent / "latest/training/state.json")
    if (state := next((path for path in states if path.is_file()), None)) is None:
        return None
    try:
        content: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
        recipe = dict(content["recipe"])
        return Training(
            base=recipe.get("model"),
            settings=recipe,
            data=sorted(content["data"]),
            steps=int(content["step"]),
            samples=int(content["samples"]),
        )
    except Exception as error:
        raise CheckpointError(
            f"{state}: cannot be read ({error}); the card takes the recipe from it"
        ) from None


def _size(content: Path | str) -> int:
    return len(content.encode()) if isinstance(content, str) else content.stat().st_size
