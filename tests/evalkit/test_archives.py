"""Archives: what is unpacked, and everything that is refused."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from evalkit.data.archives import is_archive, split_parts, unpack
from evalkit.errors import DataError

FILES = {"a.txt": b"one", "sub/b.bin": b"\0" * 5000}


def tar(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in members:
            file.addfile(member)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".tgz", "w:gz")]
)
def test_tar(tmp_path: Path, out: Path, suffix: str, mode: str) -> None:
    path = tar(tmp_path / f"x{suffix}", FILES, mode=mode)
    assert is_archive(path)
    assert unpack(path, out) == 2
    assert content(out) == FILES


def test_zip(tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.mkdir("empty")
        for name, data in FILES.items():
            file.writestr(name, data)
    assert unpack(tmp_path / "x.zip", out) == 2
    assert content(out) == FILES and (out / "empty").is_dir()


@pytest.mark.parametrize(
    "name",
    ["../evil", "sub/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "\\\\host\\share\\evil", "a/.."],
)
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, out: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(zipfile.ZipInfo("placeholder"), b"x")
        file.filelist[0].filename = name
    with pytest.raises(DataError, match="leaves the folder: refused"):
        unpack(tar(tmp_path / "x.tar", {name: b"x"}, mode="w"), out)
    assert not content(out) and not (tmp_path / "evil").exists()


def test_zip_members_that_leave_the_folder_are_refused(tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("../evil", b"x")
    with pytest.raises(DataError, match="leaves the folder"):
        unpack(tmp_path / "x.zip", out)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        link("evil", "/etc/passwd"),
        link("evil", "a.txt"),
        link("evil", "a.txt", tarfile.LNKTYPE),
        link("evil", "", tarfile.FIFOTYPE),
        link("evil", "", tarfile.CHRTYPE),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, out: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(DataError, match="link or device: refused"):
        unpack(tar(tmp_path / "x.tar.gz", FILES, member), out)
    assert not (out / "evil").exists()


def test_links_in_zip_are_refused(tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        member = zipfile.ZipInfo("evil")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="link or device"):
        unpack(tmp_path / "x.zip", out)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bound_on_what_is_written(tmp_path: Path, out: Path, kind: str) -> None:
    bomb = b"\0" * 3_000_000
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("bomb", bomb)
        path = tmp_path / "x.zip"
    else:
        path = tar(tmp_path / "x.tar.gz", {"bomb": bomb})
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(path, out, size_limit=2_000_000)
    assert sum(len(data) for data in content(out).values()) <= 2_000_000


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar"])
def test_broken_archives(tmp_path: Path, out: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive at all" * 100)
    with pytest.raises(DataError, match="download it again"):
        unpack(tmp_path / name, out)


def test_a_truncated_archive(tmp_path: Path, out: Path) -> None:
    import random

    path = tar(tmp_path / "x.tar.gz", {"a": random.Random(0).randbytes(100_000)})
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(DataError, match="download it again"):
        unpack(path, out)


@pytest.mark.parametrize(
    "names", [("x.tar.gz.part_aa", "x.tar.gz.part_ab"), ("x.tar.aa", "x.tar.ab"), ("x.tgz.000", "x.tgz.001")]
)
def test_split_archives(tmp_path: Path, out: Path, names: tuple[str, str]) -> None:
    whole = tar(
        tmp_path / "whole", FILES, mode="w" if names[0].startswith("x.tar.a") else "w:gz"
    ).read_bytes()
    for name, part in zip(names, (whole[:100], whole[100:]), strict=True):
        (tmp_path / name).write_bytes(part)
    first, second = tmp_path / names[0], tmp_path / names[1]
    assert is_archive(first) and not is_archive(second)
    assert split_parts(first) == [first, second]
    assert unpack(first, out) == 2
    assert content(out) == FILES


@pytest.mark.parametrize("name", ["x.png", "x.json", "x.tar.md5", "readme.aa"])
def test_other_files_are_no_archives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert not is_archive(tmp_path / name)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_attributes_of_macos_are_left_out(suffix: str, tmp_path: Path, out: Path) -> None:
    path, more = tmp_path / f"x{suffix}", {"._a.txt": b"x", "sub/._b.bin": b"x", "__MACOSX/sub/b.bin": b"x"}
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in {**more, **FILES}.items():
                file.writestr(name, data)
    else:
        tar(path, {**more, **FILES})
    assert unpack(path, out) == 2
    assert content(out) == FILES
