"""What SCAFFOLD adds at a client; it needs the order, the server's control variate and the client's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedloom.tasks.models import State
from fedloom.tasks.recipe import TrainingRecipe


@dataclass(frozen=True)
class Controls:
    """The control variates with which a client trains; float32, by the names of the parameters.

    Attributes:
        server: c, the estimate of all clients' mean gradient.
        own: c_i, the estimate of its own.
    """

    server: State
    own: State

    def correction(self) -> State:
        """What every local gradient is shifted by: c - c_i."""
        return {name: self.server[name] - own for name, own in self.own.items()}

    def renewed(self, delta: State, training: TrainingRecipe, samples: int) -> State:
        """The client's next variate (option II): c_i - c + (x - y) / (K · learning rate).

        Args:
            delta: y - x, the client's update.
            training: How it trained; plain SGD.
            samples: Windows that it trained on; K, the number of its steps, follows.
        """
        steps = training.local_epochs * math.ceil(samples / training.batch_size)
        scale = steps * training.learning_rate
        return {name: own - self.server[name] - delta[name] / scale for name, own in self.own.items()}
