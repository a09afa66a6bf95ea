"""What the steps read of a network."""

from __future__ import annotations

from dataclasses import dataclass

Scalar = str | int | float | bool
Setting = Scalar | None | tuple[Scalar, ...]


@dataclass(frozen=True)
class ModelRecipe:
    """A network.

    Attributes:
        architecture: Name in the specs, e.g. "MLP".
        custom_class: ``package.module:Class`` of a Custom architecture.
        hyperparameters: Its settings, in the order of their names.
        window_size: Samples in an input window.
        channels: Signals in an input window.
        output: "binary_classification", "multi_class", "regression" or "reconstruction_error".
        classes: Number of classes (2 for binary, 0 where there are none).
    """

    architecture: str
    custom_class: str | None
    hyperparameters: tuple[tuple[str, Setting], ...]
    window_size: int
    channels: int
    output: str
    classes: int

    @property
    def settings(self) -> dict[str, Setting]:
        """The hyperparameters by name."""
        return dict(self.hyperparameters)
