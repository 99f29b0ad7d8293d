"""One line that says what a value measures, like sacreBLEU's signatures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping

from evalkit.contracts import Generation, Json, Sample
from evalkit.task import Task

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def data_hashes(samples: Iterable[Sample]) -> tuple[str, str]:
    """Content hash (32 digits) of all that a split asks and that scoring reads, in order.

    Covers ids, texts, targets, tags and the samples' further data (options, question types). Images are in
    the hashes of the requests.

    Returns:
        The hash, and the one that runs of earlier versions have: of ids, texts and targets alone.
    """
    digest, older = hashlib.sha256(), hashlib.sha256()
    for sample in samples:
        row = _json([sample.id, sample.turns, sample.target])
        older.update(f"{row}\n".encode("ascii"))
        digest.update(f"{row[:-1]}, {_object(sample.tags)}, {_object(sample.data)}]\n".encode("ascii"))
    return digest.hexdigest()[:32], older.hexdigest()[:32]


_json = json.JSONEncoder(sort_keys=True, default=str).encode


def _object(values: Mapping[str, Json]) -> str:
    return _json(dict(values)) if values else "{}"


def subset_hash(samples: Iterable[Sample]) -> str:
    """Six digits over the ids of a chosen subset."""
    names = "\0".join(sample.id for sample in samples)
    return hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def describe_generation(generation: Generation, unsent: Collection[str] = ()) -> str:
    """`greedy,200`, `beams5,100`, `sampled,t0.6,p0.9,200`; `server` for what a server is not told."""
    longest = "server" if "max_tokens" in unsent else generation.max_new_tokens
    if "temperature" in unsent:
        how = "server"
    elif generation.temperature > 0:
        how = f"sampled,t{generation.temperature:g},p{generation.top_p:g}"
    elif generation.num_beams > 1:
        how = f"beams{generation.num_beams}"
    else:
        how = "greedy"
    return f"{how},{longest}"


def signature(
    task: Task,
    split: str,
    *,
    n: int,
    tiles: int,
    generation: Generation,
    dtype: str | None,
    data: str,
    version: str,
    subset: str | None = None,
    judge: str | None = None,
    inputs: str | None = None,
    nonstandard: Mapping[str, Json] | None = None,
    reasoning: str | None = None,
    repeats: int = 1,
    unsent: Collection[str] = (),
    template: str | None = None,
) -> str:
    """The signature, e.g. `drivelm|v1|val|n:15480|tiles:12|prompt:3fa1c2|gen:greedy,200|…`.

    Args:
        inputs: who tokenises and preprocesses (`server`, `processor`), if not evalkit; template and tiling
            are then not the request's.
        unsent: settings of generation that a server is not told.
        template: which prompt, where it is not the one that a released checkpoint names.
        reasoning: what is done with reasoning in the answers, where the protocol does otherwise.
        repeats: how often each sample was asked.
    """
    fields = [
        task.name,
        f"v{task.version}",
        split,
        f"n:{n}",
        f"tiles:{'processor' if inputs == 'processor' else tiles}",
        f"prompt:{task.prompt_fingerprint()}",
        f"gen:{describe_generation(generation, unsent)}",
        f"scorer:{task.scorer_version()}",
        f"dtype:{_DTYPES.get(dtype, dtype) if dtype else 'none'}",
        f"data:{data[:6]}",
    ]
    if subset:
        fields.append(f"subset:{subset}")
    if generation.temperature > 0:
        fields.append(f"seed:{generation.seed}")
    if repeats > 1:
        fields.append(f"repeats:{repeats}")
    if template:
        fields.append(f"template:{template}")
    if inputs:
        fields.append(f"inputs:{inputs}")
    if judge:
        fields.append(f"judge:{judge}")
    if reasoning:
        fields.append(f"reasoning:{reasoning}")
    if nonstandard:
        fields.append("nonstandard:" + ",".join(f"{name}={value}" for name, value in nonstandard.items()))
    fields.append(f"evalkit:{version}")
    return "|".join(field.replace("|", "/").replace("\n", " ") for field in fields)
