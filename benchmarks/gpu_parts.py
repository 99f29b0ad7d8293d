"""The parts of benchmarks/gpu.py, one a process: `python benchmarks/gpu_parts.py PART --device cuda`.

A row of JSON a line: work, value, unit, what it is against, and the ratio to it or the share of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpu_place import NEW, WIDTHS, Place, Row, answers, row, shaped


def parity(place: Place) -> Iterator[Row]:
    """All families: the device against the CPU in float32; batches against one by one in half precision."""
    import torch

    for size, (family, *_) in WIDTHS.items():
        narrow = Place("cpu", tiny=True)
        here = narrow.network(size, torch.float32)
        rows = [*shaped(here, "chartqa", 2), *shaped(here, "drivelm", 4)]
        ids = torch.tensor([rows[0].ids])
        with torch.inference_mode():
            expected = here(input_ids=ids, pixel_values=rows[0].tiles)
            tokens = answers(here, rows)
            there = here.to(place.device)
            found = there(input_ids=ids.to(place.device), pixel_values=rows[0].tiles).cpu()
            same = sum(one == two for one, two in zip(tokens, answers(there, rows), strict=True))
            yield row(f"{family}, float32: largest difference of logits",
                      float((found - expected).abs().max()), "", "the CPU")  # fmt: skip
            yield row(
                f"{family}, float32: answers", same, f"of {len(rows)} equal", "the CPU", same / len(rows)
            )
            half = there.to(place.half)
            one_by_one = [answers(half, [one], share=False)[0] for one in rows]
            same = sum(one == two for one, two in zip(one_by_one, answers(half, rows), strict=True))
            yield row(f"{family}, {_name(place)}: shared batches", same, f"of {len(rows)} equal",
                      "one by one", same / len(rows))  # fmt: skip


def _name(place: Place) -> str:
    return str(place.half).removeprefix("torch.")


def peaks(place: Place) -> Iterator[Row]:
    """Encoding, prefill and decoding at each width, against the measured matmul and bandwidth peaks."""
    import throughput
    import torch

    from mini_internvl.linear_layers import order_for_decoding
    from mini_internvl.prefill import encode_tiles

    side = 256 if place.tiny else 8192
    square = torch.randn(side, side, device=place.device, dtype=place.half)
    flops = 2 * side**3 / place.seconds(torch.matmul, square, square)
    large = torch.ones(1 << (20 if place.tiny else 30), device=place.device, dtype=torch.float32)
    speed = large.numel() * 4 / place.seconds(large.sum)
    yield row("matmul", flops / 1e12, "TFLOP/s")
    yield row("reading memory", speed / 2**30, "GiB/s")
    for size in WIDTHS:
        network = place.network(size)
        order_for_decoding(network.language_model)
        one = shaped(network, "drivelm", 1)[0]
        tiles, ids = one.tiles, torch.tensor([one.ids], device=place.device)
        with torch.inference_mode():
            if size == "1b":  # the encoder is the same in all
                taken = place.seconds(encode_tiles, network, tiles)
                work = len(tiles) * throughput._encoder_flops(network) / taken
                yield row(f"encoding {len(tiles)} tiles", 1e3 * taken, "ms", "matmul", work / flops)
            embedded = network.embed(ids, network.encode_images(tiles))[0]
            taken = place.seconds(_read, network, embedded)
            work = throughput._reader_flops(network, len(embedded)) / taken
            yield row(f"{size}: prefill of {len(embedded)} tokens", 1e3 * taken, "ms", "matmul", work / flops)
            weights = sum(p.numel() * p.itemsize for p in network.language_model.model.layers.parameters())
            head = network.language_model.lm_head.weight
            weights += head.numel() * head.itemsize
            for rows in (1, 16, 128):
                taken = place.seconds(_step(network, rows)) / NEW
                yield row(f"{size}: decode step of {rows} rows", 1e3 * taken, "ms", "weights at bandwidth",
                          weights / taken / speed)  # fmt: skip


def _read(network: Any, embedded: Any) -> None:
    from mini_internvl.prefill import prefill_prefix
    from mini_internvl.prefix_cache import SharedPrefix

    prefill_prefix(network, embedded, SharedPrefix(len(embedded)))


def _step(network: Any, rows: int) -> Callable[[], None]:
    import compiled

    return compiled.step(network, rows, NEW)


def work(place: Place) -> Iterator[Row]:
    """DriveLM-, RSVQA- and ChartQA-shaped work at each width: reference, plain batches, shared."""
    import throughput

    for size in ("1b", "2b", "4b"):
        network = place.network(size)
        for name, shape in throughput.SHAPES.items():
            rows, base = throughput.questions(network, shape), 0.0
            for way in throughput.WAYS:
                count = {"reference": shape.alone, "plain": len(rows), "shared": len(rows)}[way]
                chosen = rows[:count]
                goes = 1 if way == "reference" else 2
                taken = place.seconds(throughput.answer, network, chosen, shape, way, rounds=goes) / count
                base = base or taken
                yield row(f"{size}, {name}: {way}", 1e3 * taken, "ms a question", "reference", base / taken)


def compiling(place: Place) -> Iterator[Row]:
    """A step and the encoder as they are and through `--compile`, which makes CUDA graphs of a step."""
    import compiled
    import torch

    from mini_internvl.compiled import compile_network

    network = place.network("1b")
    plain, works = {}, {}
    with torch.inference_mode():
        for rows in (1, 16):
            works[f"decode step of {rows} rows"] = (_step(network, rows), NEW)
        works["encoding 13 tiles"] = (compiled.encode(network, 13), 1)
        for name, (go, count) in works.items():
            plain[name] = place.seconds(go) / count
        started = time.perf_counter()
        compile_network(network, step=place.device == "cuda")
        yield row("compiling", time.perf_counter() - started, "s")
        for name, (go, count) in works.items():
            taken = place.seconds(go) / count
            yield row(f"1b, compiled: {name}", 1e3 * taken, "ms", "as it is", plain[name] / taken)


def int8(place: Place) -> Iterator[Row]:
    """A decoding step over rounded weights."""
    import torch

    from mini_internvl.linear_layers import quantise

    for size in ("1b", "4b"):
        network = place.network(size)
        with torch.inference_mode():
            plain = {rows: place.seconds(_step(network, rows)) / NEW for rows in (1, 16)}
            quantise(network.language_model)
            for rows, before in plain.items():
                taken = place.seconds(_step(network, rows)) / NEW
                yield row(f"{size}, int8: decode step of {rows} rows", 1e3 * taken, "ms", _name(place),
                          before / taken)  # fmt: skip


def halving(place: Place) -> Iterator[Row]:
    """A batch that truly does not fit: the answers are those of one that does."""
    import torch

    network = place.network("1b")
    rows = [one for _ in range(8) for one in shaped(network, "chartqa", 2)]
    fits = [answers(network, [one], share=False)[0] for one in rows[:4]]
    if place.device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, 1.6 * held / total))
    from mini_internvl import GenerationSettings
    from mini_internvl.batching import BatchRunner
    from mini_internvl.generation import TokenRules

    runner = BatchRunner(network)
    runner.share = False
    before = runner.most_tokens = 1 << 30
    found = runner.run(rows, GenerationSettings(max_new_tokens=NEW), TokenRules((network.image_token_id,)))
    same = sum(list(found[place].tokens) == fits[place] for place in range(len(fits)))
    yield row("answers after memory ran out", same, f"of {len(fits)} equal", "one by one", same / len(fits))
    yield row(
        "tokens held at once", runner.most_tokens or 0, "tokens", "before", (runner.most_tokens or 0) / before
    )


def _throughput_of_one(place_of: tuple[str, bool], start: Any, results: Any) -> None:
    place = Place(*place_of)
    network = place.network("1b")
    rows = shaped(network, "chartqa", 8)
    answers(network, rows)
    place.wait()
    start.wait()
    started = time.perf_counter()
    answers(network, rows)
    place.wait()
    results.put(len(rows) / (time.perf_counter() - started))


def processes(place: Place) -> Iterator[Row]:
    """Two processes on one device against one."""
    context = multiprocessing.get_context("spawn")
    alone = 0.0
    for count in (1, 2):
        start, results = context.Barrier(count), context.Queue()
        given = ((place.device, place.tiny), start, results)
        workers = [context.Process(target=_throughput_of_one, args=given) for _ in range(count)]
        for worker in workers:
            worker.start()
        rate = sum(results.get(timeout=300) for _ in workers)
        for worker in workers:
            worker.join()
        alone = alone or rate
        yield row(f"{count} process{'es' if count > 1 else ''}", rate, "questions/s", "one", rate / alone)


def training(place: Place) -> Iterator[Row]:
    """Tokens a second of optimizer steps at the 1B's widths, full and LoRA."""
    import torch
    import training as bench

    from mini_internvl_train.batches import collate
    from mini_internvl_train.optimizer import make_optimizer
    from mini_internvl_train.packing import sample_weight
    from mini_internvl_train.start import prepare
    from mini_internvl_train.step import TrainingStep

    for trainable in ("full", "lora"):
        network = place.network("1b", torch.float32).train()
        bench.IMAGE_TOKEN = network.image_token_id
        recipe = bench._recipe(trainable)
        prepare(network, recipe)
        network.to(place.device)
        samples = bench._samples(network, 4 if place.tiny else 8)
        batch = collate([samples], bench._tiles(network, samples), "square", 0).to(torch.device(place.device))
        total = sum(sample_weight(sample.trained, "square") for sample in samples)
        step = TrainingStep(network).train()
        optimizer = make_optimizer(step, recipe.optimizer)

        tokens = batch.input_ids.numel()
        taken = place.seconds(_learn, place, step, optimizer, batch, total)
        yield row(f"1b, {trainable}: {tokens} tokens a step", tokens / taken, "tokens/s")
        if place.device == "cuda":
            yield row(f"1b, {trainable}: peak memory", torch.cuda.max_memory_allocated() / 1e9, "GB")
            torch.cuda.reset_peak_memory_stats()


def _learn(place: Place, step: Any, optimizer: Any, batch: Any, total: float) -> None:
    import torch

    with torch.autocast(place.device, dtype=torch.bfloat16, enabled=place.device == "cuda"):
        loss = step(batch, total)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def feeding(place: Place) -> Iterator[Row]:
    """The share of its time that the network waits for images of 1600x900."""
    import feeding as bench

    from evalkit.contracts import ImagePolicy, Message, Request
    from evalkit_models.image_prefetcher import ImagePrefetcher

    network = place.network("1b")
    count = 4 if place.tiny else 96
    policy = ImagePolicy(max_tiles=2 if place.tiny else 12)
    requests = [
        Request(str(place_), (Message("user", "?"),), (image,), image_policy=policy)
        for place_, image in enumerate(bench.images(count))
    ]
    import torch

    size = network.config.image_size
    prefetcher: Any = ImagePrefetcher(bench.make)
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in prefetcher.batches(requests, 4):
            tiles = sum(len(made.images) for made in batch)
            network.encode_images(torch.zeros(tiles, 3, size, size, dtype=torch.uint8, device=place.device))
            place.wait()
    seconds = time.perf_counter() - started
    prefetcher.close()
    yield row(f"encoding {count} images in order", count / seconds, "images/s", "idle share of the network",
              prefetcher.waited / seconds)  # fmt: skip


PARTS: dict[str, Callable[[Place], Iterator[Row]]] = {
    "parity": parity,
    "peaks": peaks,
    "work": work,
    "compiling": compiling,
    "int8": int8,
    "processes": processes,
    "halving": halving,
    "training": training,
    "feeding": feeding,
}
"""In order of worth."""


def main() -> int:
    """Print a part's rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for found in PARTS[chosen.part](Place(chosen.device, chosen.tiny)):
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
