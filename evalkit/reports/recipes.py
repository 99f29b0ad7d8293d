"""Two recipes as text."""

from __future__ import annotations

from evalkit.comparison.recipes import RecipeComparison, RecipeResult
from evalkit.reports.wording import HEADER, signed
from evalkit.text import one_line, table, value_text

_VERDICTS = {"pass": "PASS", "regression": "REGRESSION", "undecided": "UNDECIDED"}
_SAID = {
    "better": "the recipe is better",
    "worse": "the recipe is worse",
    "only_these_runs": "only these runs differ",
    "no_evidence": "no evidence",
}


def recipes_text(comparison: RecipeComparison) -> str:
    """Means, their difference, the spread by training seed and by sample; the verdict last."""
    sides = ("base", comparison.base), ("new ", comparison.new)
    heads = [f"{side}  {len(names)} runs: {one_line(', '.join(names), 100)}" for side, names in sides]
    parts = ["\n".join(heads)]
    for key, samples in comparison.samples.items():
        rows = [[*HEADER[:-1], "sd of seeds", "se of samples", HEADER[-1]]]
        rows += [_row(result) for result in comparison.metrics if result.key == key]
        parts.append(
            f"{key} · {samples} samples that all runs answered\n{table(rows, right=(1, 2, 3, 5, 6, 7))}"
        )
    return "\n\n".join([*parts, "\n".join([*comparison.reasons, _VERDICTS[comparison.verdict]])])


def recipes_markdown(comparison: RecipeComparison) -> str:
    """The same for a pull request."""
    return f"```text\n{recipes_text(comparison)}\n```"


def _row(result: RecipeResult) -> list[str]:
    found, unit = result.found, result.found.metric.unit
    means = [sum(side) / len(side) if side else None for side in (found.base, found.new)]
    sds = found.sd_seeds
    seeds = "-" if sds is None else " / ".join(dict.fromkeys(value_text(sd, unit) for sd in sds))
    shown = f"[{signed(found.ci95[0], unit)}, {signed(found.ci95[1], unit)}]" if found.ci95 else "-"
    said = found.reason if found.difference is None else _SAID[result.recipe]
    if result.failure or result.undecided:
        said = f"{said}; {'FAILS' if result.failure else 'UNDECIDED'}: {result.failure or result.undecided}"
    return [
        f"{result.name} ({unit})",
        *(value_text(mean, unit) for mean in means),
        signed(found.difference, unit),
        shown,
        "-" if result.p_adjusted is None else f"{result.p_adjusted:.2g}",
        seeds,
        value_text(found.se_samples, unit),
        said or "",
    ]
