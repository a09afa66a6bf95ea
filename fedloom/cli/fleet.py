"""Commands on a fleet's clients."""

from __future__ import annotations

import json

import click

from fedloom.cli.common import say


@click.group()
def fleet() -> None:
    """Look after the clients of a fleet."""


@fleet.command()
@click.argument("job")
@click.option("--rotate", multiple=True, metavar="CLIENT", help="Replace this client's key; may be repeated.")
@click.option("--valid-days", type=click.IntRange(1), help="New keys expire after so many days.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def keys(job: str, rotate: tuple[str, ...], valid_days: int | None, as_json: bool) -> None:
    """Make the identity keys of the simulated clients of JOB's fleet, and the registry of the public ones.

    Clients that have a key keep it, unless they are named by --rotate. The private keys lie in the clients' own
    folders, below FEDLOOM_CLIENTS or the user's data folder.
    """
    from fedloom.specs.bundle import load_job, resolve_job
    from fedloom.tasks.client_home import load_registry, make_keys, registry_path
    from fedloom.tasks.errors import ConfigurationError

    roster = load_job(resolve_job(job)).fleet
    if roster is None:
        raise ConfigurationError("the job has no fleet")
    made = make_keys(roster, frozenset(rotate), valid_days)
    registry = load_registry(roster.fleet_id)
    if as_json:
        found = {"fleet": roster.fleet_id, "made": sorted(made), "keys": {c: vars(k) for c, k in registry.keys.items()}}
        click.echo(json.dumps(found, indent=2, sort_keys=True))
        return
    for client, key in sorted(registry.keys.items()):
        until = f"until {key.expires}" if key.expires else "does not expire"
        click.echo(f"{client}  {key.public}  since {key.created}, {until}{'  new' if client in made else ''}")
    say(f"{len(made)} of {len(registry.keys)} keys made; registry {registry_path(roster.fleet_id)}")
