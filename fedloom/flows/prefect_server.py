"""A Prefect API for one run: the user's own where one is configured, else a quiet private server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

DEFAULT_HOME = Path("~/.fedloom/prefect")

# A fresh machine compiles some 2,000 modules before the server answers for the first time.
_STARTUP_SECONDS = 180.0
_REMOTE_SECONDS = 10.0
# Longer than the server allows itself: 30 s to catch up with a long run, 10 s to end.
_STOP_SECONDS = 45.0
_LOG_BYTES = 1_000_000

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Run logs go on to the API; only the console handlers, which also print tracebacks, are silenced.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    # The senders wait this long before they send the rest at the end.
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Without an API a flow must fail; it must not start Prefect's own ephemeral server.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
}

_SERVER = {
    # Task runs are written once a second, not once per event. Not only for speed: a recorder that lags behind
    # when the server is told to stop loses what it has not read, and finished tasks would stay "Pending".
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100000",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # Block types are for stored credentials and storage; registering them costs a second at each fresh home.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
}

# What a server of one in-process run never needs.
_IDLE_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "EVENT_PERSISTER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)


class PrefectUnavailable(Exception):  # noqa: N818  (a state of the world, named as it reads in a message)
    """No Prefect API can be reached or started; the message says why and what to do."""


def prefect_environment(home: Path = DEFAULT_HOME) -> Path:
    """Sets the environment in which Prefect is silent; call it before anything imports prefect.

    Variables that the user has set are left alone.

    Args:
        home: where Prefect keeps its database, logs and lock, unless PREFECT_HOME is set.

    Returns:
        The PREFECT_HOME in use.
    """
    profiles = Path.home() / ".prefect" / "profiles.toml"
    if "PREFECT_HOME" not in os.environ and profiles.exists():
        # Our own home must not hide an API address or a key that `prefect config set` has stored.
        os.environ.setdefault("PREFECT_PROFILES_PATH", str(profiles))
    os.environ.setdefault("PREFECT_HOME", str(home.expanduser()))
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return Path(os.environ["PREFECT_HOME"]).expanduser()


@contextmanager
def prefect_api(home: Path = DEFAULT_HOME) -> Iterator[str]:
    """Gives a Prefect API for the length of the block.

    PREFECT_API_URL, from the environment or the active profile, is used as it is. Otherwise a private
    server runs on a free loopback port, and its UI at the same address without `/api`.

    Args:
        home: as for `prefect_environment`, which this calls.

    Yields:
        The URL of the API. Flows that are called inside the block use it.

    Raises:
        PrefectUnavailable: the configured API does not answer, or the private server does not start.
    """
    home = prefect_environment(home)
    configured = _configured_url(home)
    if configured is not None:
        _check_remote(configured)
        yield configured
        return
    with _private_server(home) as url, _api_url_set(url):
        try:
            yield url
        finally:
            _send_what_is_queued()


def _configured_url(home: Path) -> str | None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(home, error) from None
    try:
        from prefect.settings import get_current_settings

        return get_current_settings().api.url
    except ValueError as error:
        raise PrefectUnavailable(
            f"Prefect rejects its settings; correct the PREFECT_… variable or the profile's entry: {error}"
        ) from None


def _unwritable(home: Path, error: OSError) -> PrefectUnavailable:
    return PrefectUnavailable(
        f"cannot write to PREFECT_HOME {home} ({error.strerror}). Set PREFECT_HOME to a folder that you may write to."
    )


def _check_remote(url: str) -> None:
    from prefect.client.orchestration import get_client

    with get_client(httpx_settings={"timeout": _REMOTE_SECONDS / 2}, sync_client=True) as client:
        deadline = time.monotonic() + _REMOTE_SECONDS
        while (problem := client.api_healthcheck()) is not None:
            if time.monotonic() > deadline:
                raise PrefectUnavailable(
                    f"the Prefect API at {url} does not answer ({problem}). Start that server, correct "
                    "PREFECT_API_URL, or remove it (`unset PREFECT_API_URL`, `prefect config unset "
                    "PREFECT_API_URL`) to let fedloom start a private server."
                )
            time.sleep(0.5)


@contextmanager
def _private_server(home: Path) -> Iterator[str]:
    log_path = home / "server.log"
    try:
        log = log_path.open("ab")
    except OSError as error:
        raise _unwritable(home, error) from None
    with log:
        if log.tell() > _LOG_BYTES:
            log.truncate(0)
        log_start = log.tell()
        process = _spawn(home, log)
    try:
        yield _wait_until_healthy(process, log_path, log_start)
    finally:
        _stop(process)


def _spawn(home: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    services = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _IDLE_SERVICES}
    # Prefect would unpack the UI into its own package, which may be read-only or shared.
    ui = {"PREFECT_UI_STATIC_DIRECTORY": str(home / "ui")}
    # The console's silence is not wanted in the server's own log.
    forced = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO", "PREFECT_HOME": str(home)}
    environment = services | _SERVER | ui | os.environ | forced
    # Ctrl-C is for the run, which tells the server of its end and then stops it: hence a group of its own.
    windows = sys.platform == "win32"
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("_prefect_child.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=not windows,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _wait_until_healthy(process: subprocess.Popen[bytes], log: Path, log_start: int) -> str:
    assert process.stdout is not None
    port = process.stdout.readline().strip().decode()
    url = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + _STARTUP_SECONDS
    # The flow's engine takes seconds to import: on a second core it does so while the server starts.
    import httpx
    import prefect.flow_engine
    import prefect.task_engine  # noqa: F401

    with httpx.Client(trust_env=False, timeout=5) as client:
        while process.poll() is None:
            with suppress(httpx.HTTPError):
                if client.get(f"{url}/health").is_success:
                    return url
            if time.monotonic() > deadline:
                raise PrefectUnavailable(
                    f"the private Prefect server did not answer within {_STARTUP_SECONDS:.0f} s; "
                    + _log_tail(log, log_start)
                )
            time.sleep(0.05)
    raise PrefectUnavailable(
        f"the private Prefect server ended with exit code {process.returncode} before it answered; "
        + _log_tail(log, log_start)
    )


def _log_tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n  ".join([f"the last lines of {log}:", *lines[-12:]]) if lines else f"{log} is empty"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        process.stdout.close()


@contextmanager
def _api_url_set(url: str) -> Iterator[None]:
    from prefect.context import refresh_global_settings_context

    before = {name: os.environ.get(name) for name in ("PREFECT_API_URL", "NO_PROXY", "no_proxy")}
    no_proxy = ",".join(filter(None, [before["no_proxy"] or before["NO_PROXY"], "127.0.0.1"]))
    os.environ.update(PREFECT_API_URL=url, NO_PROXY=no_proxy, no_proxy=no_proxy)
    refresh_global_settings_context()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        refresh_global_settings_context()


def _send_what_is_queued() -> None:
    """Waits for Prefect's background senders: they hold the last states of task runs and the last logs."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=30)
    APILogWorker.drain_all(timeout=30)
