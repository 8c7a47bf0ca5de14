"""Processes that work on pictures: records in, answers out, in the same order. For ingest and the hashes.

Each worker is a new interpreter with a pipe in and a pipe out. So it inherits nothing from the caller
(threads, GPU contexts, `__main__`), and when one side ends, the other sees its pipe closed. Record i goes to
worker i % n, and answers are read in turn: nothing has to be put in order, and the pipes bound the memory.
Every worker has a thread that sends. So the caller, who only receives, and a worker never wait for each
other, however long a path or small a pipe.
"""

import contextlib
import fcntl
import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

import hpcscale
from hpcscale.files import AGAIN, Told
from hpcscale.ingest.record import Record

DEPTH = 8  # records per worker that are sent but not answered
PIPE = 1 << 20  # bytes of answers a worker may be ahead; an ordinary user cannot ask for more


Answer = TypeVar("Answer")


class Worker(NamedTuple):
    process: "subprocess.Popen[bytes]"
    tasks: "queue.SimpleQueue[bytes]"  # b"": no more
    sender: threading.Thread


class WorkerDied(Told):
    """A worker process ended early. What is finished stays finished: the same command can be run again."""

    code = 75


def answers(
    records: Iterable[Record], workers: int, function: Callable[..., Answer], *options: Any
) -> Generator[tuple[Record, Answer | None]]:
    """Every record with function(file, offset, size, *options), in order; None if the record has a problem.

    `function` must be defined at the top of a module, and `options` be literals. Raises WorkerDied, or the
    OSError or MemoryError that the function raised; another try may then succeed.
    """
    pool: list[Worker] = []
    waiting: deque[tuple[Record, Worker | None]] = deque()
    turn = 0
    try:
        for _ in range(workers):
            pool.append(_start(function, options))
        for record in records:
            worker = None
            if not record.problem:
                worker = pool[turn % workers]
                turn += 1
                worker.tasks.put(pickle.dumps((record.file, record.offset, record.size)))
            waiting.append((record, worker))
            if len(waiting) >= workers * DEPTH:
                yield _receive(*waiting.popleft())
        while waiting:
            yield _receive(*waiting.popleft())
    finally:
        for worker in pool:
            worker.process.kill()
            worker.tasks.put(b"")
        for worker in pool:
            worker.sender.join()
            with contextlib.suppress(OSError):
                worker.process.communicate()


def _start(function: Callable[..., Any], options: tuple[Any, ...]) -> Worker:
    root = str(Path(hpcscale.__file__).parent.parent)
    work = (function.__module__, function.__name__, options)
    code = f"import sys; sys.path.insert(0, {root!r}); import hpcscale.ingest.workers as w; w.serve(*{work})"
    # Workers start with these signals blocked: Ctrl-C reaches the whole process group, but the parent is to
    # end them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=-1
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with contextlib.suppress(OSError):  # the user's limit of memory for pipes may be reached
        fcntl.fcntl(cast(IO[bytes], process.stdout), fcntl.F_SETPIPE_SZ, PIPE)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    sender = threading.Thread(target=_send, args=(process.stdin, tasks), daemon=True)
    sender.start()
    return Worker(process, tasks, sender)


def _send(stream: IO[bytes], tasks: "queue.SimpleQueue[bytes]") -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker is gone; its pipe of answers will show that
        while task := tasks.get():
            stream.write(task)
            stream.flush()


def _receive(record: Record, worker: Worker | None) -> tuple[Record, Any]:
    if worker is None:
        return record, None
    try:
        answer = pickle.load(cast(IO[bytes], worker.process.stdout))
    except (EOFError, pickle.UnpicklingError):  # an answer that was cut raises one or the other
        raise _death(worker.process, record) from None
    if isinstance(answer, BaseException):
        raise answer
    return record, answer


def _death(worker: subprocess.Popen[bytes], record: Record) -> WorkerDied:
    code = worker.wait()
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
    return WorkerDied(f"a worker process ended {how} near record {record.name}; {AGAIN}")


def serve(module: str, name: str, options: tuple[Any, ...]) -> None:
    """A worker process: pickled (file, offset, size) from stdin, pickled answers to stdout, until stdin ends.

    It ends by itself when its parent ends, even by kill -9, because that closes its pipe.
    """
    warnings.simplefilter("ignore")  # Pillow warns of things that the function decides itself
    tasks, results = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # so that nothing that a library prints gets into the answers
    function = getattr(importlib.import_module(module), name)
    try:
        while True:
            try:
                file, offset, size = pickle.load(tasks)
            except EOFError:
                return
            try:
                answer = function(file, offset, size, *options)
            except (OSError, MemoryError) as error:
                answer = error
            pickle.dump(answer, results, protocol=5)
            results.flush()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
