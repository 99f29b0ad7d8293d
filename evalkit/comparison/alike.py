"""May these two runs be compared? One answer for the command line and every page of the leaderboard.

It rests on what the runs say of themselves: signature, protocol and data. A comparison checks the requests
and images of each sample besides, and refuses where they differ although the rest is equal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Fields without which there is nothing in common to compare.
_FIXED = ("task", "split", "protocol")
#: How many samples and which: they differ together, and allowing one allows both.
SUBSET_FIELDS = frozenset({"n", "subset"})


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run measured.

    Attributes:
        fields: of the signature by name, and the protocol.
        data: hash of the data; older_data: as earlier versions made it, all that their runs have.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    older_data: str | None = None


def measured(signature: str, protocol: str, manifest: Mapping[str, Any]) -> Measured:
    """What the run of that signature and manifest measured."""
    fields = {**_with_seed(signature_fields(signature), manifest), "protocol": protocol}
    return Measured(fields, *_data_hashes(manifest))


def signature_fields(signature: str) -> dict[str, str]:
    """Fields of a signature by name; the first three are task, version and split."""
    named = dict(zip(("task", "version", "split"), signature.split("|")[:3], strict=False))
    for part in signature.split("|")[3:]:
        name, _, value = part.partition(":")
        named[name] = value
    return named


def refusal(base: Measured, new: Measured, allow: Collection[str] = ()) -> str | None:
    """Why two runs must not be compared, naming the fields that differ; None where nothing stands against it.

    Args:
        allow: fields that may differ.
    """
    if older_data_alone(base, new):
        allow = {*allow, "data"}
    if SUBSET_FIELDS & set(allow):
        allow = {*allow, *SUBSET_FIELDS}
    names = dict.fromkeys([*_FIXED, *base.fields, *new.fields])
    differing = [name for name in names if base.fields.get(name) != new.fields.get(name)]
    fixed = [name for name in differing if name in _FIXED]
    refused = fixed or [name for name in differing if name not in allow]
    if not refused:
        return None
    listed = ", ".join(
        f"{name} ({base.fields.get(name, 'none')} | {new.fields.get(name, 'none')})" for name in refused
    )
    fix = (
        "score or run one of them again under the other's"
        if fixed
        else "to compare them knowingly: " + " ".join(_allowing(refused))
    )
    return f"{listed} differ{'s' if len(refused) == 1 else ''}; {fix}"


def older_data_alone(base: Measured, new: Measured) -> bool:
    """Whether a side's data hash is of the older form, and the two agree as far as it goes."""
    old = base if base.data is None else new
    return old.data is None and old.older_data is not None and base.older_data == new.older_data


def _allowing(fields: Sequence[str]) -> list[str]:
    """The flags that let these fields differ; one flag for how many samples and which."""
    return list(dict.fromkeys(f"--allow {'subset' if name in SUBSET_FIELDS else name}" for name in fields))


def _with_seed(fields: Mapping[str, str], manifest: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a drawn run with its seed, which earlier versions left out or called non-standard."""
    found = dict(fields)
    settings = manifest.get("settings")
    generation = settings.get("generation") if isinstance(settings, Mapping) else None
    drawn = found.get("gen", "").startswith("sampled")
    if "seed" in found or not drawn or not isinstance(generation, Mapping):
        return found
    found["seed"] = str(generation.get("seed", 0))
    changed = found.pop("nonstandard", "").split(",")
    kept = ",".join(part for part in changed if part and not part.startswith("seed="))
    return {**found, "nonstandard": kept} if kept else found


def _data_hashes(manifest: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Hashes of the data that a run was last scored on; earlier versions have the older one alone."""
    scored, data = manifest.get("scored"), manifest.get("data")
    scored = scored if isinstance(scored, Mapping) else {}
    data = data if isinstance(data, Mapping) else {}
    content, older = (
        (scored.get("data"), scored.get("older_data"))
        if scored.get("data")
        else (data.get("hash"), data.get("older_hash"))
    )
    return (content, older) if older else (None, content)
