"""What a measurement was made on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def describe_device(device: torch.device | str = "cpu", threads: int | None = None) -> dict[str, str]:
    """The processor, library and settings that times depend on.

    >>> sorted(describe_device())
    ['device', 'processor', 'system', 'threads', 'torch']
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    return {
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if cuda else _processor(),
        "system": platform.system(),
        "threads": str(threads or torch.get_num_threads()),
        "torch": torch.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
