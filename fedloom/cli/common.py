"""What all commands share: exit codes, plain errors, opening a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fedloom.flows.plan import Plan
    from fedloom.specs.bundle import JobBundle

FAILED, WRONG, WITHHELD = 1, 2, 3


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what can go wrong into one message and an exit code; anything else is a defect and keeps its trace."""
    from fedloom.specs.problems import SpecError

    try:
        yield
    except SpecError as error:
        fail(str(error), WRONG)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:
        fail(f"error: {error.filename or 'standard output'}: {error.strerror}", FAILED)
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to continue", 130)
    except Exception as error:
        from fedloom.tasks.errors import ConfigurationError, RunError

        if not isinstance(error, RunError):
            raise
        fail(f"error: {error}", WRONG if isinstance(error, ConfigurationError) else FAILED)


def fail(message: str, code: int) -> None:
    click.echo(printable(message), err=True)
    sys.exit(code)


def printable(text: str) -> str:
    """A text without letters that would do something to a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def compile_job(
    job: str, seed: int | None, rounds: int | None, without_privacy: bool = False
) -> tuple[JobBundle, Plan]:
    from fedloom.flows.compile import compile_plan
    from fedloom.flows.without_privacy import compile_baseline
    from fedloom.specs.bundle import load_job, resolve_job

    bundle = load_job(resolve_job(job))
    return bundle, (compile_baseline if without_privacy else compile_plan)(bundle, seed, rounds)


def say(line: str) -> None:
    click.echo(line, err=True)


def store_url(store: str) -> str:
    return store if "://" in store or not store else os.path.abspath(os.path.expanduser(store))
