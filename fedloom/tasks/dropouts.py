"""Clients that give nothing in a round: whatever happens at one is no concern of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fedloom.tasks.client import DropoutError
from fedloom.tasks.client_data import ClientDataError
from fedloom.tasks.errors import RunError, one_line

T = TypeVar("T")


def answer_of(client: str, dropouts: list[dict[str, str]], ask: Callable[[], T]) -> T | None:
    """What a client gives; None when it is a dropout, which is then noted with its reason.

    Raises:
        RunError: when what went wrong is about the run and not about this client.
    """
    try:
        return ask()
    except RunError:
        raise
    except (ClientDataError, DropoutError) as reason:
        dropouts.append({"client": client, "reason": str(reason)})
    except (Exception, SystemExit) as error:  # custom networks raise what they like
        dropouts.append({"client": client, "reason": one_line(error)})
    return None
