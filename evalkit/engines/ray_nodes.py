"""The nodes of a Ray cluster: connecting to it, room for workers on a node, how busy each node is."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Any

from evalkit import environment
from evalkit.contracts import Json
from evalkit.errors import UsageError
from evalkit.installation import install_command

log = logging.getLogger(__name__)

#: Ray gives itself half a minute to start, which a busy machine may exceed.
_STARTS = 3

#: Nodes that the progress line names one by one.
_NAMED = 4

#: A worker's place: node id, and its number on that node.
Place = tuple[str, int]


@dataclass(frozen=True)
class Shape:
    """What a worker takes of its node.

    Attributes:
        accelerator: whether it has one of its own; then a node has as many places as accelerators.
        cores: reserved for it; without accelerators they say how many places a node has, None being one
            place with all cores.
    """

    accelerator: bool
    cores: int | None

    def places(self, resources: dict[str, float]) -> int:
        """Workers that a node with these resources has room for."""
        if self.accelerator:
            return int(resources.get("GPU", 0))
        cores = int(resources.get("CPU", 0))
        return cores // self.cores if self.cores else min(1, cores)

    def threads(self, resources: dict[str, float]) -> int:
        """Threads of a worker's arithmetic on the CPU."""
        return self.cores or max(1, int(resources.get("CPU", 1)) // max(1, self.places(resources)))

    def resources(self, resources: dict[str, float]) -> dict[str, float]:
        """What to ask of Ray for a worker on a node with these resources."""
        if self.accelerator:
            return {"num_gpus": 1, "num_cpus": self.cores or 1}
        return {"num_gpus": 0, "num_cpus": self.cores or int(resources.get("CPU", 1))}


@dataclass(frozen=True)
class Node:
    """A living node."""

    id: str
    name: str
    resources: dict[str, float]


def import_ray() -> Any:
    """Ray, quiet about itself, sending nothing home, and with workers that are no less urgent than we are.

    Raises:
        UsageError: it is not installed, or this is Windows.
    """
    if environment.is_windows():
        raise UsageError("--engine ray is not supported on Windows: leave it out, or use WSL")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        import ray
    except ImportError:
        raise UsageError(f"--engine ray needs the package ray: {install_command('ray')}") from None
    return ray


def connect(address: str | None) -> bool:
    """Join the cluster at `address`, or start one on this machine; a connection there is used as it is.

    Returns:
        Whether the connection was made here, and is to be ended here.

    Raises:
        UsageError: there is no cluster at that address, or none can be started.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    _messages_to_log()
    for attempt in range(_STARTS):
        cause = _start(ray, address)
        if "timed out" not in cause or attempt == _STARTS - 1:
            break
        log.info("Ray has not started yet (%s), trying again", cause)
    if cause:
        where = f"--ray-address {address}: no cluster there" if address else "a local Ray does not start"
        raise UsageError(f"{where} ({cause}); see docs/scaling.md")
    return True


def _start(ray: Any, address: str | None) -> str:
    """Why it did not start or connect, or an empty text."""
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else {"include_dashboard": False}),
        )
    except Exception as error:
        ray.shutdown()
        text = str(error).strip()
        return text.splitlines()[0] if text else type(error).__name__
    return ""


def _messages_to_log() -> None:
    """Ray prints messages about lost workers to stdout, where the one JSON document goes."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, *_, **__: log.debug("ray: %s", " ".join(data["lines"]))


def nodes() -> dict[str, Node]:
    """Living nodes by id."""
    import ray

    found = {}
    for node in ray.nodes():
        if node["Alive"]:
            name = f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"
            found[node["NodeID"]] = Node(node["NodeID"], name, dict(node["Resources"]))
    return found


def shape(device: str, cores: int | None) -> Shape:
    """How workers are placed for `--device` and `--cpus-per-worker` on the cluster as it is.

    Raises:
        UsageError: a GPU is asked for by number, or the cluster has none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: Ray gives each worker a GPU of its own; write cuda")
    accelerators = device != "cpu" and any(node.resources.get("GPU", 0) >= 1 for node in nodes().values())
    if device == "cuda" and not accelerators:
        raise UsageError("--device cuda: no node of the cluster has a GPU")
    return Shape(accelerators, cores)


@dataclass
class _NodeCount:
    samples: int = 0
    tokens: int = 0
    busy: float = 0.0
    workers: int = 0
    present: float = 0.0
    since: float = 0.0

    def settle(self, now: float) -> None:
        """Count the workers' time until now."""
        self.present += self.workers * (now - self.since)
        self.since = now


class NodeStatistics:
    """What each node does in a session: answers, speed, share of its workers' time at work."""

    def __init__(self) -> None:
        self._nodes: dict[str, _NodeCount] = {}
        self._started = time.monotonic()
        self._stopped: float | None = None

    def workers(self, node: str, change: int) -> None:
        """A worker of the node is ready (1) or gone (-1)."""
        now = time.monotonic()
        entry = self._nodes.setdefault(node, _NodeCount(since=now))
        entry.settle(now)
        entry.workers += change

    def add(self, node: str, samples: int, tokens: int, busy: float) -> None:
        """Add answers of a worker of the node, and the seconds it worked for them."""
        entry = self._nodes.setdefault(node, _NodeCount(since=time.monotonic()))
        entry.samples += samples
        entry.tokens += tokens
        entry.busy += busy

    def stop(self) -> None:
        """The session is over."""
        self._stopped = time.monotonic()

    def report(self) -> dict[str, Json]:
        """Each node's answers, samples a second, and utilisation (busy share of its workers' time)."""
        now = self._stopped or time.monotonic()
        seconds = max(now - self._started, 1e-9)
        found: dict[str, Json] = {}
        for name, node in self._nodes.items():
            node.settle(now)
            found[name] = {
                "workers": node.workers,
                "samples": node.samples,
                "samples_per_second": node.samples / seconds,
                "new_tokens": node.tokens,
                "busy_seconds": node.busy,
                "utilisation": min(1.0, node.busy / node.present) if node.present > 0 else 0.0,
            }
        return found

    def line(self) -> str:
        """Few nodes by name, many in one mean with the slowest and the idlest."""
        nodes = self.report()
        if not nodes:
            return ""
        if len(nodes) <= _NAMED:
            return ", ".join(
                f"{name} {node['samples_per_second']:.3g}/s {node['utilisation']:.0%} busy"
                for name, node in nodes.items()
            )
        slowest = min(nodes, key=lambda name: float(nodes[name]["samples_per_second"]))
        idlest = min(nodes, key=lambda name: float(nodes[name]["utilisation"]))
        busy = sum(node["utilisation"] for node in nodes.values()) / len(nodes)
        return (
            f"{len(nodes)} nodes {busy:.0%} busy, slowest {slowest} "
            f"{nodes[slowest]['samples_per_second']:.3g}/s, "
            f"idlest {idlest} {nodes[idlest]['utilisation']:.0%}"
        )
