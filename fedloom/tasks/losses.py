"""Shards that were lost for good, and what is known of why: written for the steps after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedloom.tasks.errors import ConfigurationError, RunError, StoreError, one_line
from fedloom.tasks.step import Place, Run

LOST_SHARD = "the shard was lost"
"""How the reason of a dropout begins that is an engine's doing, not the client's."""
_AFTER_ITS_UPDATE = frozenset({"confirm_survivors", "reveal_shares"})
"""Stages of secure aggregation at which a client's update is in the sum already, whether it stays or not."""
_NO_WORD = "it ended without a result or a word: killed, evicted or out of time"


def without_update(dropouts: Iterable[Mapping[str, str]]) -> set[str]:
    """The clients among a round's dropouts whose update is in no sum."""
    return {dropout["client"] for dropout in dropouts if dropout.get("stage") not in _AFTER_ITS_UPDATE}


def record_loss(run: Run, name: str, round: int, shard: int, reason: str) -> None:
    """Record that a shard of a step was lost for good, so that the steps after it need not wait for it."""
    key = Place(run, round, shard).result_key(name, shard)
    run.store.write_json(key, {"plan_digest": run.plan_digest, "outputs": {}, "files": {}, "lost": reason})


def record_failure(place: Place, name: str, error: Exception) -> None:
    """Leave word why an attempt at a shard failed; another attempt may still succeed."""
    word = {
        "reason": one_line(error) if not isinstance(error, RunError) else str(error),
        "ends_run": isinstance(error, RunError),
        "configuration": isinstance(error, ConfigurationError),
    }
    if not isinstance(error, StoreError):  # then the store cannot be told either
        place.run.store.write_json(_word_key(place, name), word)


def settle_shards(place: Place, name: str, shards: Sequence[int]) -> None:
    """Record the loss of every shard of a step that left no result.

    Args:
        place: The round.
        name: The step.
        shards: Its shards.

    Raises:
        RunError: when a shard failed for a reason that is about the run and not about its clients.
    """
    for shard in shards:
        if place.find(name, shard) is not None:
            continue
        key = _word_key(Place(place.run, place.round, shard), name)
        word = place.run.store.read_json(key) if place.run.store.exists(key) else {"reason": _NO_WORD}
        if word.get("ends_run"):
            kind = ConfigurationError if word["configuration"] else RunError
            raise kind(f"step {name}, shard {shard}: {word['reason']}")
        record_loss(place.run, name, place.round, shard, word["reason"])


def _word_key(place: Place, name: str) -> str:
    return place.result_key(name, place.shard).removesuffix(".json") + ".failed.json"
