"""Preparing a data set: once, whole or not at all, and with errors that say what to do."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedloom.tasks import datasets, imu_watch
from fedloom.tasks.datasets import DatasetError

FOLDER = f"imu-watch-{imu_watch.VERSION}"
PREPARE = "from fedloom.tasks.datasets import prepare; print(prepare('imu-watch', say=print))"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source wheel, fetched the way a user's first run fetches it."""
    folder = tmp_path_factory.mktemp("wheels")
    try:
        wheel = datasets._fetch_wheel(folder, lambda _line: None)
    except DatasetError as error:
        pytest.skip(f"the source wheel cannot be had here: {error}")
    (folder / imu_watch.WHEEL).write_bytes(wheel)
    return folder


@pytest.fixture
def offline(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine that finds the wheel in a folder."""
    monkeypatch.setenv("FEDLOOM_WHEELS", str(wheels))
    monkeypatch.setenv("FEDLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_prepares_once_and_then_returns_at_once(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    folder = datasets.prepare("imu-watch", say=lines.append)
    assert folder == offline / FOLDER
    assert lines
    assert datasets.is_complete(folder)
    assert [path.name for path in offline.iterdir()] == [FOLDER]
    monkeypatch.setenv("FEDLOOM_WHEELS", "/nowhere")
    assert datasets.prepare("imu-watch") == folder


def test_a_second_conversion_gives_the_same_bytes(offline: Path, tmp_path: Path) -> None:
    one = datasets.prepare("imu-watch")
    two = datasets.prepare("imu-watch", cache=tmp_path / "other")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


@pytest.mark.parametrize("damage", ["s03-left.parquet", "cut"])
def test_a_damaged_data_set_is_built_again(offline: Path, damage: str) -> None:
    folder = datasets.prepare("imu-watch")
    if damage == "cut":
        os.truncate(folder / "holdout.parquet", 1000)
    else:
        (folder / damage).unlink()
    assert not datasets.is_complete(folder)
    assert datasets.is_complete(datasets.prepare("imu-watch"))
    assert [path.name for path in offline.iterdir()] == [FOLDER]


def test_many_preparers_at_once(offline: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", PREPARE], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in running:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    assert [path.name for path in offline.iterdir()] == [FOLDER]
    assert datasets.is_complete(offline / FOLDER)


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_killed_in_the_middle_nothing_looks_complete(offline: Path, delay: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", PREPARE], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (offline.exists() and any(offline.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert datasets.is_complete(offline / FOLDER) or not (offline / FOLDER).exists()
    for left in offline.glob(".imu-watch-*"):
        os.utime(left, (0, 0))
    assert datasets.is_complete(datasets.prepare("imu-watch"))
    assert [path.name for path in offline.iterdir()] == [FOLDER]


def test_a_live_preparation_is_not_swept(offline: Path) -> None:
    live = offline / f".{FOLDER}.live"
    live.mkdir(parents=True)
    datasets.prepare("imu-watch")
    assert live.is_dir()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("imu-wach", "did you mean 'imu-watch'"), ("cifar10", "there is: imu-watch"), ("", "there is")],
)
def test_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(DatasetError, match=hint):
        datasets.prepare(name)


def test_wrong_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / imu_watch.WHEEL).write_bytes(b"not the wheel")
    monkeypatch.setenv("FEDLOOM_WHEELS", str(tmp_path))
    with pytest.raises(DatasetError, match="not the file that fedloom knows: sha256 is"):
        datasets.prepare("imu-watch", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLOOM_WHEELS", str(tmp_path))
    with pytest.raises(DatasetError, match=f"there is no {tmp_path}.*put the wheel there"):
        datasets.prepare("imu-watch", cache=tmp_path / "cache")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip runs for real, with an index that nothing serves and no retries."""
    monkeypatch.delenv("FEDLOOM_WHEELS", raising=False)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(DatasetError, match=r"pip cannot download seglearn==1\.2\.5 .*FEDLOOM_WHEELS"):
        datasets.prepare("imu-watch", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_that_is_a_file(offline: Path) -> None:
    offline.write_text("in the way")
    with pytest.raises(DatasetError, match=r"cannot write data set 'imu-watch' to .*set FEDLOOM_CACHE"):
        datasets.prepare("imu-watch")


def test_full_disk(offline: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails half way."""
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from fedloom.tasks.datasets import DatasetError, prepare\n"
        "try:\n    prepare('imu-watch')\nexcept DatasetError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "cannot write data set 'imu-watch'" in done.stdout
    assert list(offline.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"FEDLOOM_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"FEDLOOM_CACHE": "~/c"}, "/home/ada/c"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/fedloom"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/fedloom"),
        ({}, "/home/ada/.cache/fedloom"),
    ],
)
def test_cache_root(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for name in ("FEDLOOM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(datasets.cache_root()) == expected


@pytest.mark.skipif(importlib.util.find_spec("ensurepip") is None, reason="this Python carries no pip")
def test_an_environment_without_pip_borrows_the_one_of_python(tmp_path: Path) -> None:
    """Environments that uv makes have no pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    packages, path = Path(np.__file__).parents[1], tmp_path / "path"
    path.mkdir()
    (path / "fedloom").symlink_to(Path(datasets.__file__).parents[1])
    for source in packages.glob("numpy*"):
        (path / source.name).symlink_to(source)
    code = "import subprocess; from fedloom.tasks.datasets import _pip; subprocess.run([*_pip(), '--version'])"
    done = subprocess.run(
        [str(tmp_path / "v/bin/python"), "-c", code],
        env={"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ensurepip" in done.stdout
