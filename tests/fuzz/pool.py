"""Processes that run cases: forked, watched from outside, and forked anew where one ends or hangs."""

import json
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import harness
from tests.fuzz.families import FAMILIES

Cases = Sequence[tuple[str, int]]
Result = tuple[tuple[str, int], dict[str, Any]]
PATIENCE = harness.HANG + 15  # seconds; a process that its own alarm does not wake is killed then
AFTER_HANG = 3  # exit code of one that its alarm has woken: who knows what state it is in


def chance(seed: int, family: str, number: int) -> Random:
    return Random(f"{seed}:{family}:{number}")


def in_child(work: Callable[[], None]) -> None:
    """Do it in a process of its own: a library that has threads must not be forked afterwards."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the world of good inputs could not be made")


class Worker:
    """A process, the cases that it has not done yet, and since when it is at the first of them."""

    def __init__(self, place: Path, cases: Cases, seed: int) -> None:
        self.place, self.cases, self.seed = place, list(cases), seed

    def start(self) -> int:
        """Fork. Returns what to read from."""
        reader, writer = os.pipe()
        self.since, self.rest = time.monotonic(), b""
        self.child = os.fork()
        if self.child:
            os.close(writer)
            return reader
        code = 1
        try:
            os.close(reader)
            harness.prepare()
            code = self.work(writer)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def work(self, writer: int) -> int:
        for family, number in self.cases:
            place = self.place / f"{family}-{number}"
            with harness.quiet():
                found = harness.attempt(
                    FAMILIES[family][0], self.place / "world", place, chance(self.seed, family, number)
                )
            os.write(writer, json.dumps(found).encode() + b"\n")
            if found["kind"] == "hang":
                return AFTER_HANG
        return 0

    def take(self, content: bytes) -> Iterator[Result]:
        *lines, self.rest = (self.rest + content).split(b"\n")
        for line in lines:
            self.since = time.monotonic()
            yield self.cases.pop(0), json.loads(line)

    def ended(self) -> Iterator[Result]:
        """Where it ended in the middle of a case, that one."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        if status not in (0, AFTER_HANG) and self.cases:
            kind = "hang" if status == -signal.SIGKILL else "crash"
            yield self.cases.pop(0), {"kind": kind, "found": f"exit code {status}", "note": "", "command": ""}


def results(place: Path, cases: Cases, seed: int, processes: int) -> Iterator[Result]:
    """Every case with what came of it, as they are done."""
    selector = selectors.DefaultSelector()
    for i in range(processes):
        worker = Worker(place, cases[i::processes], seed)
        selector.register(worker.start(), selectors.EVENT_READ, worker)
    while selector.get_map():
        for key, _ in selector.select(timeout=1):
            worker = key.data
            content = os.read(key.fd, 1 << 20)
            if content:
                yield from worker.take(content)
                continue
            yield from worker.ended()
            selector.unregister(key.fd)
            os.close(key.fd)
            if worker.cases:
                selector.register(worker.start(), selectors.EVENT_READ, worker)
        for key in selector.get_map().values():
            if time.monotonic() - key.data.since > PATIENCE:
                os.kill(key.data.child, signal.SIGKILL)
