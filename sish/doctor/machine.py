"""Checks of the machine: Python, cores, memory, the temporary folder and the encoding of names."""

from __future__ import annotations

import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sish.doctor.findings import BROKEN, NOTE, OK, Check

OLDEST_PYTHON = (3, 11)
LITTLE_MEMORY = 2 << 30  # bytes
LITTLE_SPACE = 1 << 30  # bytes

THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables of the environment that libraries take their number of threads from."""

_CGROUP = Path("/sys/fs/cgroup")
_OTHER_SCRIPT = "größe-組織.svs"


def check_python() -> Iterator[Check]:
    """Check the interpreter and name the system."""
    libc = " ".join(platform.libc_ver()).strip()
    system = ", ".join(filter(None, (platform.system(), platform.release(), platform.machine(), libc)))
    found = f"{platform.python_version()} ({platform.python_implementation()}) on {system}"
    if sys.version_info < OLDEST_PYTHON:
        yield Check("python", BROKEN, found, "install Python {}.{} or newer".format(*OLDEST_PYTHON))
    else:
        yield Check("python", OK, found)


def check_cores() -> Iterator[Check]:
    """Tell how many cores this process may use, and what sets the number of threads."""
    allowed = allowed_cores()
    found = f"{allowed:g} of {os.cpu_count()}"
    threads = {name: value for name in THREADS if (value := os.environ.get(name))}
    if threads:
        found += ", " + ", ".join(f"{name}={value}" for name, value in threads.items())
    numbers = [int(value) for value in threads.values() if value.isdecimal()]
    if numbers and max(numbers) > max(allowed, 1):
        yield Check("cores", NOTE, found, "set these variables to the number of cores, or unset them")
    else:
        yield Check("cores", OK, found)


def allowed_cores() -> float:
    """Return the number of cores that affinity and the quota of a control group leave."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quota, _, period = _cgroup("cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        return min(cores, int(quota) / int(period))
    return cores


def check_memory() -> Iterator[Check]:
    """Tell how much memory is free, within the limit of a control group."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = _free_memory() or total
    limit = _cgroup("memory.max")
    if limit.isdecimal() and int(limit) < total:
        total = int(limit)
        used = _cgroup("memory.current")
        free = min(free, total - int(used) if used.isdecimal() else total)
    found = f"{_gib(free)} free of {_gib(total)}"
    if free < LITTLE_MEMORY:
        advice = f"end other programs: {_gib(LITTLE_MEMORY)} are needed to add slides"
        yield Check("memory", NOTE, found, advice)
    else:
        yield Check("memory", OK, found)


def _free_memory() -> int | None:
    """Return what Linux says is available, in bytes; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup(name: str) -> str:
    """Return what a file of this process's control group holds; "" where there is none."""
    try:
        return (_CGROUP / name).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def check_temporary_folder() -> Iterator[Check]:
    """Write a file where temporary files go, and tell how much space there is."""
    name = "temporary folder"
    advice = "set TMPDIR to a folder with space that you can write to"
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError as error:
        yield Check(name, BROKEN, f"cannot be written: {error.strerror}", advice)
        return
    found = f"{_gib(free)} free in {tempfile.gettempdir()}"
    yield Check(name, NOTE, found, advice) if free < LITTLE_SPACE else Check(name, OK, found)


def check_encoding() -> Iterator[Check]:
    """Check that a name of a slide can have any letters."""
    files, text = sys.getfilesystemencoding(), locale.getpreferredencoding(False)
    try:
        _OTHER_SCRIPT.encode(files)
        _OTHER_SCRIPT.encode(text)
    except UnicodeEncodeError:
        found = f"names of files are in {files}, text is in {text}"
        yield Check("encoding", NOTE, found, "export LC_ALL=C.UTF-8, or letters of other scripts fail")
    else:
        yield Check("encoding", OK, f"{files}, {text}")


def _gib(number: float) -> str:
    return f"{number / (1 << 30):.1f} GiB"
