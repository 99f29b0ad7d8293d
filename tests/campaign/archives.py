"""Hostile archives: damaged, cut, and with members that would leave their folder."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from campaign.mutations import difference, mutate_bytes
from campaign.trial import Trial, Verdict, ask, judge, told
from evalkit.data.archives import unpack

MEMBERS = {"a/test.json": b'[{"id": 1}]' * 9, "a/b/p.png": bytes(range(256)) * 3, "empty.txt": b""}
#: Names by which a member would leave the folder.
ESCAPES = ("../x", "/tmp/campaign-escape", "a/../../x", "C:\\x", "..\\x", "a\\..\\..\\x", "x\0y")


def zipped(members: dict[str, bytes], method: int) -> bytes:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def tarred(members: dict[str, bytes], mode: str, link: str = "") -> bytes:
    """A tar file, with a link where one is named."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return file.getvalue()


def members_of(name: str, data: bytes) -> dict[str, bytes] | None:
    """Names and contents of a tar that is whole from its first header to its end mark, read block by block.

    A file that was lost with all of its blocks leaves such an archive: nothing in the format counts members.
    """
    opened = {"gz": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress}
    with contextlib.suppress(Exception):
        data = opened.get(name.rpartition(".")[2], bytes)(data)
        found, at = {}, 0
        while data[at : at + 512].strip(b"\0"):
            header = tarfile.TarInfo.frombuf(data[at : at + 512], "utf-8", "strict")
            found[header.name] = data[at + 512 : at + 512 + header.size]
            at += 512 + -(-header.size // 512) * 512
        return found if len(data) >= at + 512 else None
    return None


class Archives(Trial):
    """What is unpacked is what was packed, or other bytes, or there is a message; nothing gets out."""

    name = "archives"
    share = 2.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = {
            "stored.zip": zipped(MEMBERS, zipfile.ZIP_STORED),
            "deflated.zip": zipped(MEMBERS, zipfile.ZIP_DEFLATED),
            "bzip2.zip": zipped(MEMBERS, zipfile.ZIP_BZIP2),
            "lzma.zip": zipped(MEMBERS, zipfile.ZIP_LZMA),
            "plain.tar": tarred(MEMBERS, "w"),
            "gzip.tar.gz": tarred(MEMBERS, "w:gz"),
            "bzip2.tar.bz2": tarred(MEMBERS, "w:bz2"),
            "xz.tar.xz": tarred(MEMBERS, "w:xz"),
        }
        self.target = folder / "inside" / "target"
        self.before = MEMBERS
        for name, data in self.files.items():
            assert self._unpacked(name, data) == MEMBERS, name

    def once(self, rng: random.Random) -> Verdict:
        """Unpack one."""
        name = rng.choice(list(self.files))
        good = self.files[name]
        if rng.random() < 0.1:
            return self._escape(rng)
        data = mutate_bytes(good, rng)
        said = ask(lambda: self._unpacked(name, data))
        if verdict := self._outside():
            return verdict
        verdict = judge(said, MEMBERS, touched=lambda: False, file=name)
        fewer = said.value is not None and len(said.value) < len(MEMBERS)
        if verdict.kind == "held" and fewer and said.value != members_of(name, data):
            verdict = Verdict("silent", f"{len(said.value)} of {len(MEMBERS)} files, without a word")
        return told(verdict, lambda: f"{name}: {difference(good, data)}")

    def _escape(self, rng: random.Random) -> Verdict:
        """A well-formed archive that would write elsewhere, or through a link, or without end."""
        name = rng.choice(ESCAPES)
        members = {"good.txt": b"x", name: b"escaped"}
        kind = rng.choice(("zip", "tar", "link", "bomb"))
        if kind == "zip":
            said = ask(lambda: self._unpacked("e.zip", zipped(members, zipfile.ZIP_STORED)))
        elif kind == "tar":
            said = ask(lambda: self._unpacked("e.tar", tarred(members, "w")))
        elif kind == "link":
            said = ask(lambda: self._unpacked("e.tar", tarred(MEMBERS, "w", "/etc")))
        else:
            bomb = zipped({"zeros": b"\0" * 5_000_000}, zipfile.ZIP_DEFLATED)
            said = ask(lambda: self._unpacked("e.zip", bomb, 100_000))
        if verdict := self._outside():
            return verdict
        inside = kind != "bomb" and name == "x\0y"  # the format ends a name there
        return judge(said, None, touched=lambda: not inside) if said.raw or not inside else Verdict()

    def _unpacked(self, name: str, data: bytes, limit: int = 10**7) -> dict[str, bytes]:
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir(parents=True)
        path = self.folder / name
        path.write_bytes(data)
        unpack(path, self.target, limit)
        files = (path for path in self.target.rglob("*") if path.is_file())
        return {path.relative_to(self.target).as_posix(): path.read_bytes() for path in files}

    def _outside(self) -> Verdict | None:
        """Whether something was written outside the target."""
        found: list[Any] = [path for path in (self.folder / "inside").iterdir() if path != self.target]
        found += [path for path in (Path("/tmp/campaign-escape"), self.folder / "x") if path.exists()]
        links = [path for path in self.target.rglob("*") if path.is_symlink()]
        return Verdict("lost", f"written outside: {found + links}") if found or links else None


TRIALS = (Archives,)
