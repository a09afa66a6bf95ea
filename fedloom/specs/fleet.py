"""The fleet: the roster of clients, their attributes and where their data lies."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import ConfigDict, Field, StrictStr, model_validator

from fedloom.specs.base import Section, Semver
from fedloom.specs.canonical import digest
from fedloom.specs.criteria import ColumnType
from fedloom.specs.fields import Name, Scalar, Timestamp
from fedloom.specs.fleet_columns import CLIENT_ID, KEYS, Findings, Value, check_keys, typed_columns
from fedloom.specs.fleet_table import Table, read_table
from fedloom.specs.locations import parse_location, resolve_inside
from fedloom.specs.problems import Problem, SpecError

if TYPE_CHECKING:
    from fedloom.specs.documents import Document

TABLE_SUFFIXES = (".csv", ".parquet")


class FleetMetadata(Section):
    """Who the fleet is."""

    fleet_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=128)] = Field(
        description="Unique id: lower-case letters, digits, '.', '_' and '-'."
    )
    name: Name | None = Field(None, description="Name shown to people.")
    version: Semver = Field(description="Semantic version of the roster, e.g. 1.0.0.")
    description: str | None = Field(None, description="Which clients these are.")
    created_at: Timestamp | None = Field(None, description="When it was written (RFC 3339).")


class FleetClient(Section):
    """One client; its other keys are its attributes."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar | None] = Field(init=False)

    client_id: StrictStr = Field(
        description="Unique id of the client.", json_schema_extra={"pattern": CLIENT_ID, "maxLength": 128}
    )
    data: StrictStr = Field(
        description="Where its data lies: a path relative to this file, dataset:NAME/FILE, or a URL."
    )


class FleetSpec(Section):
    """A fleet file: the roster of clients, in the file or in a table beside it."""

    fleet_metadata: FleetMetadata = Field(description="Who the fleet is.")
    attributes: dict[str, ColumnType] | None = Field(
        None, description="Type of each attribute of the clients; inferred when left out."
    )
    clients: tuple[FleetClient, ...] | None = Field(None, description="The clients.")
    clients_file: Annotated[str, Field(pattern=r"\.(csv|parquet)$")] | None = Field(
        None, description="CSV or Parquet file beside this one, with columns client_id, data and attributes."
    )

    @model_validator(mode="after")
    def _one_roster(self) -> Self:
        if (self.clients is None) == (self.clients_file is None):
            raise ValueError("give the clients either under 'clients' or in a 'clients_file'")
        if self.clients is not None and not self.clients:
            raise ValueError("clients is empty; a fleet has at least one client")
        return self


@dataclass(frozen=True)
class Fleet:
    """A loaded roster, in columns and in the order of client ids.

    Attributes:
        fleet_id: The fleet's id.
        version: The roster's version.
        root: The folder that relative data locations start from.
        clients: Client ids, sorted.
        data: The data location of each client.
        attributes: Values of each attribute, None where unknown.
    """

    fleet_id: str
    version: str
    root: Path
    clients: tuple[str, ...]
    data: tuple[str, ...]
    attributes: Mapping[str, tuple[Value, ...]]

    def __len__(self) -> int:
        return len(self.clients)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of each client in the columns."""
        return {client: row for row, client in enumerate(self.clients)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the roster's canonical JSON."""
        return digest(self.roster)

    @property
    def roster(self) -> dict[str, Any]:
        """The roster as JSON: clients, data locations and attributes, not its name or file form."""
        attributes = {name: [_plain(value) for value in values] for name, values in self.attributes.items()}
        return {"clients": self.clients, "data": self.data, "attributes": attributes}


def load_fleet(path: Path, shown_as: str | None = None) -> Fleet:
    """Read a fleet from a YAML, CSV or Parquet file.

    Args:
        path: The file.
        shown_as: How to name the file in problems; the path itself if not given.

    Raises:
        SpecError: With all problems, each with its file and line.
    """
    shown = shown_as or str(path)
    if path.suffix.lower() in TABLE_SUFFIXES:
        fleet_id = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or "fleet"
        return _fleet(fleet_id, "0.0.0", path.parent, read_table(path, shown), None)
    from fedloom.specs.documents import load_document
    from fedloom.specs.kinds import parse

    document = load_document(path, shown)
    spec = parse(document, FleetSpec)
    return fleet_of(spec, document, path.parent)


def fleet_of(spec: FleetSpec, document: "Document", root: Path) -> Fleet:
    """The roster that a parsed fleet file describes.

    Args:
        spec: The parsed file.
        document: Where its values stand.
        root: The folder of the file.

    Raises:
        SpecError: With all problems, each with its file and line.
    """
    if spec.clients_file is not None:
        table = _table_beside(spec.clients_file, document, root)
    else:
        table = _table_of(spec.clients or (), document)
    metadata = spec.fleet_metadata
    return _fleet(metadata.fleet_id, metadata.version, root, table, spec.attributes)


def _table_beside(name: str, document: "Document", root: Path) -> Table:
    try:
        location = parse_location(name)
        if location.kind != "file":
            raise ValueError(f"{name!r} is no file beside the fleet file")
        path = resolve_inside(root, location.path)
    except ValueError as error:
        line, column = document.position(("clients_file",))
        raise SpecError([Problem("error", str(error), document.file, line, column, "clients_file")]) from None
    return read_table(path, str(Path(document.file).parent / location.path))


def _table_of(clients: tuple[FleetClient, ...], document: "Document") -> Table:
    extras: list[dict[str, Any]] = [client.__pydantic_extra__ or {} for client in clients]
    names = list(dict.fromkeys(name for extra in extras for name in extra))
    columns: dict[str, list[Any]] = {
        "client_id": [client.client_id for client in clients],
        "data": [client.data for client in clients],
    }
    columns |= {name: [extra.get(name) for extra in extras] for name in names}
    lines = [document.position(("clients", row))[0] for row in range(len(clients))]
    return Table(document.file, columns, lines)


def _fleet(fleet_id: str, version: str, root: Path, table: Table, declared: Mapping[str, ColumnType] | None) -> Fleet:
    findings = Findings(table)
    check_keys(table, root, findings)
    columns = typed_columns(table, declared, findings)
    if problems := findings.problems():
        raise SpecError(problems)
    ids, data = (table.columns[key] for key in KEYS)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return Fleet(
        fleet_id=fleet_id,
        version=version,
        root=root,
        clients=tuple(ids[row] for row in order),
        data=tuple(data[row] for row in order),
        attributes={name: tuple(columns[name][row] for row in order) for name in sorted(columns)},
    )


def _plain(value: Value) -> Value:
    # A whole number is the same in a CSV, where it may have no point, and in a Parquet double.
    return int(value) if isinstance(value, float) and value.is_integer() else value
