"""Seconds a question: the reference's way, plain batches, and shared images and prefixes, in one run.

    python benchmarks/throughput.py [--shape drivelm] [--layers N] [--model tiny] [--threads N]

All three answer the same questions through the same network with as many new tokens each:

    reference  one question at a time: encode its tiles, then transformers' `generate`
    plain      batches; every question encodes its own image and reads its whole prompt
    shared     the image encoded once, the common prefix read once, all questions decoded together

The reference's weights lie in memory as transformers loads them, the others' as order_for_decoding puts them.
The network has InternVL2-1B's widths and random weights (`--layers` cuts both its stacks for a quick run), or
is the embedded model. Where questions of a shape cost the same, fewer are timed in the first two ways, which
the table says. Every way runs in a process of its own, so that its peak memory is its own. Ratios are taken
of processor seconds, which other processes disturb less than the clock; with `--threads 1` they are about the
seconds that an idle machine would take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM, WORDS = 60, (20, 45)
SIZES = ("", "", "small ", "medium ", "large ", "square ", "circular ", "rectangular ")
THINGS = (
    "building",
    "commercial building",
    "road",
    "residential building",
    "water area",
    "grass area",
    "forest",
)
ENDINGS = ("", "", " in the image")
RSVQA_TAIL = 16


@dataclass(frozen=True)
class Shape:
    """A kind of work.

    Attributes:
        images, tiles, questions: images, tiles of each, questions about each.
        new: tokens generated for each question.
        alone, plain: questions timed one by one, and in plain batches.
        text: draws the words after the image.
    """

    images: int
    tiles: int
    questions: int
    new: int
    alone: int
    plain: int
    text: Callable[[random.Random, int], list[int]]


def any_words(drawn: random.Random, words: int) -> list[int]:
    """20 to 44 unlike tokens, below `words`."""
    return [drawn.randrange(words) for _ in range(drawn.randrange(*WORDS))]


def rsvqa_words(drawn: random.Random, words: int) -> list[int]:
    """A question as RSVQA's program makes them (arXiv 2003.07333, section III), a token a word, and its tail.

    The tail stands for the sign, "Answer the question using a single word or phrase." and the template's end.
    """

    def thing(ending: str = "") -> str:
        return drawn.choice(SIZES) + drawn.choice(THINGS) + ending

    question = drawn.choice(
        (
            f"Is there a {thing()}{drawn.choice(ENDINGS)}",
            f"Is a {thing()} present{drawn.choice(ENDINGS)}",
            f"What is the number of {thing('s')}{drawn.choice(ENDINGS)}",
            f"What is the amount of {thing('s')}{drawn.choice(ENDINGS)}",
            f"How many {thing('s')} are there{drawn.choice(ENDINGS)}",
            f"Are there more {thing('s')} than {thing('s')}{drawn.choice(ENDINGS)}",
            f"Are there less {thing('s')} than {thing('s')}{drawn.choice(ENDINGS)}",
            f"Is the number of {thing('s')} equal to the number of {thing('s')}{drawn.choice(ENDINGS)}",
            f"What is the number of {thing('s')} on the left of a {thing()}",
        )
    )
    return [zlib.crc32(word.encode()) % words for word in question.split()] + list(range(RSVQA_TAIL))


SHAPES = {
    "drivelm": Shape(1, 13, 12, 40, 1, 1, any_words),
    "rsvqa-lr": Shape(1, 1, 100, 2, 2, 4, rsvqa_words),
    "chartqa": Shape(2, 7, 1, 8, 2, 2, any_words),
}
WAYS = ("reference", "plain", "shared")
#: Operations of torch by what they are for. Biases are copied into a product's result before it.
KINDS = {
    "products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::mkldnn_convolution"),
    "attention": ("aten::_scaled_dot_product",),
    "activations": ("aten::gelu", "aten::silu"),
    "norms": (
        "aten::native_layer_norm",
        "aten::rms_norm",
        "aten::_fused_rms",
        "aten::pow",
        "aten::mean",
        "aten::rsqrt",
    ),
    "copies": ("aten::copy_", "aten::cat", "aten::index", "aten::masked"),
    "sums and scales": ("aten::add", "aten::mul", "aten::neg", "aten::sub", "aten::div"),
}


def build(model: str, layers: int | None) -> Any:
    """The network."""
    import torch

    from mini_internvl.linear_layers import has_half_products

    if model == "tiny":
        import mini_internvl

        network: Any = mini_internvl.load("mini-internvl-tiny", device="cpu")
        return network
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "models"))
    from make_released_layout import CONFIG

    from mini_internvl import MiniInternVL, MiniInternVLConfig

    config = json.loads(json.dumps(CONFIG))
    if layers:
        config["llm_config"]["num_hidden_layers"] = config["vision_config"]["num_hidden_layers"] = layers
    config["llm_config"]["max_window_layers"] = config["llm_config"]["num_hidden_layers"]
    torch.manual_seed(0)
    dtype = torch.bfloat16 if has_half_products(torch.bfloat16) else torch.float32
    torch.set_default_dtype(dtype)
    network = MiniInternVL(MiniInternVLConfig.from_dict(config)).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    network.image_token_id = 151648
    return network


def questions(network: Any, shape: Shape) -> list[Any]:
    """The prompts of a shape, question by question."""
    import torch

    from mini_internvl.prompt_groups import TokenSequence

    drawn = random.Random(0)
    image, each = network.image_token_id, network.config.num_image_token
    words = min(400, int(network.config.llm["vocab_size"])) - 20
    system = [drawn.randrange(words) for _ in range(SYSTEM)]
    rows = []
    side = network.config.image_size
    for _ in range(shape.images):
        tiles = torch.randint(0, 256, (shape.tiles, 3, side, side), dtype=torch.uint8)
        before = [*system, *[image] * (each * shape.tiles)]
        rows += [TokenSequence([*before, *shape.text(drawn, words)], tiles) for _ in range(shape.questions)]
    return rows


def answer(network: Any, rows: Sequence[Any], shape: Shape, way: str) -> None:
    """Answers questions in one of the ways."""
    from mini_internvl import GenerationSettings
    from mini_internvl.batching import BatchRunner
    from mini_internvl.generation import TokenRules

    if way == "reference":
        for row in rows:
            _generate(network, row, shape.new)
        return
    runner = BatchRunner(network)
    runner.share = way == "shared"
    settings = GenerationSettings(max_new_tokens=shape.new)
    answers = runner.run(rows, settings, TokenRules(forbidden=(network.image_token_id,)))
    assert all(len(found.tokens) == shape.new for found in answers)


def _generate(network: Any, row: Any, new: int) -> None:
    """As InternVL's `chat` does: features into the embeddings, then transformers' `generate`."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([row.ids])
        embeddings = network.embed(ids, network.encode_images(row.tiles))
        network.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=2,
        )


def time_way(options: Any, name: str, way: str, results: Any) -> None:
    """Puts processor and clock seconds a question, questions timed, and peak memory in MB."""
    import torch

    torch.set_num_threads(options.threads)
    shape = SHAPES[name]
    network = build(options.model, options.layers)
    rows = questions(network, shape)
    count = {"reference": shape.alone, "plain": shape.plain, "shared": len(rows)}[way]
    if options.model == "tiny":
        count = len(rows)
    warm = Shape(1, 1, 2, 2, 1, 1, any_words)
    answer(network, questions(network, warm), warm, way)
    started = time.process_time(), time.perf_counter()
    answer(network, rows[:count], shape, way)
    spent, passed = time.process_time() - started[0], time.perf_counter() - started[1]
    results.put(
        (spent / count, passed / count, count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    )


def time_parts(options: Any, results: Any) -> None:
    """Puts what encoding, reading and decoding reach of this machine's measured peaks, as lines."""
    import torch

    from mini_internvl.prefill import encode_tiles, prefill_prefix
    from mini_internvl.prefix_cache import SharedPrefix

    torch.set_num_threads(options.threads)
    network = build(options.model, options.layers)
    dtype = network.dtype
    square = torch.randn(2048, 2048).to(dtype)
    flops = 2 * 2048**3 / best(lambda: square @ square, 7)
    large = torch.ones(1 << 27, dtype=torch.float32)
    speed = large.numel() * 4 / best(lambda: large.sum(), 7)
    row = questions(network, Shape(1, 4, 1, 1, 1, 1, any_words))[0]
    lines = [
        f"matmul peak {flops / 1e9:.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}, "
        f"reading {speed / 2**30:.1f} GiB/s, {options.threads} threads"
    ]
    with torch.inference_mode():
        seconds = best(lambda: encode_tiles(network, row.tiles), 2)
        work = len(row.tiles) * _encoder_flops(network)
        lines.append(
            f"encoding    {seconds / len(row.tiles):.3f} s a tile, "
            f"{work / seconds / flops:.0%} of the matmul peak"
        )
        lines.append(_shares(lambda: encode_tiles(network, row.tiles)))
        embeddings = network.embed(torch.tensor([row.ids]), network.encode_images(row.tiles))[0]
        seconds = best(lambda: prefill_prefix(network, embeddings, SharedPrefix(len(embeddings))), 2)
        work = _reader_flops(network, len(embeddings))
        lines.append(
            f"reading     {len(embeddings)} tokens in {seconds:.2f} s, "
            f"{work / seconds / flops:.0%} of the matmul peak"
        )
        lines.append(_shares(lambda: prefill_prefix(network, embeddings, SharedPrefix(len(embeddings)))))
        weights = sum(p.numel() for p in network.language_model.parameters()) * dtype.itemsize
        weights -= network.language_model.get_input_embeddings().weight.numel() * dtype.itemsize
        lines += _steps(network, embeddings[:300], weights)
    results.put(lines)


def _shares(run: Callable[[], object]) -> str:
    """What the time of a run goes to, by kind of operation."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    spent = dict.fromkeys((*KINDS, "other"), 0.0)
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "other")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return "            of which " + ", ".join(f"{kind} {part / total:.1%}" for kind, part in spent.items())


def _steps(network: Any, prompt: Any, weights: float) -> list[str]:
    """A step at batch 1 in four ways, in turns, each beside the reading speed measured just before it."""
    import torch

    from mini_internvl.generation import TokenRules
    from mini_internvl.linear_layers import order_for_decoding
    from mini_internvl.prefill import PromptTail, prefill

    mask = torch.ones(1, len(prompt), dtype=torch.long)
    whole = [(None, [PromptTail(prompt)])]
    ways = {
        "generate": lambda n: network.language_model.generate(
            inputs_embeds=prompt[None], attention_mask=mask, max_new_tokens=n, min_new_tokens=n,
            do_sample=False, eos_token_id=2, pad_token_id=2),
        "decode": lambda n: _decode(network, prefill(network, whole), n, TokenRules()),
    }  # fmt: skip
    large = torch.ones(1 << 27, dtype=torch.float32)
    lines = []
    for order in ("as loaded", "ordered"):
        if order == "ordered":
            order_for_decoding(network.language_model)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(3):
            for name, run in ways.items():
                speed = large.numel() * 4 / best(lambda: large.sum(), 2)
                found[name].append((_step(run), speed))
        for name, steps in found.items():
            seconds, speed = min(steps)
            lines.append(
                f"{name:<9} weights {order:<9} {1000 * seconds:6.1f} ms a step at batch 1 after "
                f"{len(prompt)} tokens, {weights / seconds / speed:4.0%} of the bandwidth bound "
                f"({speed / 2**30:.1f} GiB/s)"
            )
    return lines


def _decode(network: Any, started: Any, new: int, rules: Any) -> None:
    from mini_internvl import GenerationSettings
    from mini_internvl.generation import Decoder

    decoder = Decoder(network, GenerationSettings(max_new_tokens=new), rules)
    places = range(len(started.positions))
    decoder.join(started, places, [0 for _ in places])
    decoder.finish()


def _step(run: Callable[[int], object]) -> float:
    """Seconds of one more token, from a long and a short answer."""
    short, long = best(lambda: run(4), 2), best(lambda: run(20), 2)
    return (long - short) / 16


def best(run: Callable[[], object], times: int) -> float:
    """Least seconds of several runs, of the processor for one thread: other processes only add."""
    import torch

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found = []
    for _ in range(times):
        started = clock()
        run()
        found.append(clock() - started)
    return min(found)


def _encoder_flops(network: Any) -> float:
    """Of one tile: two for each weight and position, from patches to projector, and attention's products."""
    config = network.config.vision
    positions = config.grid**2 + 1
    weights = sum(p.numel() for p in network.vision_model.encoder.parameters())
    attention = 4.0 * config.num_hidden_layers * positions**2 * config.hidden_size
    patches = sum(p.numel() for p in network.vision_model.embeddings.patch_embedding.parameters())
    projector = sum(p.numel() for p in network.mlp1.parameters())
    ends = patches * (positions - 1) + projector * network.config.num_image_token
    return float(2 * (weights * positions + ends) + attention)


def _reader_flops(network: Any, tokens: int) -> float:
    """Of reading so many tokens, causal attention counted half; the head is not used."""
    config = network.language_model.config
    weights = sum(p.numel() for layer in network.language_model.model.layers for p in layer.parameters())
    attention = 2.0 * config.num_hidden_layers * tokens**2 * config.hidden_size
    return float(2 * weights * tokens + attention)


def in_process(target: Callable[..., None], *arguments: Any) -> Any:
    """What `target` puts into its queue, run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    worker = context.Process(target=target, args=(*arguments, results))
    worker.start()
    worker.join()
    if worker.exitcode:
        sys.exit(worker.exitcode)
    return results.get()


def main() -> int:
    """Print the table."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--layers", type=int, help="layers of both stacks; all 24 if left out")
    parser.add_argument("--model", choices=("1b", "tiny"), default="1b")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-parts", action="store_true", help="leave out the shares of the peaks")
    parser.add_argument("--only-parts", action="store_true", help="the shares of the peaks alone")
    options = parser.parse_args()
    for name in () if options.only_parts else options.shape or SHAPES:
        shape, base = SHAPES[name], 0.0
        sys.stdout.write(
            f"{name}: {shape.images} images, {shape.questions} questions each, {shape.tiles} tiles, "
            f"{shape.new} new tokens\n"
        )
        for way in options.way or WAYS:
            seconds, passed, count, memory = in_process(time_way, options, name, way)
            base = base or seconds
            sys.stdout.write(
                f"  {way:<10} {seconds:8.2f} processor s a question {base / seconds:6.1f}x  "
                f"{passed:8.2f} s on the clock  {memory:6.0f} MB peak  ({count} timed)\n"
            )
            sys.stdout.flush()
    if not options.no_parts:
        sys.stdout.write("\n".join(in_process(time_parts, options)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
