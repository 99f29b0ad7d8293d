"""Several runs, each compared with the same base by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.comparison.compare import Comparison, comparison_json
from evalkit.comparison.verdicts import GateVerdict
from evalkit.contracts import Json


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Comparisons with one base, in the order of the runs."""

    each: tuple[Comparison, ...]

    @property
    def verdict(self) -> GateVerdict:
        """The worst."""
        found = {comparison.verdict for comparison in self.each}
        return "regression" if "regression" in found else "undecided" if "undecided" in found else "pass"

    @property
    def exit_code(self) -> int:
        """1 if one is a regression, else the first that is not 0."""
        codes = [comparison.exit_code for comparison in self.each]
        return 1 if 1 in codes else next((code for code in codes if code), 0)

    @property
    def reason(self) -> str:
        """What readers must know."""
        return (
            f"{len(self.each)} runs were compared with the base, each at its own level: to choose among them "
            "give --best-of"
        )


def comparisons_json(comparisons: Comparisons) -> dict[str, Json]:
    """One document: every element of `metrics` and `tasks` and every flip list names its run."""
    documents = {comparison.new: comparison_json(comparison) for comparison in comparisons.each}
    first = comparisons.each[0]
    return {
        "verdict": comparisons.verdict,
        "base": first.base,
        "new": list(documents),
        "alpha": first.alpha,
        "metrics": [{**row, "name": name} for name, doc in documents.items() for row in doc["metrics"]],
        "flips": {name: doc["flips"] for name, doc in documents.items()},
        "tasks": [{**row, "name": name} for name, doc in documents.items() for row in doc["tasks"]],
        "verdicts": {name: doc["verdict"] for name, doc in documents.items()},
        "reasons": _reasons(documents, comparisons),
    }


def _reasons(documents: dict[str, dict[str, Json]], comparisons: Comparisons) -> Sequence[str]:
    named = [f"{name}: {reason}" for name, document in documents.items() for reason in document["reasons"]]
    return [*named, comparisons.reason]
