"""`evalkit run --dry-run`: what would be asked, and what it would cost; loads no weights."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from evalkit.batch_config import BATCHING, BatchAware
from evalkit.cli.terminal import print_json
from evalkit.pipeline.progress import clock
from evalkit.text import visible

if TYPE_CHECKING:
    from evalkit.pipeline.cost_estimate import CostEstimate, Costs, Speed
    from evalkit.pipeline.job import Job
    from evalkit.pipeline.options import RunOptions
    from evalkit.suite import Target

#: Image tokens a tile of the released checkpoints.
_TOKENS_PER_TILE = 256


def show_plans(targets: Sequence[Target], options: RunOptions, as_json: bool) -> int:
    """Print the plan of every task."""
    from evalkit import registry
    from evalkit.pipeline.cost_estimate import CostAware, estimate_cost, measure
    from evalkit.pipeline.job import make_job
    from evalkit.pipeline.plan import make_plan

    family = registry.family(options.model)
    costs = family.costs(options.model, options.weights) if isinstance(family, CostAware) else None
    speed = measure() if costs is not None else None
    documents = []
    for target in targets:
        job = make_job(target.task, dataclasses.replace(options, split=target.split))
        plan = make_plan(job.request(position) for position in range(len(job.answer_ids)))
        estimate = estimate_cost(plan, job.request)
        forecast = _forecast(estimate, costs, speed, options.batch or BATCHING.conversations_on_cpu)
        if as_json:
            documents.append(_document(job, estimate) | {"forecast": forecast})
        else:
            click.echo(_text(job, estimate, forecast))
    batching: dict[str, Any] = {"evalkit": BATCHING.to_json()}
    if isinstance(family, BatchAware):
        batching["model"] = dict(family.batching())
    if as_json:
        print_json({"plans": documents, "batching": batching})
    else:
        click.echo(_batching_text(batching))
    return 0


def _batching_text(batching: dict[str, dict[str, float]]) -> str:
    lines: list[str] = []
    for owner, values in batching.items():
        text = f"batching   {owner}: " + ", ".join(f"{name} {value}" for name, value in values.items())
        lines += textwrap.wrap(text, 110, subsequent_indent=" " * 11)
    return "\n".join(lines)


def _forecast(
    cost: CostEstimate, costs: Costs | None, speed: Speed | None, batch: int
) -> dict[str, Any] | None:
    """Tokens, time and memory with and without prefix caching; None if the model's costs are not known."""
    if costs is None or speed is None:
        return None
    from evalkit.pipeline.cost_estimate import estimate_work, memory

    ways = {"shared": estimate_work(cost, costs, speed, True, batch)}
    ways["one_by_one"] = estimate_work(cost, costs, speed, False, 1)
    return {
        **{name: dataclasses.asdict(way) for name, way in ways.items()},
        "memory_bytes": memory(cost, costs, batch),
        "cpu_flops": speed.flops,
        "cpu_bytes_per_second": speed.bytes,
    }


def _forecast_lines(forecast: dict[str, Any]) -> list[str]:
    shared, alone = forecast["shared"], forecast["one_by_one"]
    return [
        f"encoded    {shared['encoded']} image tokens with prefix caching, {alone['encoded']} without",
        f"prefill    {shared['prefilled']} prompt tokens with prefix caching, {alone['prefilled']} without",
        f"time       about {clock(shared['seconds'])} on this CPU ({forecast['cpu_flops'] / 1e9:.0f} GFLOP/s "
        f"in float32 now), {clock(alone['seconds'])} one question at a time; less on a GPU",
        f"memory     about {forecast['memory_bytes'] / 2**30:.2f} GiB: weights, keys and values in bfloat16",
    ]


def _document(job: Job, estimate: CostEstimate) -> dict[str, Any]:
    first = job.request(0)
    return {
        "task": job.task.name,
        "split": job.split,
        "protocol": job.task.protocol,
        "nonstandard": dict(job.nonstandard),
        "signature": job.signature(None, None),
        **estimate.to_json(),
        "first_prompt": {
            "id": first.id,
            "messages": [{"role": message.role, "text": message.text} for message in first.messages],
            "images": [name for image in first.images for name in image.paths()],
        },
    }


def _text(job: Job, estimate: CostEstimate, forecast: dict[str, Any] | None) -> str:
    first = job.request(0)
    asked = f"; each asked {job.repeats} times" if job.repeats > 1 else ""
    lines = [
        f"{job.task.name} · split {job.split} · protocol {job.task.protocol} (dry run, no weights loaded)",
        f"samples    {len(job.samples)} of {len(job.every)}, in {estimate.groups} groups by image{asked}",
        f"images     {estimate.images} distinct, shown {estimate.image_uses} times",
        f"tiles      about {estimate.tile_uses} ({estimate.tile_uses * _TOKENS_PER_TILE} image tokens); "
        f"{estimate.tiles} if each image is encoded once",
        f"text       about {estimate.text_tokens} tokens of prompts, "
        f"at most {estimate.new_tokens_at_most} generated",
    ]
    lines += _forecast_lines(forecast) if forecast is not None else []
    lines += [f"NON-STANDARD: {name}={value}" for name, value in job.nonstandard.items()]
    lines += [f"unreadable: {visible(line)}" for line in estimate.unreadable[:5]]
    lines.append(f"first prompt, sample {visible(first.id)}:")
    for message in first.messages:
        lines.append(f"  [{message.role}]")
        lines += [f"    {line}" for line in visible(message.text).split("\n")]
    lines += [f"  image {visible(name)}" for image in first.images for name in image.paths()]
    return "\n".join(lines) + "\n"
