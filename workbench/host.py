"""What the host lets this process use: processors and memory."""

from __future__ import annotations

import os
from pathlib import Path

ANY = 1 << 62
"""Bytes that are free where nobody says how many."""


def usable_cpus() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def free_bytes() -> int:
    """Memory that this process may still take: what the system has, within the process's limit."""
    found: list[int] = []
    try:
        info = Path("/proc/meminfo").read_text()
        found += [int(x.split()[1]) << 10 for x in info.splitlines() if x.startswith("MemAvail")]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return ANY  # not Linux: an allocation that fails says so itself
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        found.append(max(0, limit - used))
    return min(found, default=ANY)
