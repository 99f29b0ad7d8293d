"""What intervals, gates and plans keep of what they promise: tables of docs/statistics.md, docs/comparing.md.

    python benchmarks/promises.py [coverage] [differences] [power] [gates] [--experiments 500]

Invented answers of known truth (tests/edge_worlds.py, tests/power_worlds.py), judged by evalkit itself.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("", "tests"))

from clustered_worlds import CLUSTERED
from clustered_worlds import world as clustered
from edge_worlds import ERROR_WORLDS, MACRO_WORLDS, WORLDS, coverage, error_world, macro_world, world
from power_worlds import ALONE, GATES, PLANNED, called, called_alone, falsely_failed, gate, one_way


def coverages(experiments: int) -> Iterator[str]:
    """Coverage of intervals of single values, worst first."""
    places = [
        (f"{place[0]}, {place[2]} {place[1]}, mean {place[3]}, icc {place[4]}", world(*place))
        for place in WORLDS
    ]
    places += [
        ("macro, {} clusters, {} thin, of {}, icc {}".format(*place), macro_world(*place))
        for place in MACRO_WORLDS
    ]
    places += [("RMSE, {} errors, {}".format(*place), error_world(*place)) for place in ERROR_WORLDS]
    places += [
        (
            f"{kind}, {clusters} clusters",
            (functools.partial(clustered(kind).draw, clusters=clusters), clustered(kind).truth),
        )
        for kind, clusters in CLUSTERED
    ]
    found = [(*coverage(*draw, experiments), name) for name, draw in places]
    yield "| world | coverage, % (width) |\n|---|---|"
    yield from (f"| {name} | {100 * share:.1f} ({width:.3g}) |" for share, width, name in sorted(found))


def differences(experiments: int) -> Iterator[str]:
    """Coverage of intervals of a difference where most changes go one way, and margins passed wrongly."""
    yield "| samples | lost, % | won, % | coverage, % | margin just below the drop passes, % |"
    yield "|---|---|---|---|---|"
    for n, lost, won in (
        (50, 0.05, 0),
        (100, 0.02, 0),
        (50, 0.04, 0.01),
        (300, 0.006, 0.001),
        (1000, 0.06, 0.01),
        (1000, 0.04, 0),
        (600, 0.2, 0.02),
    ):
        held, passed = one_way(n, lost, won, experiments)
        yield f"| {n} | {100 * lost:g} | {100 * won:g} | {100 * held:.1f} | {100 * passed:.1f} |"


def powers(experiments: int) -> Iterator[str]:
    """How often a planned drop is called: of the pooled average alone, and by the gate over all metrics."""
    yield "| questions an image | right, % | icc | churn, % | metrics | drop | images planned | called, % |"
    yield "|---|---|---|---|---|---|---|---|"
    for places, share in ((ALONE, called_alone), (PLANNED, called)):
        for place, drop in places:
            need = place.needed(drop, 40_000)
            found = share(place, need, drop, experiments, resamples=4000)
            questions = f"1 to {place.questions}" if place.unequal else place.questions
            cells = [questions, f"{100 * place.right:g}", f"{place.icc:g}", f"{100 * place.churn:g}"]
            cells += [place.metrics, f"{100 * drop:g}", need, f"{100 * found:.1f}"]
            yield f"| {' | '.join(map(str, cells))} |"
        yield "with the gate over all metrics:" if places is ALONE else ""


def gates(experiments: int) -> Iterator[str]:
    """What thresholds of one point let through."""
    yield "| gate | samples | answers that change anyway | true drop | passes | fails | undecided |"
    yield "|---|---|---|---|---|---|---|"
    for kind, n, drop in GATES:
        passed, failed = gate(kind, n, drop, experiments)
        shares = " | ".join(f"{100 * share:.0f}%" for share in (passed, failed, 1 - passed - failed))
        yield f"| `--{kind} 1` | {n:,} | 6% | {100 * drop:g} | {shares} |"
    yield ""
    yield f"ten metrics that do not differ: {100 * falsely_failed(experiments):.1f}% fail"


def main() -> None:
    """Print the tables that are named, or all."""
    tables = {"coverage": coverages, "differences": differences, "power": powers, "gates": gates}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[*tables, []], help="default: all")
    parser.add_argument("--experiments", type=int, default=500)
    options = parser.parse_args()
    for name in options.tables or tables:
        for line in tables[name](options.experiments):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
