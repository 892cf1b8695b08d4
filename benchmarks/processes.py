"""Run each model in a process of its own, with a time limit, and keep what came out as JSON lines."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Target = Callable[..., Record]

# Imported once by the server that all processes are forked from: seconds saved for every model.
_PRELOAD = ["torch", "torchvision", "timm", "transformers", "secateur"]


def run_all(
    target: Target, tasks: Iterable[tuple[str, tuple[Any, ...]]], *, jobs: int = 1, limit: float = 300
) -> Iterator[Record]:
    """Call ``target(*arguments)`` for every (name, arguments), each in its own process.

    Yields its record, or ``{"name", "failure", "message"}`` where it raised, was ended by a signal or
    took more than ``limit`` seconds, in the order that they finish.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_run, context, target, name, given, limit) for name, given in tasks]
        for future in as_completed(waiting):
            yield future.result()


def _run(context: Any, target: Target, name: str, given: tuple[Any, ...], limit: float) -> Record:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, target, given), daemon=True)
    start = time.perf_counter()
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit):
            record: Record = {"failure": "time limit", "message": f"not done after {limit:.0f} s"}
        else:
            record = ours.recv()
    except EOFError:
        process.join()
        record = {"failure": "crash", "message": f"the process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return {"name": name, **record, "wall": round(time.perf_counter() - start, 2)}


def _work(connection: Any, target: Target, given: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)  # models run side by side, and one thread is repeatable
    try:
        record = target(*given)
    except Exception as error:
        record = failure(error)
    connection.send(record)


def failure(error: Exception) -> Record:
    """What an exception says, for a record."""
    return {"failure": type(error).__name__, "message": str(error)[:2000]}


def code_version() -> str:
    """What tells one state of Secateur's sources from another."""
    import secateur

    digest = hashlib.sha256()
    folder = Path(secateur.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def read_lines(path: Path) -> dict[str, Record]:
    """Records of a file of JSON lines by name; the last one of a name counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["name"]: record for record in map(json.loads, lines)}


def append_line(path: Path, record: Record) -> None:
    """Add a record to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Peak resident memory of this process while the body runs, in MB beyond what it had before.

    Linux only: elsewhere it is not a number.
    """
    peak = float("nan")
    status = Path("/proc/self/status")
    if status.exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _resident(status, "VmRSS")
    yield lambda: peak
    if status.exists():
        peak = _resident(status, "VmHWM") - before


def _resident(status: Path, field: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def version_line() -> str:
    """What the figures below were measured with."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "transformers")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{', '.join(f'{name} {version(name)}' for name in names)}; one thread on {cores} cores"
