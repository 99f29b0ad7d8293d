"""Runs in experiment trackers: the real packages in their local modes, and trackers that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from toy import FakeFamily, make_benchmark

import evalkit
from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.contracts import Json
from evalkit.installation import install_command
from evalkit.trackers import base
from evalkit.trackers.base import TrackedRun


class Ground:
    """The toy benchmark, run by the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.task = make_benchmark(folder / "data")
        self.err = ""

    def run(self, *more: str) -> tuple[int, dict[str, Any]]:
        self.capsys.readouterr()
        fixed = ["-m", "fake", "-t", "yes-no", "--include", str(self.task), "--json"]
        fixed += ["--data-root", str(self.task.parent), "-o", str(self.folder / "runs")]
        status = invoke(["run", *fixed, *more])
        out, self.err = self.capsys.readouterr()
        return status, json.loads(out)["runs"][0] if out else {}


@pytest.fixture
def ground(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setattr(registry, "families", lambda: (FakeFamily(),))
    monkeypatch.setattr(registry, "_included", {})
    return Ground(tmp_path, capsys)


def expected_figures(run: dict[str, Any]) -> dict[str, float]:
    (name, metric), *_ = run["metrics"].items()
    low, high = metric["ci95"]
    found = {f"yes-no/{name}": metric["value"], f"yes-no/{name}.n": metric["n"]}
    return found | {
        f"yes-no/{name}.ci95_low": low,
        f"yes-no/{name}.ci95_high": high,
        "yes-no/counts.errors": 0,
    }


def test_mlflow_holds_manifest_figures_and_samples(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny (extra mlflow)")
    store = ground.folder / "mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "an experiment")
    mlflow.set_tracking_uri(store.as_uri())
    status, run = ground.run("--log-to", "mlflow", "--log-samples", "--offline")
    assert status == 0 and "log-to" not in ground.err, ground.err
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("an experiment")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert expected_figures(run).items() <= stored.data.metrics.items()
    assert (
        stored.data.params["task"] == "yes-no" and stored.data.params["signature"] == run["signature"][:500]
    )
    assert stored.info.status == "FINISHED"
    (figure, *_) = client.get_metric_history(stored.info.run_id, next(iter(expected_figures(run))))
    assert 0 <= time.time() - figure.timestamp / 1000 < 600
    (config,) = store.rglob("config.json")
    manifest = json.loads((Path(run["run"]) / "manifest.json").read_text())
    assert json.loads(config.read_text())["manifest"] == manifest
    (table,) = (json.loads(path.read_text()) for path in store.rglob("samples.json"))
    assert table["columns"][:4] == ["id", "question", "text", "target"] and len(table["data"]) == 20
    status, again = ground.run("--log-to", "mlflow")
    assert again["run"] == run["run"] and len(client.search_runs([experiment.experiment_id])) == 1
    assert len(list(store.rglob("samples.json"))) == 1


def test_mlflow_without_an_address_takes_a_folder(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny (extra mlflow)")
    monkeypatch.setattr("evalkit.trackers.mlflow_tracker.find_spec", lambda name: None)  # the slim package
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    mlflow.set_tracking_uri("")
    monkeypatch.chdir(ground.folder)
    status, _ = ground.run("--log-to", "mlflow")
    assert status == 0 and "log-to" not in ground.err, ground.err
    assert list(ground.folder.glob("mlruns/*/*/metrics/*"))
    mlflow.set_tracking_uri("")


def test_tensorboard_holds_figures_and_samples(ground: Ground) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    status, run = ground.run("--log-to", "tensorboard", "--log-samples")
    assert status == 0, ground.err
    stored = events.EventAccumulator(str(Path(run["run"]) / "tensorboard")).Reload()
    for name, value in expected_figures(run).items():
        assert stored.Scalars(name)[0].value == pytest.approx(value)
    (text,) = stored.Tensors("samples/text_summary")
    assert b"| id | question |" in text.tensor_proto.string_val[0]


def test_wandb_offline(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb (extra wandb)")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    status, run = ground.run("--log-to", "wandb", "--log-samples", "--offline")
    assert status == 0 and "log-to" not in ground.err, ground.err
    assert list(Path(run["run"]).glob("wandb/offline-run-*/*.wandb"))


def test_trackio(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(ground.folder / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="needs trackio (extra trackio)")
    status, _ = ground.run("--log-to", "trackio", "--log-samples")
    assert status == 0 and "log-to" not in ground.err, ground.err
    assert list((ground.folder / "trackio").rglob("*.db"))


class Recorder:
    """A tracker of a plug-in, which fails where it is told to."""

    fails_at = ""
    calls: list[tuple[str, Any]] = []  # noqa: RUF012

    def start(self, run: TrackedRun) -> None:
        self._did("start", run)

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._did("log", dict(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
        self._did("table", len(rows))

    def finish(self) -> None:
        self._did("finish", None)

    def _did(self, what: str, content: Any) -> None:
        if what == self.fails_at:
            raise ConnectionError("nobody there")
        print("on stdout, where the document of --json stands")
        self.calls.append((what, content))


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    point = EntryPoint("ours", f"{__name__}:Recorder", base.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Recorder)
    monkeypatch.setattr(base, "entry_points", lambda **_: (point,))
    monkeypatch.setattr(Recorder, "calls", [])
    monkeypatch.setattr(Recorder, "fails_at", "")
    return Recorder


def test_a_tracker_of_a_plug_in(plugin: type[Recorder], ground: Ground) -> None:
    status, run = ground.run("--log-to", "ours", "--offline")
    assert status == 0 and [name for name, _ in plugin.calls] == ["start", "log", "finish"]
    (_, told), (_, values), _ = plugin.calls
    assert told.offline and told.id == Path(run["run"]).name and told.config["manifest"]["task"]
    assert expected_figures(run).items() <= values.items()


@pytest.mark.parametrize("place", ["start", "log", "table", "finish"])
def test_a_tracker_that_fails_stops_nothing(place: str, plugin: type[Recorder], ground: Ground) -> None:
    plugin.fails_at = place
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    status, run = ground.run("--log-to", "ours,tensorboard", "--log-samples")
    assert status == 0 and run["status"] == "complete"
    assert ground.err.count("--log-to ours: ConnectionError: nobody there") == 1
    assert list(Path(run["run"]).glob("tensorboard/events*"))  # the other one goes on
    assert place not in [name for name, _ in plugin.calls]


def test_what_is_not_there_is_refused_before_any_work(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ground.run("--log-to", "mlflo")[0] == 2 and "nearest: mlflow" in ground.err
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    assert ground.run("--log-to", "wandb")[0] == 2 and install_command("wandb") in ground.err
    assert not (ground.folder / "runs").exists()


def test_from_python(ground: Ground, plugin: type[Recorder]) -> None:
    result = evalkit.run(
        "fake", "yes-no", include=ground.task, data_root=ground.task.parent, output=ground.folder / "r",
        log_to=["ours"], log_samples=True, quiet=True,
    )  # fmt: skip
    assert ("table", 20) in plugin.calls and result.status == "complete"
