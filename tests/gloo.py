"""Two processes that find each other: a script is started as rank 0 and rank 1."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import secateur


def run_two(script: Path, folder: Path) -> list[Any]:
    """What each of two processes running ``script`` saves; it ends with ``main(cases)``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    paths = [str(Path(secateur.__file__).parents[1]), str(Path(__file__).parent)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), port, str(folder)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        messages = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert all(process.returncode == 0 for process in processes), "\n".join(messages)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def main(cases: dict[str, Callable[[int], Any]]) -> None:
    """Run every case with this process's rank, and save what they return."""
    rank, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        torch.save({name: case(rank) for name, case in cases.items()}, folder / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    # Past the interpreter's shutdown, in which threads of gloo that are still alive can abort a process
    # that has done its work ("terminate called without an active exception", seen on a loaded machine).
    os._exit(0)
