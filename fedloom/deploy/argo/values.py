"""What a cluster adds to a job: where its image, its run store and its pods are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fedloom.deploy.argo.names import dns_name
from fedloom.specs.base import Section
from fedloom.specs.fields import Count, Name

_IMAGE = re.compile(
    r"(?:[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::\d+)?/)?"  # registry
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY", re.IGNORECASE)
_STORES = ("s3://", "gs://", "gcs://", "az://", "abfs://", "abfss://")


def check_image(image: str) -> str:
    """Refuse what is no reference of a container image.

    Raises:
        ValueError: with what it should look like.
    """
    if not _IMAGE.fullmatch(image):
        raise ValueError(f"{image!r} is no image reference; write registry/name:tag, or name@sha256:…")
    return image


def check_dns_label(name: str) -> str:
    """Refuse what is no name of a Kubernetes object.

    Raises:
        ValueError: with the rule.
    """
    if dns_name(name, 63) != name:
        raise ValueError(f"{name!r} is no Kubernetes name: up to 63 lower-case letters, digits and inner hyphens")
    return name


DnsLabel = Annotated[str, AfterValidator(check_dns_label)]


class Store(Section):
    """The run store that all pods share: an object store, or a volume claim that is there already."""

    url: Name | None = Field(None, description="URL such as s3://bucket/runs.")
    claim: DnsLabel | None = Field(
        None, description="PersistentVolumeClaim that many pods may write, mounted at /store."
    )
    secret: DnsLabel | None = Field(None, description="Secret whose keys become environment variables of every pod.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.claim is None):
            raise ValueError("give either url or claim")
        if self.url is not None and (not self.url.startswith(_STORES) or "@" in self.url or "?" in self.url):
            raise ValueError(
                f"{self.url!r} is no store that pods share; write a claim, "
                f"or a URL that starts with {', '.join(_STORES)} and has no credentials"
            )
        return self


class Toleration(Section):
    """A taint of nodes that pods tolerate."""

    key: Name | None = Field(None, description="The taint's key.")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="How key and value are compared.")
    value: str | None = Field(None, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Its effect.")


class Values(Section):
    """What the specs of a job cannot know about the cluster that runs it."""

    namespace: DnsLabel = Field("federated-learning", description="Namespace of everything that is rendered.")
    image: Annotated[str, AfterValidator(check_image)] | None = Field(
        None, description="Image with fedloom; fedloom:VERSION when left out."
    )
    image_pull_secrets: tuple[DnsLabel, ...] = Field((), description="Secrets for the image's registry.")
    store: Store = Field(Store(claim="fedloom-runs"), description="The run store.")
    clients_claim: DnsLabel = Field(
        "fedloom-clients",
        description="PersistentVolumeClaim with the folders of simulated clients (keys, shares), mounted at /clients "
        "in the pods of client steps alone.",
    )
    server_claim: DnsLabel = Field(
        "fedloom-server",
        description="PersistentVolumeClaim with the server's own folder (ledger key, secret of noise), mounted at "
        "/server in the pods that need it.",
    )
    second_server_claim: DnsLabel = Field(
        "fedloom-second-server",
        description="PersistentVolumeClaim with the own folder of the second of two servers, mounted at /second-server "
        "in its pods alone.",
    )
    notify_secret: DnsLabel = Field(
        "fedloom-notify", description="Secret with FEDLOOM_NOTIFY_EMAIL and the like, for pods that notify."
    )
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        {}, description="Further environment variables of every pod; no secrets."
    )
    node_selector: dict[str, str] = Field({}, description="Labels of the nodes that pods run on.")
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that pods tolerate.")
    priority_class: DnsLabel | None = Field(None, description="PriorityClass of the pods.")
    gpu_resource: Name = Field("nvidia.com/gpu", description="What a GPU is called, for jobs that ask for one.")
    parallelism: Count | None = Field(None, description="Most pods of one run at a time.")

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        for name in self.env:
            if SECRET_NAME.search(name):
                raise ValueError(f"env {name} looks like a secret; put it into a Secret and name that under store")
        return self


def load_values(path: Path | None, **replaced: str | None) -> Values:
    """Read a file of values.

    Args:
        path: A YAML file; None for the defaults.
        replaced: Values that count instead of those of the file, unless None.

    Raises:
        SpecError: with all problems of the file.
    """
    from fedloom.specs.documents import Document, load_document
    from fedloom.specs.kinds import parse

    document = Document("values", {}) if path is None else load_document(path)
    data: Any = document.data
    if isinstance(data, dict):
        data = data | {name: value for name, value in replaced.items() if value is not None}
    return parse(Document(document.file, data, document.positions, document.text), Values)
