"""Windows kept in memory between rounds, because a client's file is read in every round that it takes part in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from fedloom.tasks.client_data import Windows, read_windows
from fedloom.tasks.window_spec import WindowSpec

_LIMIT_BYTES = 512 << 20

_Key = tuple[str, Path, WindowSpec]
_kept: OrderedDict[_Key, Windows] = OrderedDict()
_lock = threading.Lock()


def cached_windows(location: str, root: Path, spec: WindowSpec) -> Windows:
    """The same as `fedloom.tasks.client_data.read_windows`, from memory where it was read before.

    The least recently used windows are forgotten above 512 MiB. A run sees one state of a client's data: what
    the process read first.
    """
    key = (location, root, spec)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    windows = read_windows(location, root, spec)
    with _lock:
        _kept[key] = windows
        while sum(map(_size, _kept.values())) > _LIMIT_BYTES:
            _kept.popitem(last=False)
    return windows


def _size(windows: Windows) -> int:
    return windows.x.nbytes + (0 if windows.y is None else windows.y.nbytes)
