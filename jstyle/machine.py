"""Free memory and disk, as far as this process may use them."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # version 2: the limits of a container


def free_memory_bytes() -> int:
    """What the kernel calls available, or what is left below the container's limit if less."""
    available = 1 << 62
    with suppress(OSError, StopIteration, ValueError):
        lines = MEMINFO.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        available = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # no such file, or "max" for no limit
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        stat = (CGROUP / "memory.stat").read_text().split()
        cached = int(stat[stat.index("inactive_file") + 1])  # given back when memory gets short
        available = min(available, limit - used + cached)
    return max(available, 0)


def free_disk_bytes(path: Path) -> int:
    """Free bytes where `path` is, or where it would be created."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
