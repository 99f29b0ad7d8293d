"""What each node of a cluster does in a session: answers, speed, share of its workers' time at work."""

from __future__ import annotations

import time
from dataclasses import dataclass

from evalkit.contracts import Json

#: Nodes that the progress line names one by one.
_NAMED = 4


@dataclass
class _Node:
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


class NodeFigures:
    """Figures by node name since `start`."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._started = time.monotonic()
        self._stopped: float | None = None

    def workers(self, node: str, change: int) -> None:
        """A worker of the node is ready (1) or gone (-1)."""
        now = time.monotonic()
        entry = self._nodes.setdefault(node, _Node(since=now))
        entry.settle(now)
        entry.workers += change

    def add(self, node: str, samples: int, tokens: int, busy: float) -> None:
        """Answers of a worker of the node, and the seconds it was at work for them."""
        entry = self._nodes.setdefault(node, _Node(since=time.monotonic()))
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
        """Few nodes by name, many in one figure with the slowest and the idlest."""
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
