"""Commands on differential privacy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fedloom.cli.common import FAILED, store_url

if TYPE_CHECKING:
    from fedloom.tasks.privacy.accounting import Accountant, Sampling
    from fedloom.tasks.store import RunStore

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


@privacy.group()
def ledger() -> None:
    """Look into the ledgers of a run store."""


_store = click.option(
    "--store", default="fedloom-runs", envvar="FEDLOOM_STORE", show_default=True, help="A folder or an fsspec URL."
)


@ledger.command()
@click.argument("name", required=False)
@_store
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str | None, store: str, as_json: bool) -> None:
    """Show what was spent: of the ledger NAME, or of all."""
    from fedloom.specs.canonical import plain
    from fedloom.tasks.privacy.ledger import account, read_entries

    opened = _open(store)
    found = {each: account(read_entries(opened, each)) for each in _names(opened, name)}
    if as_json:
        click.echo(
            json.dumps({each: plain(state) | {"warning": state.warning} for each, state in found.items()}, indent=2)
        )
        return
    for each, state in found.items():
        used = state.spent + state.reserved
        limit = "no limit" if state.budget is None else f"of {state.budget.epsilon:g} and {state.budget.delta:g}"
        click.echo(f"{each}: epsilon {used.epsilon:.4g} and delta {used.delta:.2g} spent or reserved, {limit}")
        for run, kind, cost in state.runs:
            click.echo(f"  {kind:<10} epsilon {cost.epsilon:<8.4g} delta {cost.delta:<8.2g} {run}")
        click.echo(f"  head {state.head} after {state.entries} entries")
        if state.warning:
            click.echo(f"  warning: {state.warning}")


@ledger.command()
@click.argument("name", required=False)
@_store
@click.option("--key", metavar="HEX", help="Public key that must have signed; that of the first entry if not given.")
@click.option("--head", metavar="DIGEST", help="Head that NAME once had, as show printed it: it must still be there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(name: str | None, store: str, key: str | None, head: str | None, as_json: bool) -> None:
    """Check chain and signatures of the ledger NAME, or of all. Exit code 1 when one does not hold."""
    from fedloom.tasks.privacy.ledger import check, read_entries

    if head is not None and name is None:
        raise click.UsageError("--head is that of one ledger: say which")
    opened = _open(store)
    found = {each: check(opened, each, read_entries(opened, each), key, head) for each in _names(opened, name)}
    if as_json:
        click.echo(json.dumps({each: {"valid": not wrong, "problems": wrong} for each, wrong in found.items()}))
    else:
        for each, wrong in found.items():
            click.echo(f"{each}: {'holds' if not wrong else 'does not hold'}")
            for problem in wrong:
                click.echo(f"  {problem}")
    if any(found.values()):
        sys.exit(FAILED)


def _open(store: str) -> RunStore:
    from fedloom.tasks.store import RunStore

    return RunStore(store_url(store))


def _names(store: RunStore, name: str | None) -> list[str]:
    from fedloom.tasks.errors import ConfigurationError
    from fedloom.tasks.privacy.ledger import ledgers

    known = ledgers(store)
    if name is not None and name not in known:
        raise ConfigurationError(f"there is no ledger {name!r} in {store.url}; there are {', '.join(known) or 'none'}")
    return known if name is None else [name]


def _sampling(rate: float) -> Sampling:
    from fedloom.tasks.privacy.accounting import EVERYONE, Sampling

    return EVERYONE if rate == 1 else Sampling("poisson", rate)
