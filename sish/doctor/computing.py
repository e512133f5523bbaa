"""Checks of what computes: processor, numba's kernels and their cache, torch and ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sish.doctor.findings import BROKEN, NOTE, OK, Check, first_line

USEFUL_FEATURES = ("popcnt", "avx2", "avx512f", "avx512vpopcntdq", "neon")
"""Instructions that make searches faster."""

_KERNEL_ANSWER = 6
"""Bits in which 0b10110001 and 0b01100110 differ: their difference is 0b11010111."""


def check_processor() -> Iterator[Check]:
    """Name the processor as the compiler sees it, and its instructions that count bits."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    has = [name for name in USEFUL_FEATURES if features.get(name)]
    found = f"{binding.get_host_cpu_name()}: {', '.join(has) or 'none of ' + ', '.join(USEFUL_FEATURES)}"
    if not {"popcnt", "neon"} & set(has):
        yield Check("processor", NOTE, found, "searches are slower: it counts bits without an instruction")
    else:
        yield Check("processor", OK, found)


def check_kernels() -> Iterator[Check]:
    """Run a compiled kernel with a known answer, and find out where compiled kernels are kept."""
    import numpy as np

    from sish.index.compiled import as_words, cache_folder, distance

    left = as_words(np.array([[0b10110001, 0]], np.uint8))
    right = as_words(np.array([[0b01100110, 0]], np.uint8))
    answer = distance(left, 0, right, 0)
    if answer != _KERNEL_ANSWER:
        advice = "pip install --force-reinstall numba llvmlite"
        yield Check("kernels", BROKEN, f"a distance of {answer} bits, and it is {_KERNEL_ANSWER}", advice)
        return
    folder = cache_folder()
    if folder is None:
        advice = "set NUMBA_CACHE_DIR to a folder that you can write to"
        yield Check("kernels", NOTE, "cannot be kept, so each process compiles them again", advice)
    else:
        kept = len(list(Path(folder).parent.rglob("*.nbi")))
        wanted = os.environ.get("NUMBA_CACHE_DIR", "")
        if wanted and not Path(folder).resolve().is_relative_to(Path(wanted).resolve()):
            advice = "set NUMBA_CACHE_DIR to a folder that you can write to, or unset it"
            found = (
                f"NUMBA_CACHE_DIR={wanted} cannot be written, so they are kept in {folder} ({kept} so far)"
            )
            yield Check("kernels", NOTE, found, advice)
            return
        given = "NUMBA_CACHE_DIR" if wanted else "the cache of numba"
        yield Check("kernels", OK, f"kept in {given}, {folder} ({kept} so far)")


def check_torch() -> Iterator[Check]:
    """Let torch compute on each of its devices."""
    import torch

    name = "torch devices"
    devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    told, state, advice = [], OK, ""
    for device in devices:
        try:
            ones = torch.ones(64, 64, device=device)
            is_right = float((ones @ ones).sum()) == 64**3
            problem = "" if is_right else "computes wrongly"
        except (RuntimeError, AssertionError) as error:
            problem = f"fails: {first_line(error)}"
        title = f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device
        told.append(f"{title} {problem}".strip())
        if problem:
            state = BROKEN if device == "cpu" else max(state, NOTE, key=(OK, NOTE, BROKEN).index)
            advice = "install a build of torch that fits the driver, or use --device cpu"
    if torch.version.cuda and len(devices) == 1:
        told.append(f"built for CUDA {torch.version.cuda}, and no GPU is found")
    yield Check(name, state, ", ".join(told), advice)


def check_onnx() -> Iterator[Check]:
    """Tell on what ONNX Runtime can run the default encoder; the self-test runs it on the CPU."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    name = "onnx providers"
    if "CPUExecutionProvider" not in providers:
        yield Check(name, BROKEN, ", ".join(providers) or "none", "pip install --force-reinstall onnxruntime")
        return
    yield Check(name, OK, ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers))
