"""Commands on differential privacy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from fedloom.tasks.privacy.accounting import Accountant, Sampling

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def privacy() -> None:
    """Account for differential privacy."""


def _common(command: Command) -> Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--accountant", type=click.Choice(["rdp", "pld"]), default="pld", show_default=True, help="pld is tighter."
        ),
        click.option("--delta", type=float, required=True, help="Between 0 and 1."),
        click.option("--rounds", type=click.IntRange(1), required=True, help="Noisy sums, one after the other."),
        click.option(
            "--sampling-rate",
            type=float,
            required=True,
            help="Probability that a unit is in a sum (Poisson).",
        ),
    ):
        command = option(command)
    return command


@privacy.command()
@click.option("--noise-multiplier", type=float, required=True, help="Standard deviation of the noise over the clip.")
@_common
def epsilon(
    noise_multiplier: float, sampling_rate: float, rounds: int, delta: float, accountant: Accountant, as_json: bool
) -> None:
    """Say which epsilon Gaussian noise gives."""
    from fedloom.tasks.privacy.accounting import Mechanism
    from fedloom.tasks.privacy.accounting import epsilon as account

    found = account(Mechanism(noise_multiplier, _sampling(sampling_rate)), rounds, delta, accountant)
    if as_json:
        click.echo(json.dumps({"epsilon": found}))
    else:
        click.echo(f"epsilon {found:.4f} at delta {delta:g} ({accountant}), neighbours differ by one unit")


@privacy.command()
@click.option("--epsilon", "target", type=float, required=True, help="The epsilon to keep.")
@_common
def calibrate(
    target: float, sampling_rate: float, rounds: int, delta: float, accountant: Accountant, as_json: bool
) -> None:
    """Say which noise keeps an epsilon."""
    from fedloom.tasks.privacy.accounting import calibrate as search

    found = search(target, delta, rounds, _sampling(sampling_rate), accountant=accountant)
    if as_json:
        click.echo(json.dumps({"noise_multiplier": found}))
    else:
        click.echo(f"noise multiplier {found:.4f} for epsilon {target:g} at delta {delta:g} ({accountant})")


def _sampling(rate: float) -> Sampling:
    from fedloom.tasks.privacy.accounting import EVERYONE, Sampling

    return EVERYONE if rate == 1 else Sampling("poisson", rate)
