"""Data sets at addresses and in archives: what is fetched, again or not, and what is refused."""

from __future__ import annotations

import csv
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import snl
from snl.cli.main import main
from snl.data import local_copy as copying
from snl.data.local_copy import INDEX, is_elsewhere, local_copy
from snl.errors import DataError
from tests.conftest import TINY_OPTIONS

fsspec = pytest.importorskip("fsspec", reason="the extra `remote` is not installed")


@pytest.fixture
def bucket(parts: Path) -> Iterator[str]:
    """The address of a copy of the parts, in memory."""
    fs = fsspec.filesystem("memory")
    fs.put(str(parts), "/plant/parts", recursive=True)
    yield "memory://plant/parts"
    fs.rm("/plant", recursive=True)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fetched(source: str, folder: Path) -> tuple[Path, int]:
    """The copy, and how many files were fetched for it."""
    calls: list[tuple[int, int]] = []
    path = local_copy(source, folder, lambda done, total: calls.append((done, total)))
    return path, len(calls)


# --- a folder ---


def test_a_folder_is_copied_whole(bucket: str, parts: Path, tmp_path: Path) -> None:
    copy, count = fetched(bucket, tmp_path)
    assert tree(copy) == tree(parts) and count == len(tree(parts))
    ours, theirs = snl.Catalog.read(copy), snl.Catalog.read(parts)
    assert ours.fingerprint() == theirs.fingerprint() and copy.name == "parts"


def test_only_what_has_changed_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    copy, _ = fetched(bucket, tmp_path)
    assert fetched(bucket, tmp_path) == (copy, 0)
    fs = fsspec.filesystem("memory")
    first, second, *_ = sorted(fs.find("/plant/parts"))
    content = fs.cat_file(first)
    fs.pipe_file(first, content + b"\0")
    fs.rm_file(second)
    fs.pipe_file("/plant/parts/new/train/good/a.png", content)
    copy, count = fetched(bucket, tmp_path)
    assert count == 2
    remote = {path.removeprefix("/plant/parts/"): fs.cat_file(path) for path in fs.find("/plant")}
    assert tree(copy) == remote


def test_a_copy_that_lost_files_is_mended(bucket: str, parts: Path, tmp_path: Path) -> None:
    copy, _ = fetched(bucket, tmp_path)
    lost = sorted(copy.rglob("*.png"))[:3]
    for path in lost:
        path.unlink()
    assert fetched(bucket, tmp_path)[1] == 3
    assert tree(copy) == tree(parts)


def test_an_interrupted_copy_goes_on(
    bucket: str, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local_copy(bucket, tmp_path, stop)
    index = next(tmp_path.rglob(INDEX))
    assert len(index.read_text().splitlines()) == 5
    with index.open("a") as file:
        file.write('{"name": "cut o')  # a crash while it was written
    copy, count = fetched(bucket, tmp_path)
    assert count == len(tree(parts)) - 5 and tree(copy) == tree(parts)


def test_hidden_and_other_files_stay_where_they_are(bucket: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    for name in (".git/a.png", "part/.a.png", "notes.docx", "_tmp/b.png"):
        fs.pipe_file(f"/plant/parts/{name}", b"x")
    copy, _ = fetched(bucket, tmp_path)
    assert not [name for name in tree(copy) if name.endswith(("a.png", "docx", "b.png"))]


# --- archives and tables ---


def archive(folder: Path, path: Path, names: list[str] | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for name in sorted(tree(folder)) if names is None else names:
            file.add(folder / name, name)
    return path


@pytest.mark.parametrize("name", ["parts.tar", "parts.tar.gz"])
def test_an_archive_is_unpacked(parts: Path, tmp_path: Path, name: str) -> None:
    path = archive(parts, tmp_path / name)
    copy, count = fetched(str(path), tmp_path / "copies")
    assert tree(copy) == tree(parts) and count == 1 and copy.name == "parts"
    assert fetched(str(path), tmp_path / "copies")[1] == 0


def test_archives_of_a_folder_make_one_data_set(parts: Path, tmp_path: Path) -> None:
    names = sorted(tree(parts))
    (tmp_path / "tars").mkdir()
    archive(parts, tmp_path / "tars/0.tar", names[:20])
    archive(parts, tmp_path / "tars/1.tar", names[20:])
    source = (tmp_path / "tars").as_uri()
    copy, count = fetched(source, tmp_path / "copies")
    assert tree(copy) == tree(parts) and count == 2
    archive(parts, tmp_path / "tars/1.tar", names[20:22])
    copy, count = fetched(source, tmp_path / "copies")
    assert sorted(tree(copy)) == names[:22] and count == 1


def test_archives_with_equal_names_are_refused(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    for number in range(2):
        archive(parts, tmp_path / f"tars/{number}.tar", sorted(tree(parts))[:3])
    with pytest.raises(DataError, match="different archives different names"):
        local_copy((tmp_path / "tars").as_uri(), tmp_path / "copies")


@pytest.mark.parametrize("name", ["../../evil.png", "/evil.png", "a/../../evil.png"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        member = tarfile.TarInfo(name)
        member.size = 3
        file.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(DataError, match=r"no name of a file|no images"):
        local_copy(str(tmp_path / "a.tar"), tmp_path / "copies")
    assert not list(tmp_path.rglob("evil.png")) and not list(tmp_path.parent.glob("evil.png"))


def test_a_manifest_and_the_files_it_lists(bucket: str, parts: Path, tmp_path: Path) -> None:
    names = [name for name in sorted(tree(parts)) if "/train/good/" in name][:6]
    text = "path,product\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names)
    fsspec.filesystem("memory").pipe_file("/plant/parts/list.csv", text.encode())
    copy, count = fetched(f"{bucket}/list.csv", tmp_path)
    assert copy.name == "list.csv" and count == 7
    catalog = snl.Catalog.read(copy)
    assert len(catalog.train()) == 6
    assert fetched(f"{bucket}/list.csv", tmp_path)[1] == 0


def test_a_manifest_with_a_missing_file(bucket: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/plant/parts/list.csv", b"path\nno.png\n")
    with pytest.raises(DataError, match=r"no\.png: does not exist"):
        local_copy(f"{bucket}/list.csv", tmp_path)


def test_a_table_with_images(parts: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    import pyarrow.parquet as pq

    catalog = snl.Catalog.read(parts)
    table = pyarrow.table(
        {
            "image": [{"bytes": r.path.read_bytes()} for r in catalog.records],
            "product": [r.product for r in catalog.records],
            "split": [r.split for r in catalog.records],
            "label": [r.label for r in catalog.records],
        }
    )
    pq.write_table(table, tmp_path / "parts.parquet")
    copy, _ = fetched((tmp_path / "parts.parquet").as_uri(), tmp_path / "copies")
    ours = snl.Catalog.read(copy)
    assert [(r.product, r.split, r.label) for r in ours.records] == [
        (r.product, r.split, r.label) for r in catalog.records
    ]
    assert [r.path.read_bytes() for r in ours.records] == [
        r.path.read_bytes() for r in catalog.records
    ]
    with (copy).open(newline="") as file:
        assert next(csv.reader(file)) == ["path", "product", "split", "label"]


# --- wrong input, and training ---


def test_what_is_elsewhere() -> None:
    assert all(map(is_elsewhere, ("s3://a/b", "https://h/x.csv", "a.tar", "b/c.TGZ")))
    assert not any(map(is_elsewhere, ("parts", "list.csv", "a.parquet", "c://x")))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("memory://plant/nothing", "does not exist"),
        ("memory://plant/no.tar", "does not exist"),
        ("memory://plant/no.csv", "does not exist"),
        ("nosuch://bucket/x", "nosuch"),
        ("no.tar", "does not exist"),
    ],
)
def test_nothing_there_is_one_line(
    source: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.snl"
    cache = str(tmp_path / "copies")
    assert main(["train", source, "-o", str(output), "--data-cache", cache, "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
    assert not output.exists()


def test_a_cut_archive_is_refused(parts: Path, tmp_path: Path) -> None:
    path = archive(parts, tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="damaged or cut off"):
        local_copy(str(path), tmp_path / "copies")


def test_a_full_disk_is_said_before(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(DataError, match="--data-cache"):
        local_copy(bucket, tmp_path)


def test_a_cache_folder_that_is_a_file(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="--data-cache"):
        local_copy(bucket, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert copying.cache_folder() == tmp_path / "snl" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert copying.cache_folder() == Path.home() / ".cache" / "snl" / "data"


def test_a_training_from_an_address_is_that_from_the_folder(
    bucket: str, parts: Path, tmp_path: Path
) -> None:
    for source, name in ((bucket, "a"), (str(parts), "b")):
        words = ["train", source, "-o", str(tmp_path / f"{name}.snl"), *TINY_OPTIONS]
        assert main([*words, "--data-cache", str(tmp_path / "copies"), "--quiet"]) == 0
    ours, theirs = (snl.load(tmp_path / f"{name}.snl", "cpu") for name in "ab")
    assert ours.metadata.network == theirs.metadata.network
