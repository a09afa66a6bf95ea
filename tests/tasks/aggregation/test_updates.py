"""Single updates in the run store."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fedloom.tasks.aggregation.updates import read_updates, write_updates
from fedloom.tasks.errors import StoreError
from fedloom.tasks.step import Place, Run
from tests.tasks.aggregation.made import update


def test_updates_come_back_as_they_were_and_twice_the_same_bytes(make_run: Callable[..., Run]) -> None:
    place = Place(make_run(), 1, 0)
    given = [update(0, [1.5, -2.0, 3.0]), update(1, [0.0, 1e30, -0.0], loss=None, loss_before=0.25, round=3)]
    stored = write_updates(place, given)
    back = read_updates(place.run.store.read(stored.key, expect=stored.sha256), stored.key)
    assert write_updates(place, back).sha256 == stored.sha256
    for old, new in zip(given, back, strict=True):
        assert all(torch.equal(old.delta[name], new.delta[name]) for name in old.delta)
        assert (old.client, old.weight, old.samples, old.loss, old.loss_before, old.round) == (
            new.client, new.weight, new.samples, new.loss, new.loss_before, new.round,
        )  # fmt: skip


def test_a_figure_that_is_no_number_is_none(make_run: Callable[..., Run]) -> None:
    place = Place(make_run(), 1, 0)
    stored = write_updates(place, [update(0, [1.0, 2.0], loss=math.inf, loss_before=math.nan)])
    (back,) = read_updates(place.run.store.read(stored.key), stored.key)
    assert (back.loss, back.loss_before) == (None, None)


@pytest.mark.parametrize("data", [b"", b"12345678", b"\x02\0\0\0\0\0\0\0{}"], ids=["empty", "noise", "no updates"])
def test_what_holds_no_updates_is_named(data: bytes) -> None:
    with pytest.raises(StoreError, match="shard-7"):
        read_updates(data, "shard-7")
