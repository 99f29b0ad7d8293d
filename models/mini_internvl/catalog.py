"""Names of the released checkpoints and the hub repositories they stand for. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mini_internvl.prompts import INTERNLM_V15_SYSTEM, PHI3_V15_SYSTEM

TINY = "mini-internvl-tiny"
"""The model that comes with the package, small enough for any machine."""

TINY_FOLDER = Path(__file__).parent / "tiny"


@dataclass(frozen=True)
class Release:
    """One published checkpoint.

    Attributes:
        name: the short name.
        hub_id: the repository on the Hugging Face hub; empty for the model inside the package.
        gigabytes: size of its bfloat16 weights.
        licence: of the checkpoint and of the language model in it; the card of the repository decides.
        about: one line for lists.
        system_message: overrides the template's system message; None keeps it.
    """

    name: str
    hub_id: str
    gigabytes: float
    licence: str
    about: str
    system_message: str | None = None


_SIZES = {
    "1b": (1.9, "MIT; contains Qwen2-0.5B (Apache-2.0)"),
    "2b": (4.4, "MIT; contains InternLM2-1.8B (Apache-2.0)"),
    "4b": (8.3, "MIT; contains Phi-3-mini (MIT)"),
}
_DOMAINS = {
    "drivelm": ("DriveLM", "driving (DriveLM)"),
    "bdd": ("BDD", "driving (BDD-X)"),
    "rs": ("RS", "remote sensing"),
    "medical": ("Medical", "medical images"),
}


def _releases() -> dict[str, Release]:
    found = [Release(TINY, "", 0.01, "Apache-2.0", "the embedded model of this package")]
    for size, (gigabytes, licence) in _SIZES.items():
        found.append(
            Release(
                f"mini-internvl-{size}", f"OpenGVLab/InternVL2-{size.upper()}", gigabytes, licence, "general"
            )
        )
    for size, system in (("2b", INTERNLM_V15_SYSTEM), ("4b", PHI3_V15_SYSTEM)):
        gigabytes, licence = _SIZES[size]
        hub_id = f"OpenGVLab/Mini-InternVL-Chat-{size.upper()}-V1-5"
        name = f"mini-internvl-chat-{size}-v1-5"
        found.append(Release(name, hub_id, gigabytes, licence, "general, first release", system))
    for size, (gigabytes, licence) in _SIZES.items():
        for domain, (suffix, about) in _DOMAINS.items():
            hub_id = f"OpenGVLab/Mini-InternVL2-{size.upper()}-DA-{suffix}"
            found.append(Release(f"mini-internvl-{size}-da-{domain}", hub_id, gigabytes, licence, about))
    return {release.name: release for release in found}


RELEASES = _releases()
"""Every release by its short name."""


def release_of_folder(folder: Path) -> Release | None:
    """The release whose repository has the folder's name, so that a download keeps its own settings."""
    wanted = folder.resolve().name.lower()
    return next((r for r in RELEASES.values() if r.hub_id and r.hub_id.lower().endswith(f"/{wanted}")), None)


def find_release(name: str) -> Release | None:
    """The release of a short name or hub id, in any case; `mini-internvl2-…` means `mini-internvl-…`."""
    wanted = name.strip().lower()
    for release in RELEASES.values():
        if wanted in (release.name, release.hub_id.lower()):
            return release
    if wanted.startswith("mini-internvl2-"):
        return RELEASES.get(wanted.replace("mini-internvl2-", "mini-internvl-", 1))
    return None
