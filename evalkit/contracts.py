"""The plain data that flows from sample to summary, and the model contract.

All are frozen and hold only JSON-like values, so they hash, serialise and travel between processes unchanged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image

#: What `json.dumps` takes without help.
Json = Any

#: Most pixels of an image unless `--max-pixels` says otherwise. Decoding takes about 9 bytes a pixel.
MAX_PIXELS = 300_000_000


@runtime_checkable
class ImageHandle(Protocol):
    """An image that can be opened later."""

    def open(self) -> Image:
        """Decode to a PIL image (EXIF orientation applied, any mode).

        Raises:
            ImageError: missing, truncated or absurd, naming the file and the cause.
        """
        ...

    def digest(self) -> str:
        """Content hash of the encoded image, `missing` where it cannot be read. Never raises."""
        ...

    def identity(self) -> str:
        """What planning groups by: equal for equal images, found without reading the file."""
        ...

    def paths(self) -> tuple[str, ...]:
        """Files the image comes from, to show and to check."""
        ...


FinishReason = Literal["stop", "length"]
Flag = Literal["unparsed", "truncated", "near_miss", "error"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing a benchmark asks.

    Attributes:
        id: stable and unique in its split (the scheme of each task is in docs/tasks.md).
        turns: user texts of the conversation, the question last; `<image>` marks where an image goes.
            A text without any `<image>` gets the images in front, as the model's own chat does.
        images: lazy handles in the order of their `<image>` marks; nothing is decoded until needed.
        target: the reference answer in the form the scorer reads; None where labels are not public.
        cluster: what makes samples dependent (frame, photo, clip, document); intervals resample clusters.
        tags: what reports are split by, tag name to raw value.
        data: whatever else the scorer needs (options, box sizes ...).
    """

    id: str
    turns: tuple[str, ...]
    images: tuple[ImageHandle, ...]
    target: Json
    cluster: str
    tags: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation as handed to a model."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Generation:
    """How an answer is generated. `temperature` 0 is greedy."""

    max_new_tokens: int = 100
    min_new_tokens: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0


#: The settings of generation by name: all that `--gen` sets in a model of this process.
GENERATION_FIELDS = tuple(Generation.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """How an image becomes tiles (dynamic tiling of InternVL 1.5).

    Attributes:
        min_tiles, max_tiles: bounds of the grid, thumbnail not counted, for each image.
        thumbnail: whether an image cut in more than one tile is followed by its thumbnail.
        grid: an exact (columns, rows) grid in place of the dynamic choice.
        total_tiles: bound for all images of a request together, or None.
    """

    min_tiles: int = 1
    max_tiles: int = 12
    thumbnail: bool = True
    grid: tuple[int, int] | None = None
    total_tiles: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked for one sample.

    Attributes:
        group: requests of one number share their images and image policy, and lie side by side; the plan of a
            run sets it (`Plan.numbered`) and a model may use it to do work once. None: nothing is known.
    """

    id: str
    messages: tuple[Message, ...]
    images: tuple[ImageHandle, ...]
    generation: Generation = Generation()
    image_policy: ImagePolicy = ImagePolicy()
    group: int | None = field(default=None, compare=False)

    @property
    def draw_seed(self) -> int:
        """The seed of this answer's draws, 31 bits: the run's, mixed with the id.

        One seed for all samples would draw the same numbers for each, and errors would not be independent.
        """
        return mixed_seed(self.generation.seed, self.id)

    def key(self) -> str:
        """Content hash (32 hexadecimal digits) over texts, image contents and settings; not id and group.

        The key of resume: a stored response counts only for a request with the same key.
        An image that cannot be read enters as missing, so that replacing it changes the key.
        """
        images = ",".join([_quoted(image.digest()) for image in self.images])
        messages = ",".join([f"[{_quoted(m.role)},{_quoted(m.text)}]" for m in self.messages])
        # JSON with sorted names; what many requests have in common is not written anew
        text = f'{_settings(self.generation, self.image_policy)}"images":[{images}],"messages":[{messages}]}}'
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def mixed_seed(seed: int, name: str) -> int:
    """A seed for each name, 31 bits: no server takes more."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@lru_cache(maxsize=64)
def _settings(generation: Generation, policy: ImagePolicy) -> str:
    """The beginning of the JSON object that `Request.key` hashes."""
    fields = {"generation": dataclasses.asdict(generation), "image_policy": dataclasses.asdict(policy)}
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text[:-1] + ","


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sample has no answer: a kind to count by (`image`, `memory`, `missing` ...) and one line."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Response:
    """A model's answer, or the error in its place; an error is never an empty answer.

    Attributes:
        finish: `stop` for an ended answer, `length` for one cut by max_new_tokens, None for an error
            or where it is not known (stored predictions).
        prompt_tokens: text tokens of the prompt; visual_tokens: image tokens; new_tokens: generated ones.
        seconds: model time attributed to this answer.
        reasoning: what the model thought before it answered, where it can be separated from the text.
    """

    text: str = ""
    finish: FinishReason | None = None
    prompt_tokens: int = 0
    visual_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    error: Failure | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One scored sample: everything that metrics, comparison and the leaderboard need of it.

    Attributes:
        text: the answer as it was scored; reasoning that was taken out is in `data`.
        prediction: what the parser made of it (JSON). target: the reference (JSON).
        scores: per-sample numbers by name (`accuracy` 0/1, `iou`, `anls` ...).
        flags: `unparsed`, `truncated`, `near_miss` (its kind is in `data`), `error`.
        data: what corpus metrics need besides (hypothesis strings, boxes, a judge's reply ...).
        error: set exactly where flags holds `error`; such a record enters no metric.
        repeats: where the sample was asked, or its answer judged, several times: a record of each time. The
            record itself then has the mean scores and the commonest answer (evalkit.pipeline.repeats).
    """

    id: str
    cluster: str
    text: str
    prediction: Json
    target: Json
    scores: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    data: Mapping[str, Json] = field(default_factory=dict)
    error: Failure | None = None
    repeats: tuple[Record, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the sample has no answer at all."""
        return self.error is not None


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A value with what it rests on.

    Attributes:
        value: full precision in the metric's unit; None with `reason` where it cannot be computed.
        n: samples the value rests on.
        ci95: clustered bootstrap interval (evalkit.statistics); None, with `reason`, where there is none.
        note: what a reader must know of them (few clusters ...).
    """

    value: float | None
    unit: str
    n: int
    ci95: tuple[float, float] | None = None
    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What makes an answer attributable to a model.

    Attributes:
        name: as shown and as in the run folder's path.
        fingerprint: content hash of everything that decides an answer: weights, settings, tokenizer, template
            (or of the predictions file). weights: of the weight files alone, where there are any; a manifest
            without it was written when `fingerprint` was that hash.
        settings: whatever else changes answers (image size, template ...), into the manifest.
        notes: words every output must carry, e.g. "untrained".
        inputs: who tokenises and preprocesses, if not evalkit: `server`,
            `processor`. The request's tiling and template then have no meaning, and the signature says so.
        unsent: settings of generation that a server is not told, so that its own hold; the signature says so.
        template: which prompt, where it is not the one that a released checkpoint names; in the signature.
        free_options: options of the model (`--gen`) that change no answer and may differ between sessions.
    """

    name: str
    revision: str | None = None
    fingerprint: str | None = None
    weights: str | None = None
    dtype: str | None = None
    device: str | None = None
    engine: str = "local"
    parameters: int | None = None
    settings: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: str | None = None
    free_options: tuple[str, ...] = ()
    unsent: tuple[str, ...] = ()
    template: str | None = None


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What the command line may set about a model; a family refuses what it cannot honour.

    Attributes:
        prefix_caching: whether work that requests have in common is done once; it changes no answer.
        compile: whether the network is run through torch.compile.
        template: how conversations are written; `auto` is as the checkpoint says.
        max_pixels: most pixels of an image; evalkit's own image handles keep to it without the family's help.
    """

    checkpoint: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    seed: int = 0
    base_url: str | None = None
    offline: bool = False
    prefix_caching: bool = True
    compile: bool = False
    template: str = "auto"
    max_pixels: int = MAX_PIXELS
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def sharing(self) -> bool:
        """The earlier name of `prefix_caching`."""
        return self.prefix_caching


@runtime_checkable
class Model(Protocol):
    """What the runner needs of a model."""

    @property
    def info(self) -> ModelInfo:
        """Identity of the model."""
        ...

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """Answer a plan window of requests, in any order, as they finish.

        Yields exactly one (request id, response) for each request; what goes wrong with one request
        (an unreadable image) is its response's `error`, what goes wrong with the model raises.
        """
        ...

    def close(self) -> None:
        """Free devices and processes."""
        ...


@runtime_checkable
class SampleAware(Protocol):
    """A model of stored answers, which receives the ids of the samples before it is asked."""

    def bind_samples(self, ids: Collection[str]) -> Mapping[str, int]:
        """Take note of the ids of the whole split; returns counts for the summary (`unknown` ...)."""
        ...


@runtime_checkable
class ModelFamily(Protocol):
    """A kind of model found by the entry point group `evalkit.models`.

    It may also name, as `unused`, options of a run that its models have no use for: `load` refuses those that
    are given, and an environment variable that sets one for every model is passed over.
    """

    def names(self) -> Sequence[str]:
        """Names and schemes to list, e.g. `mini-internvl-2b`, `predictions:FILE`."""
        ...

    def matches(self, spec: str) -> bool:
        """Whether `spec` (what follows `--model`) belongs to this family. Cheap: no heavy imports."""
        ...

    def load(self, spec: str, options: ModelOptions) -> Model:
        """Load the model.

        Raises:
            UsageError: an option this family cannot honour.
            CheckpointError: weights missing, corrupt or refused.
        """
        ...
