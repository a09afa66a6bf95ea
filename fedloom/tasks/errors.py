"""What can stop a run. Everything else that goes wrong at a client is a dropout."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """An error as one line for evidence and terminals: what raised it may say anything, in any characters."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= 300 else shown[:299] + "…"


class ShardLostError(Exception):
    """This shard was recorded as lost for good; the message is the reason."""


class RunError(Exception):
    """The run cannot go on; running it again may help (a full disk, a lost store)."""


class ConfigurationError(RunError):
    """The run cannot go on, and running it again will not help (a wrong spec or command)."""


class StoreError(RunError):
    """The run store cannot be read or written."""
