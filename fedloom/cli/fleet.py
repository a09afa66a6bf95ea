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
@click.option("--first-server", metavar="KEY", help="With two servers: the first one's public key, from its operator.")
@click.option("--second-server", metavar="KEY", help="Likewise, of the second.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def keys(
    job: str,
    rotate: tuple[str, ...],
    valid_days: int | None,
    first_server: str | None,
    second_server: str | None,
    as_json: bool,
) -> None:
    """Make the identity keys of the simulated clients of JOB's fleet, and the registry of the public ones.

    Clients that have a key keep it, unless they are named by --rotate. The private keys lie in the clients' own
    folders, below FEDLOOM_CLIENTS or the user's data folder. Where the job's secure aggregation has two servers, the
    clients are told whom to trust: the keys that are given here, and else those of the servers' folders on this
    machine (FEDLOOM_SERVER, FEDLOOM_SECOND_SERVER), which are made if there are none.
    """
    from fedloom.specs.bundle import load_job, resolve_job
    from fedloom.tasks.client_home import load_registry, make_keys, registry_path
    from fedloom.tasks.errors import ConfigurationError

    bundle = load_job(resolve_job(job))
    roster, secure = bundle.fleet, bundle.job.privacy.secure_aggregation
    if roster is None:
        raise ConfigurationError("the job has no fleet")
    two = secure.enabled and secure.protocol == "two_server"
    if not two and (first_server or second_server):
        raise ConfigurationError("the secure aggregation of this job has no two servers")
    made = make_keys(roster, frozenset(rotate), valid_days)
    servers = _trust(roster.fleet_id, first_server, second_server) if two else {}
    registry = load_registry(roster.fleet_id)
    if as_json:
        found = {"fleet": roster.fleet_id, "made": sorted(made), "keys": {c: vars(k) for c, k in registry.keys.items()}}
        found |= {"servers": servers} if two else {}
        click.echo(json.dumps(found, indent=2, sort_keys=True))
        return
    for client, key in sorted(registry.keys.items()):
        until = f"until {key.expires}" if key.expires else "does not expire"
        click.echo(f"{client}  {key.public}  since {key.created}, {until}{'  new' if client in made else ''}")
    for which, public in servers.items():
        click.echo(f"{which} server  {public}")
    say(f"{len(made)} of {len(registry.keys)} keys made; registry {registry_path(roster.fleet_id)}")


def _trust(fleet_id: str, first: str | None, second: str | None) -> dict[str, str]:
    """Tell the clients which servers to trust."""
    from fedloom.tasks.server_keys import FIRST, SECOND, public_key, trust

    keys = {FIRST: first or public_key(FIRST), SECOND: second or public_key(SECOND)}
    trust(fleet_id, keys, replace=bool(first or second))
    return keys
