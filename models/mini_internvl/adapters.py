"""LoRA adapters that are merged into the weights of their base while those are read.

Two forms: PEFT's folder (`adapter_config.json`, `adapter_model.safetensors`), as peft, ms-swift and
LLaMA-Factory write it, and InternVL's, where base and adapter are one checkpoint under PEFT's names. Their
names may be those of the released or of transformers' native layout, whichever the base is stored in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mini_internvl.adapter_config import CONFIG, AdapterConfig
from mini_internvl.config import MiniInternVLConfig
from mini_internvl.errors import CheckpointError
from mini_internvl.layout import Recipe, canonical_adapted, native_recipe, released_recipe
from mini_internvl.unreadable import refuse_unreadable
from mini_internvl.weights import WeightReader

WEIGHTS = "adapter_model.safetensors"

BASE_FINGERPRINT = "base_fingerprint"
"""Entry of the weight file's metadata: identity of the checkpoint that the adapter was trained on."""

_LORA = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(?:\.(?P<rest>.+))?"
)
_EMBEDDING = "language_model.model.embed_tokens.weight"
_HEAD = "language_model.lm_head.weight"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter in PEFT's form instead of a model.

    Raises:
        CheckpointError: it holds both.
    """
    if not (folder / CONFIG).is_file():
        return False
    if (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file():
        raise CheckpointError(f"{folder}: holds a model and an adapter ({CONFIG}); put one of them elsewhere")
    return True


def adapter_weights(folder: Path) -> Path:
    """The weight file of an adapter folder.

    Raises:
        CheckpointError: there is none, it is pickled, or other weights lie beside it.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        refuse_unreadable(folder)
        raise CheckpointError(f"{folder}: holds {CONFIG} but no {WEIGHTS}")
    others = sorted(
        p.name for p in folder.glob("*.safetensors") if p.name not in (WEIGHTS, "adapter.safetensors")
    )
    if others:
        raise CheckpointError(
            f"{folder}: holds {others[0]} beside the adapter, which is not of PEFT's form; merge both "
            "with the program that wrote them"
        )
    return path


def is_adapted(name: str) -> bool:
    """Whether a stored name is of an adapter."""
    return _LORA.fullmatch(name) is not None


class _Layer:
    """Stored names of one layer's change."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.parts: dict[str, str] = {}


class Adapter:
    """The changes that an adapter makes to the weights of a network.

    Args:
        where: folder, for errors.
        names: stored tensors of the adapter. fetch: reads one.
        scale: of a layer (its name in the model that was trained, the rank) what B A is multiplied by.
    """

    def __init__(
        self,
        where: Path,
        names: Iterable[str],
        fetch: Callable[[str], Tensor],
        scale: Callable[[str, int], float],
    ) -> None:
        self._where, self._fetch, self._scale = where, fetch, scale
        self._layers: dict[str, _Layer] = {}
        self._replaced: dict[str, str] = {}
        self._used: set[str] = set()
        adapters: set[str] = set()
        for name in names:
            found = _LORA.fullmatch(name)
            if found is None:
                self._replace(name)
                continue
            rest = [part for part in (found["rest"] or "").split(".") if part]
            kind = rest.pop() if rest and rest[-1] in ("weight", "bias") else "weight"
            adapters.add(".".join(rest))
            module = re.sub(r"^(?:module\.|_orig_mod\.|base_model\.model\.)+", "", found["module"])
            layer = self._layers.setdefault(canonical_adapted(f"{found['module']}.weight"), _Layer(module))
            part = found["part"] if kind == "weight" else f"{found['part']}.bias"
            if layer.parts.setdefault(part, name) != name:
                raise self._error(f"{layer.parts[part]} and {name} are the same weight")
        if len(adapters) > 1:
            raise self._error(
                f"holds {len(adapters)} adapters ({', '.join(sorted(adapters))}); keep one of them"
            )
        for layer in self._layers.values():
            if {"A", "B"} - layer.parts.keys() and {"embedding_A", "embedding_B"} - layer.parts.keys():
                raise self._error(f"{layer.module} lacks one of its two matrices")
            odd: list[str] = [part for part in ("A.bias", "embedding_B.bias") if part in layer.parts]
            odd += ["magnitude_vector"] if {"embedding_A", "magnitude_vector"} <= layer.parts.keys() else []
            if odd:
                raise self._error(f"{layer.parts[odd[0]]}: weights of this kind are not supported")

    def _replace(self, name: str) -> None:
        if ".lora_" in name or "trainable_tokens" in name:
            raise self._error(f"{name}: weights of this kind are not supported")
        plain = canonical_adapted(re.sub(r"\.modules_to_save(\.default)?\.", ".", name))
        other = self._replaced.setdefault(plain, name)
        if other != name:
            raise self._error(f"{other} and {name} are the same weight")

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """An adapter in PEFT's form.

        Raises:
            CheckpointError: of another kind, damaged, or not whole.
        """
        config = AdapterConfig.read(folder)
        reader = WeightReader([adapter_weights(folder)])
        found = cls(folder, reader.names(), reader.fetch, config.scale)
        config.check_targets(
            (layer.module for layer in found._layers.values()), found._has("magnitude_vector")
        )
        return found

    @classmethod
    def inside(cls, folder: Path, reader: WeightReader, ranks: tuple[int, int]) -> Adapter | None:
        """InternVL's form: the adapter among the weights of its base, or None.

        Args:
            ranks: `use_backbone_lora` and `use_llm_lora` of config.json; alpha is twice the rank.
        """
        names = [name for name in reader.names() if is_adapted(name)]
        if not names:
            return None

        def scale(module: str, rank: int) -> float:
            part, key = (
                (0, "use_backbone_lora") if module.startswith("vision_model.") else (1, "use_llm_lora")
            )
            if rank != ranks[part]:
                raise CheckpointError(
                    f"{folder}: {module} has an adapter of rank {rank}, but {key} of config.json is "
                    f"{ranks[part]}, so its scale is not known; where alpha was twice the rank, set it so"
                )
            return 2.0

        return cls(folder, names, reader.fetch, scale)

    def _has(self, part: str) -> bool:
        return any(part in layer.parts for layer in self._layers.values())

    @property
    def layers(self) -> int:
        """How many layers it changes."""
        return len(self._layers)

    def stores(self, name: str, config: MiniInternVLConfig) -> bool:
        """Whether it holds the network's parameter `name` whole, in place of the base's."""
        return self._whole(name, config) is not None

    def rows(self, config: MiniInternVLConfig) -> int:
        """Rows of the embedding: those of its own, where a fine-tuning added tokens, else the base's."""
        whole = self._whole(_EMBEDDING, config)
        return (
            int(config.llm["vocab_size"])
            if whole is None
            else len(self._fetch(self._replaced[whole.sources[0]]))
        )

    def check_tying(self, config: MiniInternVLConfig) -> None:
        """Refuses a change of the embedding or the head where both are one weight.

        Raises:
            CheckpointError: PEFT's network and the merged one would differ.
        """
        if not config.llm.get("tie_word_embeddings"):
            return
        for name in (_EMBEDDING, _HEAD):
            if any(source in self._layers for recipe in _recipes(name, config) for source in recipe.sources):
                raise self._error("adapts the embedding or the head of a base that has both as one weight")

    def merged(self, name: str, tensor: Tensor | None, config: MiniInternVLConfig) -> Tensor:
        """A parameter of the network with the adapter's change, in float32 where there is one.

        Args:
            name: of the parameter. tensor: the base's; None where the adapter holds it whole.

        Raises:
            CheckpointError: the change has another shape, or is of another rank than the settings say.
        """
        whole = self._whole(name, config)
        if whole is not None:
            tensor = whole.make(lambda source: self._take(self._replaced[source]))
        assert tensor is not None
        for recipe in _recipes(name, config):
            if not any(self._change_of(source) for source in recipe.sources):
                continue
            try:
                return self._changed(name, tensor, recipe)
            except RuntimeError as error:
                raise self._error(
                    f"the change of {name} does not fit its {list(tensor.shape)}: was the adapter trained on "
                    f"another base? ({str(error).splitlines()[0]})"
                ) from error
        return tensor

    def check_used(self) -> None:
        """Refuses an adapter with weights that the base has no place for.

        Raises:
            CheckpointError: names them.
        """
        stored = {name for layer in self._layers.values() for name in layer.parts.values()}
        unused = sorted((stored | set(self._replaced.values())) - self._used)
        if unused:
            shown = ", ".join(unused[:5]) + (", …" if len(unused) > 5 else "")
            raise self._error(
                f"{len(unused)} weights of the adapter have no place in the base: {shown}; give the base "
                "that it was trained on"
            )

    def _changed(self, name: str, tensor: Tensor, recipe: Recipe) -> Tensor:
        """W + s B A; with DoRA, its rows scaled to the magnitudes that were learned."""
        share = (tensor.shape[0] // len(recipe.sources), *tensor.shape[1:])
        changes = {source: self._change(source, tensor.device) for source in recipe.sources}
        delta = recipe.make(_filled(changes, torch.zeros(share, device=tensor.device)))
        if delta.shape != tensor.shape:
            raise RuntimeError(f"the change is {list(delta.shape)}")
        result = tensor.float() + delta
        magnitudes = {source: self._magnitude(source, tensor.device) for source in recipe.sources}
        if all(each is None for each in magnitudes.values()):
            return result
        unset = torch.full(share[:1], float("nan"), device=tensor.device)
        wanted = recipe.make(_filled(magnitudes, unset))
        norms = result.norm(dim=1)
        return result * torch.where(wanted.isnan(), 1.0, wanted / norms)[:, None]

    def _change(self, source: str, device: torch.device) -> Tensor | None:
        """The change of a stored tensor, float32."""
        layer = self._change_of(source)
        if layer is None:
            return None
        if source.endswith(".bias"):
            rank = len(self._fetch(layer.parts["A"]))
            return self._matrix(layer, "B.bias", device) * self._scale(layer.module, rank)
        if "embedding_A" in layer.parts:
            a, b = (self._matrix(layer, part, device) for part in ("embedding_A", "embedding_B"))
            return (b @ a).T * self._scale(layer.module, len(a))
        a, b = (self._matrix(layer, part, device) for part in ("A", "B"))
        return b @ a * self._scale(layer.module, len(a))

    def _magnitude(self, source: str, device: torch.device) -> Tensor | None:
        layer = self._layers.get(source)
        if layer is None or "magnitude_vector" not in layer.parts:
            return None
        return self._matrix(layer, "magnitude_vector", device).flatten()

    def _matrix(self, layer: _Layer, part: str, device: torch.device) -> Tensor:
        matrix = self._take(layer.parts[part]).float().to(device)
        if not matrix.numel():
            raise self._error(
                f"{layer.parts[part]} is empty: shards of ZeRO-3 or FSDP were not gathered when it was saved"
            )
        return matrix

    def _take(self, name: str) -> Tensor:
        self._used.add(name)
        return self._fetch(name)

    def _change_of(self, source: str) -> _Layer | None:
        """The layer that changes a stored tensor."""
        if source.endswith(".bias"):
            layer = self._layers.get(f"{source.removesuffix('.bias')}.weight")
            return layer if layer is not None and "B.bias" in layer.parts else None
        return self._layers.get(source)

    def _whole(self, name: str, config: MiniInternVLConfig) -> Recipe | None:
        """How a parameter is made of the adapter's own weights, where it holds it."""
        for recipe in _recipes(name, config):
            held = [source for source in recipe.sources if source in self._replaced]
            if held and len(held) < len(recipe.sources):
                raise self._error(
                    f"{self._replaced[held[0]]}: is a part of {name}, whose other parts are absent"
                )
            if held:
                return recipe
        return None

    def _error(self, text: str) -> CheckpointError:
        return CheckpointError(f"{self._where}: {text}")


def _filled(parts: Mapping[str, Tensor | None], empty: Tensor) -> Callable[[str], Tensor]:
    """Parts by name, with `empty` for those that are not there."""

    def fetch(source: str) -> Tensor:
        part = parts[source]
        return empty if part is None else part

    return fetch


def _recipes(name: str, config: MiniInternVLConfig) -> Sequence[Recipe]:
    """Where a parameter is in the released and in the native layout."""
    return released_recipe(name, config), native_recipe(name)


def base_fingerprint(folder: Path) -> str | None:
    """The identity of the base that an adapter folder names, where `evalkit train` wrote it."""
    try:
        with safe_open(adapter_weights(folder), framework="pt") as file:
            return (file.metadata() or {}).get(BASE_FINGERPRINT)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: is damaged or incomplete ({error}); save it again"
        ) from error
