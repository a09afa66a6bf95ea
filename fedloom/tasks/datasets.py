"""Data sets that fedloom prepares by itself, once, in a cache folder.

A data set is built in a temporary folder beside its place and renamed when it is complete, so
whatever has the final name is whole, and any number of processes may prepare it at once.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.resources
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from fedloom.tasks import imu_watch

NAMES = (imu_watch.NAME,)
CACHE_VARIABLE = "FEDLOOM_CACHE"
WHEELS_VARIABLE = "FEDLOOM_WHEELS"

Say = Callable[[str], None]

_PIP_SECONDS = 600
_STALE_SECONDS = 3600  # well beyond what a live preparation can take


class DatasetError(Exception):
    """A data set that cannot be had. The message says why, and what to do."""


def statement(name: str) -> str:
    """One sentence that says plainly what a data set is."""
    return {imu_watch.NAME: f"{name} {imu_watch.VERSION}: {imu_watch.STATEMENT}"}[name]


def prepare(name: str, cache: Path | None = None, say: Say | None = None) -> Path:
    """Make a data set ready for use; returns at once when it already is.

    Args:
        name: One of NAMES.
        cache: Folder that holds prepared data sets; by default the user's cache folder.
        say: Called with a line of progress now and then.

    Returns:
        The folder of the prepared data set.

    Raises:
        DatasetError: There is no such data set, or it cannot be fetched or written.
    """
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there is: {', '.join(NAMES)}"
        raise DatasetError(f"unknown data set '{name}'; {hint}")
    say = say or (lambda _line: None)
    cache = cache or cache_root()
    folder = cache / f"{name}-{imu_watch.VERSION}"
    try:
        _sweep(cache)
        if not is_complete(folder):
            _build(folder, say)
            say(f"{name} is ready in {folder}")
    except OSError as error:
        raise DatasetError(
            f"cannot write data set '{name}' to {cache}: {error.strerror or error}; "
            f"set {CACHE_VARIABLE} to a folder that you can write to, with 50 MB free"
        ) from error
    return folder


def cache_root() -> Path:
    """The user's cache folder of fedloom: FEDLOOM_CACHE, or the platform's convention."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "fedloom"
    except RuntimeError as error:
        raise DatasetError(f"no home folder for the cache; set {CACHE_VARIABLE} to a folder") from error


def is_complete(folder: Path) -> bool:
    """Whether every file that the manifest lists is there at its full size.

    The rename makes this true for whatever a preparation leaves; a lost file or a power cut may
    make it false later, and then the data set is built again.
    """
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == facts["bytes"] for name, facts in files.items())
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _build(folder: Path, say: Say) -> None:
    work = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    (work / "data").mkdir(parents=True)
    try:
        wheel = _fetch_wheel(work, say)
        say("converting the recordings and injecting labelled faults")
        imu_watch.convert(wheel, work / "data")
        if folder.exists() and not is_complete(folder):
            with contextlib.suppress(FileNotFoundError):  # another preparer was quicker
                folder.rename(work / "damaged")
        try:
            (work / "data").rename(folder)
        except OSError:
            if not is_complete(folder):  # else another preparer was quicker: its copy is as good
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Remove what killed preparations left."""
    with contextlib.suppress(FileNotFoundError):
        for left in cache.glob(f".{imu_watch.NAME}-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)


def _fetch_wheel(work: Path, say: Say) -> bytes:
    """The source wheel's bytes, from the user's folder of wheels or by way of pip."""
    if own := os.environ.get(WHEELS_VARIABLE):
        path = Path(own).expanduser() / imu_watch.WHEEL
        if not path.is_file():
            raise DatasetError(f"{WHEELS_VARIABLE} is set, but there is no {path}; put the wheel there")
    else:
        path = _download(work / "wheel", say)
    wheel = path.read_bytes()
    try:
        imu_watch.check_wheel(wheel)
    except imu_watch.WrongWheelError as error:
        raise DatasetError(
            f"{imu_watch.WHEEL} is not the file that fedloom knows: {error}; "
            f"get it from pypi.org and point {WHEELS_VARIABLE} at its folder"
        ) from error
    return wheel


def _download(target: Path, say: Say) -> Path:
    """Let pip fetch the wheel, so that the user's mirrors, proxies and certificates apply."""
    say(f"downloading {imu_watch.REQUIREMENT} (11 MB) with pip")
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    command = [*_pip(), "download", *options, "--dest", str(target), imu_watch.REQUIREMENT]
    advice = (
        f"check the network or pip's configuration, or put {imu_watch.WHEEL} into a folder "
        f"and set {WHEELS_VARIABLE} to it"
    )
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"pip did not finish in {_PIP_SECONDS} s; {advice}") from error
    path = target / imu_watch.WHEEL
    if done.returncode or not path.is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: no file"]
        raise DatasetError(f"pip cannot download {imu_watch.REQUIREMENT} ({lines[-1][7:]}); {advice}")
    return path


def _pip() -> list[str]:
    """How to call pip; environments made without it borrow the copy that Python carries."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip"):
        bundled = Path(str(importlib.resources.files("ensurepip") / "_bundled"))
        for wheel in bundled.glob("pip-*.whl"):
            return [sys.executable, str(wheel / "pip")]
    raise DatasetError(
        f"this Python has no pip to download {imu_watch.REQUIREMENT}; install pip, or put {imu_watch.WHEEL} "
        f"into a folder and set {WHEELS_VARIABLE} to it"
    )
