"""Secure aggregation: a server learns the sum of its clients' vectors and nothing else.

SecAgg+ (Bell et al. 2020) for one server that may cheat, as state machines that exchange bytes: `Client` and
`Server`, joined by `make_terms`. `two_server` is the one-shot alternative for two servers that do not work together.
No network and no engine is in sight; what runs the stages is up to the caller.
"""

from fedloom.tasks.secure_aggregation.client import Client, RefusedError
from fedloom.tasks.secure_aggregation.identity import Identity, IdentityError, IdentityKey, Registry
from fedloom.tasks.secure_aggregation.masks import Mask, apply
from fedloom.tasks.secure_aggregation.messages import Terms, decode_vector, make_terms
from fedloom.tasks.secure_aggregation.parameters import Assumptions, Degrees, ParameterError, choose
from fedloom.tasks.secure_aggregation.quantise import QuantisationError, Quantiser, fit_ring
from fedloom.tasks.secure_aggregation.server import AbortError, Server
from fedloom.tasks.secure_aggregation.state import FolderState, MemoryState

__all__ = [
    "AbortError", "Assumptions", "Client", "Degrees", "FolderState", "Identity", "IdentityError", "IdentityKey",
    "Mask", "MemoryState", "ParameterError", "QuantisationError", "Quantiser", "RefusedError", "Registry", "Server",
    "Terms", "apply", "choose", "decode_vector", "fit_ring", "make_terms",
]  # fmt: skip
