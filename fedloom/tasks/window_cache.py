"""Windows kept in memory between rounds, because a client's file is read in every round that it takes part in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from fedloom.tasks.client_data import ClientDataError, Windows, read_windows
from fedloom.tasks.window_spec import WindowSpec

_LIMIT_BYTES = 512 << 20

_Key = tuple[str, Path, WindowSpec]


class WindowCache:
    """The windows that a run has read; while they are kept, it sees a client's data as it was first read.

    The least recently used windows are forgotten above 512 MiB.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, Windows] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, location: str, root: Path, spec: WindowSpec, timeout_s: float) -> Windows:
        """The same as `fedloom.tasks.client_data.read_windows`, from memory where it was read before.

        Args:
            location: As in `read_windows`.
            root: As in `read_windows`.
            spec: As in `read_windows`.
            timeout_s: Seconds after which reading is given up.

        Raises:
            ClientDataError: when the data cannot be used, or does not arrive in time.
        """
        key = (location, root, spec)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        windows = _read_in_time(location, root, spec, timeout_s)
        with self._lock:
            self._kept[key] = windows
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > _LIMIT_BYTES:
                self._kept.popitem(last=False)
        return windows


def _read_in_time(location: str, root: Path, spec: WindowSpec, timeout_s: float) -> Windows:
    """Read in a thread of its own: a server that accepts and never answers must not hold up the run."""
    outcome: list[Windows | BaseException] = []

    def read() -> None:
        try:
            outcome.append(read_windows(location, root, spec))
        except BaseException as error:  # handed over to the caller
            outcome.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise ClientDataError(f"late: reading the data took more than {timeout_s:g} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _size(windows: Windows) -> int:
    return windows.x.nbytes + (0 if windows.y is None else windows.y.nbytes)
