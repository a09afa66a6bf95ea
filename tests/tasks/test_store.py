import multiprocessing
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.specs.canonical import sha256
from fedloom.tasks.errors import ConfigurationError, StoreError
from fedloom.tasks.store import RunStore


@given(data=st.binary(max_size=2000))
def test_what_is_written_is_read_back_on_a_memory_store(data: bytes) -> None:
    store = RunStore("memory://fedloom-test")
    stored = store.write("a/b.bin", data)
    assert store.read("a/b.bin", expect=stored.sha256) == data
    assert (stored.sha256, stored.bytes) == (sha256(data), len(data))


def test_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    store.write("x/y.json", b"old")
    store.write("x/y.json", b"new")
    assert store.read("x/y.json") == b"new"
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["y.json"]


@pytest.mark.parametrize("place", ["folder", "memory://listed"])
def test_objects_are_listed_read_together_and_deleted(tmp_path: Path, place: str) -> None:
    store = RunStore(place if "://" in place else str(tmp_path / place))
    before = datetime.now(UTC) - timedelta(seconds=5)
    for key in ("a/one", "a/b/two", "c/three"):
        store.write(key, key.encode())
    assert [(entry.key, entry.bytes) for entry in store.objects("a")] == [("a/b/two", 7), ("a/one", 5)]
    assert [entry.key for entry in store.objects("a", deep=False)] == ["a/one"]
    assert all(before < entry.modified < datetime.now(UTC) + timedelta(seconds=5) for entry in store.objects("a"))
    assert store.objects("nowhere") == []
    assert store.read_many(["a/one", "a/gone", "c/three"]) == {"a/one": b"a/one", "c/three": b"c/three"}
    assert store.read_many(["a/gone"]) == store.read_many([]) == {}
    store.delete("a/b/two")
    store.delete("a/b/two")
    assert [entry.key for entry in store.objects("a")] == ["a/one"]
    if store.local_folder is not None:
        assert not (store.local_folder / "a" / "b").exists()


def test_damaged_object_is_refused_by_name(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    stored = store.write("m.bin", b"model")
    (tmp_path / "m.bin").write_bytes(b"modem")
    with pytest.raises(StoreError, match=r"m\.bin .* is damaged"):
        store.read("m.bin", expect=stored.sha256)


def test_missing_object_and_broken_json_are_clear_errors(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    with pytest.raises(StoreError, match=r"cannot read no\.json .*it is not there"):
        store.read("no.json")
    store.write("half.json", b'{"a": 1')
    with pytest.raises(StoreError, match=r"half\.json .* is no JSON"):
        store.read_json("half.json")


def test_content_is_stored_once_under_its_digest(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    first = store.write_content("models", ".bin", b"abc")
    written = (tmp_path / first.key).stat().st_mtime_ns
    assert store.write_content("models", ".bin", b"abc") == first
    assert (tmp_path / first.key).stat().st_mtime_ns == written
    assert first.key == f"models/{sha256(b'abc')}.bin"


def test_store_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write k\.json to the run store .*: Not a directory"):
        RunStore(str(tmp_path / "file" / "store")).write("k.json", b"{}")


def _write_with_little_room(folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with pytest.raises(StoreError, match="File too large"):
        RunStore(folder).write("big.bin", b"x" * 5000)


def test_no_room_leaves_nothing_half_written(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_write_with_little_room, args=(str(tmp_path),))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert list(tmp_path.rglob("*")) == []


def test_unknown_scheme_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match=r"run store 'nosuch://x' cannot be opened"):
        RunStore("nosuch://x")


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/runs", "https://token@host/x", "https://host/x?token=1", ""])
def test_a_store_whose_url_carries_credentials_is_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RunStore(url)
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)
