"""The private Prefect server: one process that serves the API and UI and ends when its standard input closes.

`fedloom.flows.prefect_server` starts it as a script. All that it writes to standard output is its port; log
lines go to standard error. Its standard input is a pipe that nobody writes to: the operating system closes it
when the parent ends in whatever way, SIGKILL included, so the server never outlives the run it serves.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock

_BACKLOG_SECONDS = 30.0
_SHUTDOWN_SECONDS = 10.0
# Somewhat more than the flush interval of the task run recorder.
_FLUSH_SECONDS = 1.2

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class _CountEventStreams:
    """Counts the open streams on which clients report the states of task runs."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self.open = 0

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        counted = scope["type"] == "websocket" and scope["path"].endswith("/events/in")
        self.open += counted
        try:
            await self._app(scope, receive, send)
        finally:
            self.open -= counted


class _Server(uvicorn.Server):
    """Starts up under a lock of PREFECT_HOME: two migrations of one fresh database would race."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        with FileLock(Path(os.environ["PREFECT_HOME"]) / "server.lock"):
            await super().startup(sockets)


def _stop_at_end_of_input(server: uvicorn.Server, streams: _CountEventStreams) -> None:
    sys.stdin.buffer.read()
    # Prefect's recorder drops what it has not read when it is stopped, so let it catch up: a stream ends only
    # when the last event of its client has been taken over.
    give_up = time.monotonic() + _BACKLOG_SECONDS
    while streams.open and time.monotonic() < give_up:
        time.sleep(0.05)
    if server.started:
        time.sleep(_FLUSH_SECONDS)
    server.should_exit = True
    # Whatever hangs now, a migration or a lock, must not keep the process alive.
    time.sleep(_SHUTDOWN_SECONDS)
    os._exit(1)


def main() -> None:
    """Binds a free loopback port, announces it, and serves until the input ends."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    # Before prefect is imported: these tell the UI where its API is.
    url = f"http://127.0.0.1:{port}/api"
    os.environ.update(PREFECT_API_URL=url, PREFECT_UI_API_URL=url)
    print(port, flush=True)
    os.dup2(2, 1)

    from prefect.server.api.server import create_app

    streams = _CountEventStreams(create_app(final=True))
    config = uvicorn.Config(streams, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    server = _Server(config)
    threading.Thread(target=_stop_at_end_of_input, args=[server, streams], daemon=True).start()
    server.run(sockets=[listener])
    # All is written by now; joining Prefect's idle threads would take another second and a half.
    logging.shutdown()
    os._exit(0 if server.started else 1)


if __name__ == "__main__":
    main()
