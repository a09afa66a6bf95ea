"""What secure aggregation costs, as ratios in one run: to the floor that AES sets, and to Flower's SecAgg+.

Run it with: python benchmarks/secure_aggregation.py [--flower PYTHON] [--length D]

100 clients with 30 neighbours each and a threshold of 21, ten of them lost before their vector arrives. The floor is
the keystream alone: AES-128 in counter mode and the addition, for as many streams as the protocol has. Flower runs in
an interpreter of its own (`python -m venv flower && flower/bin/pip install flwr==1.41.0`) through the functions of its
client and, for the server, the same calls as its workflow makes; without that interpreter it is left out, by name.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedloom.tasks.secure_aggregation.client import Client
from fedloom.tasks.secure_aggregation.identity import Identity, IdentityKey, Registry
from fedloom.tasks.secure_aggregation.masks import apply
from fedloom.tasks.secure_aggregation.messages import decode_vector, make_terms
from fedloom.tasks.secure_aggregation.server import Server
from fedloom.tasks.secure_aggregation.state import MemoryState

FLOWER = """
import importlib, json, logging, sys, time
import numpy as np
logging.disable(logging.CRITICAL)
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    get_parameters_shape, parameters_addition, parameters_mod, parameters_subtraction, factor_extract)
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

m = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
n, k, t, length, gone = json.loads(sys.argv[1])
clock = time.process_time
began = clock()
setup = {Key.SAMPLE_NUMBER: n, Key.SHARE_NUMBER: k + 1, Key.THRESHOLD: t, Key.CLIPPING_RANGE: 8.0,
         Key.TARGET_RANGE: 1 << 22, Key.MOD_RANGE: 1 << 32, Key.MAX_WEIGHT: 1000.0}
near = {i: {(i + s) % n for s in range(-k // 2, k // 2 + 1)} for i in range(n)}
states, public = {}, {}
for i in range(n):
    states[i] = m.SecAggPlusState()
    states[i].nid = i
    out = m._setup(states[i], dict(setup))
    public[i] = (out[Key.PUBLIC_KEY_1], out[Key.PUBLIC_KEY_2])
boxes = {i: ([], []) for i in range(n)}
for i in range(n):
    out = m._share_keys(states[i], {str(j): public[j] for j in sorted(near[i])})
    for target, text in zip(out[Key.DESTINATION_LIST], out[Key.CIPHERTEXT_LIST]):
        boxes[target][0].append(i)
        boxes[target][1].append(text)
update = ndarrays_to_parameters([np.zeros(length, np.float32)])
total, one = None, []
for i in range(gone, n):
    start = clock()
    request = {Key.SOURCE_LIST: boxes[i][0], Key.CIPHERTEXT_LIST: boxes[i][1]}
    out = m._collect_masked_vectors(states[i], request, 10, update)
    one.append(clock() - start)
    vector = [bytes_to_ndarray(b) for b in out[Key.MASKED_PARAMETERS]]
    total = vector if total is None else parameters_addition(total, vector)
total = parameters_mod(total, 1 << 32)
alive, dead = set(range(gone, n)), set(range(gone))
shares = {i: [] for i in range(n)}
for i in alive:
    request = {Key.ACTIVE_NODE_ID_LIST: sorted(near[i] & alive), Key.DEAD_NODE_ID_LIST: sorted(near[i] & dead)}
    out = m._unmask(states[i], request)
    for owner, share in zip(out[Key.NODE_ID_LIST], out[Key.SHARE_LIST]):
        shares[owner].append(share)
start = clock()
for i, held in shares.items():
    secret = combine_shares(held)
    if i in alive:
        total = parameters_subtraction(total, pseudo_rand_gen(secret, 1 << 32, get_parameters_shape(total)))
        continue
    for j in near[i] - {i}:
        if j not in alive:
            continue
        key = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(public[j][0]))
        mask = pseudo_rand_gen(key, 1 << 32, get_parameters_shape(total))
        total = parameters_addition(total, mask) if i > j else parameters_subtraction(total, mask)
total = parameters_mod(total, 1 << 32)
unmask = clock() - start
weight, values = factor_extract(total)
exact = bool(weight == (n - gone) * round(10 / 1000.0 * (1 << 22)))
print(json.dumps({"mask": sorted(one)[len(one) // 2], "unmask": unmask, "whole": clock() - began, "exact": exact}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower", metavar="PYTHON", help="interpreter that has flwr")
    parser.add_argument("--length", type=int, default=1_000_000)
    arguments = parser.parse_args()
    n, k, t, gone = 100, 30, 21, 10
    ours = aggregate(n, k, t, arguments.length, gone)
    print(f"{n} clients, {k} neighbours, threshold {t}, {arguments.length:,} coordinates, {gone} lost; CPU time")
    print(f"a client's masking      {ours['mask'] / floor(k + 1, arguments.length):6.2f} × its floor")
    print(f"the server's unmasking  {ours['unmask'] / floor(int(ours['masks']), arguments.length):6.2f} × its floor")
    if arguments.flower is None:
        print("Flower                  left out: give --flower PYTHON")
    else:
        command = [arguments.flower, "-c", FLOWER, json.dumps([n, k, t, arguments.length, gone])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
        for name, what in (("mask", "masking"), ("unmask", "unmasking"), ("whole", "all clients and server")):
            print(f"Flower, {what:<23} {theirs[name] / ours[name]:6.1f} × ours")
    print(json.dumps(large()))


def aggregate(n: int, k: int, t: int, length: int, gone: int) -> dict[str, float]:
    """CPU seconds of one client's masking (median), of unmasking, and of everything on one core."""
    identities = {f"c{i:05d}": Identity.generate() for i in range(n)}
    since = "2026-01-01T00:00:00+00:00"
    registry = Registry("fleet", {name: IdentityKey(own.public, since) for name, own in identities.items()}, {})
    vector = np.arange(length, dtype=np.uint32)
    began = time.process_time()
    terms = make_terms(registry, "benchmark", tuple(identities), k, t, 3, 32, length)
    server = Server(terms, registry)
    clients = {name: Client(name, own, registry, MemoryState()) for name, own in identities.items()}
    encoded = terms.encode()
    server.take_adverts({name: client.advertise(encoded) for name, client in clients.items()})
    server.take_shares({name: client.share(server.share_request(name)) for name, client in clients.items()})
    total, each = np.zeros(length, np.uint32), []
    alive = sorted(clients)[gone:]
    for name in alive:
        request = server.mask_request(name)
        start = time.process_time()
        masked = clients[name].mask(request, vector)
        each.append(time.process_time() - start)
        total += decode_vector(masked, terms)
        # What a client keeps of its answer would be on its own machine.
        kept = clients[name].state.load("mask") or b""
        clients[name].state.save("mask", kept[: len(kept) - 4 * length])
    server.take_masked(alive)
    request = server.survivors_request()
    server.take_confirmations({name: clients[name].confirm(request) for name in alive})
    server.take_reveals({name: clients[name].reveal(server.reveal_request(name)) for name in alive})
    start = time.process_time()
    masks = server.masks()
    apply(total, masks)
    unmask = time.process_time() - start
    assert (total == vector * np.uint32(len(alive))).all(), "the sum is wrong"
    return {
        "mask": sorted(each)[len(each) // 2],
        "unmask": unmask,
        "whole": time.process_time() - began,
        "masks": len(masks),
    }


def floor(streams: int, length: int) -> float:
    """CPU seconds for so many streams of AES-128-CTR, each added to a vector; the best of three."""
    piece = 1 << 16
    vector, zeros, stream = np.zeros(length, np.uint32), bytes(4 * piece), bytearray(4 * piece + 16)
    drawn, best = np.frombuffer(stream, np.uint32, piece), float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(streams):
            cipher = Cipher(algorithms.AES128(os.urandom(16)), modes.CTR(bytes(16))).encryptor()
            for first in range(0, length, piece):
                part = vector[first : first + piece]
                cipher.update_into(memoryview(zeros)[: part.nbytes], stream)
                part += drawn[: len(part)]
        best = min(best, time.process_time() - start)
    return best


def large() -> dict[str, float]:
    """Peak memory of 1,000 clients at 100,000 coordinates, in a process of its own."""
    code = "import sys; sys.path.insert(0, 'benchmarks'); import secure_aggregation as s; print(s.peak())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"gigabytes_at_1000_clients": float(done.stdout.splitlines()[-1])}


def peak() -> float:
    aggregate(1000, 60, 41, 100_000, 50)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
