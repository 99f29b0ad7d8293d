"""MLflow: the server or folder of `MLFLOW_TRACKING_URI`, the experiment of `MLFLOW_EXPERIMENT_NAME`.

Without an address MLflow keeps runs in a database here; its slim package cannot, so that `mlruns` is taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from evalkit.contracts import Json
from evalkit.trackers.base import TrackedRun

#: The longest value of a parameter, and the tag by which a run is found again.
_LONGEST, _TAG = 500, "evalkit.run"


class MlflowTracker:
    """A run of MLflow; the whole configuration is its artifact `config.json`."""

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`. Raises ValueError where it would have to send and may not."""
        given = os.environ.get("MLFLOW_TRACKING_URI", "") or ("" if find_spec("sqlalchemy") else "mlruns")
        if given and (given.startswith("file:") or "://" not in given):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # who names a folder wants one
        import mlflow
        from mlflow.entities import Param

        if given and not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(given)
        address = mlflow.get_tracking_uri()
        if run.offline and address.startswith(("http:", "https:", "databricks")):
            raise ValueError(f"{address} is not here, and --offline is given")
        self._client: Any = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "evalkit")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        known = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        tags = {_TAG: run.id, **dict.fromkeys(run.tags, "yes")}
        started = known[0] if known else self._client.create_run(experiment, run_name=run.name, tags=tags)
        self._run = started.info.run_id
        old = dict(started.data.params)
        small = {key: str(value) for key, value in run.config.items() if isinstance(value, (str, int, float))}
        params = [Param(key, text[:_LONGEST]) for key, text in small.items() if key not in old]
        self._client.log_batch(self._run, params=params)
        self._client.log_dict(self._run, dict(run.config), "config.json")

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """See `Tracker.log`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, [Metric(name, value, now, step or 0) for name, value in values.items()]
        )

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
        """See `Tracker.table`; the artifact `NAME.json` in MLflow's form of tables."""
        content = {"columns": list(columns), "data": [list(row) for row in rows]}
        self._client.log_dict(self._run, content, f"{name}.json")

    def finish(self) -> None:
        """See `Tracker.finish`."""
        self._client.set_terminated(self._run)
