"""Real Ray processes that are killed, lost, hang or run out of memory: the run ends as an undisturbed one."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_runs import SAMPLES, Ground, answered_once, expected, plain, stored, until
from puppet import install, write_wishes

from evalkit.contracts import ModelOptions
from evalkit.engines.base import LoadModel
from evalkit.errors import EvalkitError
from evalkit.pipeline import run as workflow
from evalkit.pipeline.results import RunResult

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Cluster:
    """Three nodes on this machine with a core each, and a pool whose model can be told to misbehave."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster as Nodes

        from evalkit.engines import ray_nodes

        self.wishes = folder / "wishes.json"
        self.spec = f"puppet:{self.wishes}"
        self.wish()
        self.nodes = patiently(Nodes, initialize_head=True, head_node_args={"num_cpus": 1})
        for _ in range(2):
            self.add_node()
        ray_nodes.connect(self.nodes.address)
        self._pool: Any = None

    @property
    def pool(self) -> Any:
        """A pool with three workers."""
        if self._pool is None:
            self._pool = make_pool(self.spec)
        self.ready(3)
        return self._pool

    def add_node(self, **variables: str) -> Any:
        """Another node with a core."""
        return patiently(self.nodes.add_node, num_cpus=1, env_vars=variables)

    def wish(self, **wishes: str) -> None:
        """What the model does from now on."""
        write_wishes(self.wishes, **wishes)

    def ready(self, workers: int) -> None:
        """Wait until so many workers have loaded."""
        actors, events = self._pool._actors, self._pool._events
        until(lambda: list(events()) or sum(w.state != "loading" for w in actors.workers.values()) >= workers)

    def close_pool(self) -> None:
        """Give the cores back."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def close(self) -> None:
        """End everything."""
        self.close_pool()
        ray.shutdown()
        self.nodes.shutdown()


def patiently(start: Callable[..., Any], left: int = 2, **settings: Any) -> Any:
    """Ray gives a node thirty seconds to start, which a busy machine may exceed."""
    try:
        return start(**settings)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
    if not left:
        pytest.skip("this machine is too busy: Ray did not start a node within its half minute, three times")
    return patiently(start, left - 1, **settings)


def make_pool(spec: str) -> Any:
    """A pool with a core for each worker."""
    from evalkit.engines.ray_engine import RayEngine, RayOptions

    return RayEngine(LoadModel(spec, ModelOptions()), RayOptions(cores=1))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of all tests; this process is connected to its first node."""
    from evalkit.engines import ray_nodes

    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", install(folder / "plugin"))
        ray_nodes.import_ray()
        made = Cluster(folder)
        try:
            yield made
        finally:
            made.close()


def disturbed(ground: Ground, pool: Any, disturb: Callable[[], None], answers: int = 6) -> RunResult:
    """A run that is disturbed when it has some answers; Ray's nodes are started in the main thread only."""
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(workflow.run_task, "yes-no", pool, ground.options())
        until(lambda: run.done() or stored(ground.folder) >= answers)
        assert not run.done() or run.result() is None
        disturb()
        return run.result()


def workers(path: Path | str) -> dict[str, Any]:
    """What the manifest says of the workers of the last session."""
    found: dict[str, Any] = json.loads((Path(path) / "manifest.json").read_text())["sessions"][-1]["workers"]
    return found


def test_a_killed_actor_costs_nothing(
    cluster: Cluster, ground: Ground, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = cluster.pool
    monkeypatch.setattr(pool, "_options", dataclasses.replace(pool._options, ship=True))
    cluster.wish(delay="0.05")
    victim = list(pool._actors.workers.values())[1]
    result = disturbed(ground, pool, lambda: os.kill(victim.process, signal.SIGKILL))
    assert plain(result.path) == expected()
    answered_once(result)
    assert f"{victim.name} is lost: its process died" in caplog.text
    told = workers(result.path)
    assert told["workers_lost"] == 1 and told["pictures_sent"] and len(told["nodes"]) == 3
    assert sum(node["samples"] for node in told["nodes"].values()) == SAMPLES
    assert all(0 <= node["utilisation"] <= 1 for node in told["nodes"].values())
    assert [path.name for path in Path(result.path).glob("responses-*")] == ["responses-ray.jsonl"]


def test_nodes_leave_and_join(cluster: Cluster, ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    pool = cluster.pool
    cluster.wish(delay="2")
    added: list[Any] = []

    def exchange() -> None:
        leaving = next(iter(cluster.nodes.worker_nodes))
        cluster.nodes.remove_node(leaving, allow_graceful=False)
        added.append(cluster.add_node())
        until(lambda: any(place[0] == added[0].node_id for place in pool._actors.workers))
        cluster.wish()

    result = disturbed(ground, pool, exchange)
    assert plain(result.path) == expected()
    answered_once(result)
    assert "its node" in caplog.text


def test_a_hanging_actor_is_replaced(
    cluster: Cluster, ground: Ground, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = cluster.pool
    monkeypatch.setattr(pool, "_options", dataclasses.replace(pool._options, timeout=6.0))
    cluster.wish(hang="50", once=str(ground.folder))
    result = workflow.run_task("yes-no", pool, ground.options())
    assert plain(result.path) == expected()
    answered_once(result)
    assert "gave no answer for 6 s" in caplog.text


def test_an_actor_out_of_memory_is_replaced(
    cluster: Cluster, ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    pool = cluster.pool
    cluster.wish(burst="50", once=str(ground.folder))
    result = workflow.run_task("yes-no", pool, ground.options())
    assert plain(result.path) == expected()
    answered_once(result)
    assert "MemoryError" in caplog.text


def test_a_group_that_kills_three_actors_fails_and_the_run_goes_on(
    cluster: Cluster, ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    pool = cluster.pool
    before = pool._actors.lost
    cluster.wish(kill="50")
    result = workflow.run_task("yes-no", pool, ground.options())
    assert plain(result.path) == expected(failed={48, 49, 50, 51})
    (message,) = {record.error.message for record in result.stored.records() if record.error}
    assert message.startswith("its group cost 3 workers, the last: worker 0 on ")
    assert "its process died" in message
    killed = caplog.text.count("is lost: its process died")
    assert killed == 3  # besides, an actor may be out of reach for a moment where the machine is busy
    assert workers(result.path)["workers_lost"] - before >= killed


def test_actors_that_differ_or_cannot_load_are_refused_by_name(
    cluster: Cluster, ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    pool = cluster.pool
    cluster.wish()
    odd = cluster.add_node(PUPPET_WEIGHTS="ff")
    refusing = cluster.add_node(PUPPET_REFUSES="1")
    until(lambda: list(pool._events()) or len(pool._actors.refused) == 2)
    result = workflow.run_task("yes-no", pool, ground.options())
    for node in (odd, refusing):
        cluster.nodes.remove_node(node)
    assert plain(result.path) == expected()
    refused = workers(result.path)["workers_refused"]
    assert {name.split("/")[1] for name in refused} == {odd.node_id[:6], refusing.node_id[:6]}
    assert any("fingerprint ff there, 00 in worker 0 on " in reason for reason in refused.values())
    assert any("weights.safetensors: no such file" in reason for reason in refused.values())
    assert caplog.text.count("is refused") == 2


def test_a_killed_driver_starts_again_where_it_was(cluster: Cluster, ground: Ground) -> None:
    cluster.close_pool()
    cluster.wish(delay="0.2")
    command = [sys.executable, "-m", "evalkit", "run", "-m", cluster.spec, "-t", "yes-no", "--json"]
    command += ["--include", str(ground.task), "--data-root", str(ground.folder / "data")]
    command += ["-o", str(ground.folder / "runs")]
    command += ["--engine", "ray", "--cpus-per-worker", "1", "--ray-address", cluster.nodes.address]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: driver.poll() is not None or stored(ground.folder) >= 6)
    finally:
        driver.kill()
        _, told = driver.communicate()
    before = stored(ground.folder)
    assert 6 <= before < SAMPLES, told
    cluster.wish()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["counts"]["answered"] == SAMPLES
    assert f"going on, {SAMPLES - before} of {SAMPLES} samples left" in done.stderr
    assert plain(run["run"]) == expected()
    answered_once(Path(run["run"]))


def test_where_no_actor_can_load_its_error_is_told(cluster: Cluster) -> None:
    cluster.close_pool()
    with pytest.raises(EvalkitError, match="unknown model 'nobody'"):
        make_pool("nobody")
