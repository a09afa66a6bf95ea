"""Step "reveal_shares" (S4): the surviving clients of a shard open what the sum needs, and nothing else."""

from __future__ import annotations

from fedloom.tasks.masked.session import UPDATE, own_folder, play
from fedloom.tasks.secure_aggregation.client import Client
from fedloom.tasks.secure_aggregation.server import Server
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Collect the revealed shares of the shard's clients, whose updates are then needed no more."""

    def answer(server: Server, client: Client) -> bytes:
        revealed = client.reveal(server.reveal_request(client.name))
        own_folder(place, client.name).delete(UPDATE)
        return revealed

    return play(place, "reveal_shares", answer)
