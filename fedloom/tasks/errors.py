"""What can stop a run. Everything else that goes wrong at a client is a dropout."""

from __future__ import annotations


class RunError(Exception):
    """The run cannot go on; running it again may help (a full disk, a lost store)."""


class ConfigurationError(RunError):
    """The run cannot go on, and running it again will not help (a wrong spec or command)."""


class StoreError(RunError):
    """The run store cannot be read or written."""
