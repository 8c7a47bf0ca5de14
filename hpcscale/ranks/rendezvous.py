"""How ranks that srun started find one another: a Layout and a shared folder in, a Meeting out.

Rank 0 serves a store of keys on the address by which it reaches the others, and writes that address into the
folder. Every rank first reports to rank 0 who it is. Rank 0 waits for all reports, compares them, and
gives all ranks the same answer. So if something does not fit, all know within seconds what and on which rank.
This needs no ssh and no MPI. Only the names of the first and the last node are looked up.
"""

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.files import write_file
from hpcscale.ranks.communicator import RankLost
from hpcscale.ranks.slurm import Environment, Layout, SlurmError
from hpcscale.ranks.store import POLL, Store, request

UNREACHABLE = 30.0  # seconds; a rank 0 that never answered so long must be behind a firewall
SILENT = 10.0  # seconds; a rank 0 that has answered before must be dead
TELLING = 2.0  # seconds that rank 0 goes on serving, so that all ranks hear what is wrong


class Meeting(NamedTuple):
    """Where all ranks can tell one another more: rank 0's or the launcher's store, while they join."""

    address: str
    port: int
    interface: str  # of this machine, by which ranks are reached

    @property
    def store(self) -> tuple[str, int]:
        return self.address, self.port


@contextlib.contextmanager
def meeting(
    layout: Layout, folder: Path, report: Mapping[str, Any], environment: Environment
) -> Iterator[Meeting]:
    """Where all ranks have met; leave the context when they have joined, on all.

    report: what must be equal on all ranks. Raises SlurmError on all ranks if reports differ or there is no
    network between the nodes, and RankLost if a rank has not come within HPCSCALE_MEET_SECONDS (300).
    """
    patience = float(environment.get("HPCSCALE_MEET_SECONDS", "300"))
    deadline = time.monotonic() + patience
    file = folder / f"address.{layout.step}"
    with contextlib.ExitStack() as stack:
        if layout.rank == 0:
            interface, address = interface_towards(_peer(layout, environment), layout, environment)
            store = _listen(layout, address)
            port = store.port
            stack.enter_context(store.served())
            stack.enter_context(_posted(file, {"address": address, "port": port}))
            store.values[_key(0)] = _encode(layout, report)
            verdict = _wait_for_all(layout, store.values, deadline, patience)
            store.values[_key("verdict")] = verdict.encode()
        else:
            address, port, interface, verdict = _report(
                file, layout, _encode(layout, report), environment, deadline, patience
            )
        kind, _, text = verdict.partition(":")
        if kind != "welcome":
            time.sleep(TELLING if layout.rank == 0 else 0)
            raise {"lost": RankLost, "misfit": SlurmError}[kind](text)
        yield Meeting(address, port, interface)


# ---- rank 0


def _listen(layout: Layout, address: str) -> Store:
    try:
        return Store(address)
    except OSError as error:
        raise SlurmError(f"{layout} cannot listen on {address}: {error}") from None


def _key(name: str | int) -> str:
    """Of our own keys beside Horovod's: the report of each rank, and the verdict."""
    return f"/hpcscale/{name}"


@contextlib.contextmanager
def _posted(file: Path, content: dict[str, Any]) -> Iterator[None]:
    write_file(file, (json.dumps(content) + "\n").encode())
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _wait_for_all(layout: Layout, reports: Mapping[str, bytes], deadline: float, patience: float) -> str:
    """The verdict: `welcome:`; `misfit:`, as soon as a report differs; or `lost:`, when time is up."""
    compared: set[int] = set()
    while True:
        for rank in set(range(layout.size)) - compared:
            if found := reports.get(_key(rank)):
                compared.add(rank)
                if difference := _difference(json.loads(reports[_key(0)]), json.loads(found)):
                    where = f"rank {rank} on node {layout.node_of(rank)}"
                    return f"misfit:{where} does not fit rank 0 on node {layout.nodes[0]}: {difference}"
        missing = [rank for rank in range(layout.size) if rank not in compared]
        if not missing:
            return "welcome:"
        if time.monotonic() > deadline:
            names = ", ".join(f"{rank} on node {layout.node_of(rank)}" for rank in missing[:8])
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            return f"lost:not come within {patience:.0f} s: rank {names}{more}"
        time.sleep(POLL)


def _encode(layout: Layout, report: Mapping[str, Any]) -> bytes:
    place = {"nodes": layout.nodes, "ranks of the nodes": layout.ranks_of, "size": layout.size}
    return json.dumps(place | dict(report)).encode()


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    keys = [key for key in expected | found if expected.get(key) != found.get(key)]
    return "; ".join(f"{key} {found.get(key)!r}, not {expected.get(key)!r}" for key in keys)


# ---- the other ranks


def _report(
    file: Path, layout: Layout, report: bytes, environment: Environment, deadline: float, patience: float
) -> tuple[str, int, str, str]:
    """Address and port of rank 0, the interface that leads there, and rank 0's verdict, which always comes
    unless rank 0 dies. If the address in the folder is that of a dead rank 0, wait for a new one."""
    here: tuple[str, int] | None = None
    while True:
        found = _address(file)
        if found and found != here:
            here, patient_until, reported = found, time.monotonic() + UNREACHABLE, False
            interface, _ = interface_towards(here[0], layout, environment)
        if here is None:
            if time.monotonic() > deadline:
                raise RankLost(
                    f"{layout}: rank 0 on node {layout.nodes[0]} has not come within {patience:.0f} s: no "
                    f"{file}, which must be on a file system that all nodes share"
                )
            time.sleep(POLL)
            continue
        try:
            if not reported:
                request(here, "PUT", _key(layout.rank), report)
                reported = True
            if (verdict := request(here, "GET", _key("verdict"))) is not None:
                return *here, interface, verdict
            patient_until = time.monotonic() + SILENT
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > patient_until:
                raise RankLost(
                    f"{layout} cannot reach rank 0 on node {layout.nodes[0]} at {here[0]}:{here[1]} ({error})"
                    ": it has ended, or they share another network, to be named with HPCSCALE_INTERFACE"
                ) from None
        time.sleep(POLL)


def _address(file: Path) -> tuple[str, int] | None:
    with contextlib.suppress(OSError):
        # NFS remembers for a minute that a file is missing; listing the folder makes it look again.
        if file.name in os.listdir(file.parent):
            content = json.loads(file.read_text())
            return content["address"], content["port"]
    return None


# ---- the network


def _peer(layout: Layout, environment: Environment) -> str:
    """An address that rank 0 must be able to reach: that of the last node, or its own."""
    if len(layout.nodes) == 1 or environment.get("HPCSCALE_INTERFACE"):
        return "127.0.0.1"
    try:
        return socket.getaddrinfo(layout.nodes[-1], None, socket.AF_INET)[0][4][0]  # type: ignore[return-value]
    except OSError as error:
        raise SlurmError(
            f"{layout}: the name of node {layout.nodes[-1]} has no address here ({error}); name the network "
            "interface with HPCSCALE_INTERFACE"
        ) from None


def interface_towards(peer: str, layout: Layout, environment: Environment) -> tuple[str, str]:
    """The network interface through which packets leave for `peer`, or that of HPCSCALE_INTERFACE; and its
    address."""
    import psutil

    addresses = {
        name: [entry.address for entry in entries if entry.family == socket.AF_INET]
        for name, entries in psutil.net_if_addrs().items()
    }
    if wanted := environment.get("HPCSCALE_INTERFACE"):
        if not addresses.get(wanted):
            known = ", ".join(name for name, found in addresses.items() if found)
            raise SlurmError(f"{layout}: HPCSCALE_INTERFACE is {wanted!r}; with an address here: {known}")
        return wanted, addresses[wanted][0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer, 9))  # sends nothing; the kernel only chooses the route
        except OSError as error:
            raise SlurmError(f"{layout}: no way to {peer}: {error}; see HPCSCALE_INTERFACE") from None
        own = probe.getsockname()[0]
    for name, found in addresses.items():
        if own in found:
            return name, own
    raise SlurmError(f"{layout}: no network interface has the address {own}, by which {peer} is reached")
