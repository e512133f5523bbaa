"""The checks by name, and the child process that runs them."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from sish.doctor import computing, decoders, machine, packages, self_test, stored
from sish.doctor.children import BEGIN, END
from sish.doctor.findings import BROKEN, Check, first_line

OF_THE_MACHINE: dict[str, Callable[[], Iterable[Check]]] = {
    "python": machine.check_python,
    "cores": machine.check_cores,
    "memory": machine.check_memory,
    "temporary folder": machine.check_temporary_folder,
    "encoding": machine.check_encoding,
    "sish": packages.check_sish,
    **{name: partial(packages.check_package, name) for name in packages.required()},
    "openslide decoders": decoders.check_openslide,
    "slides": decoders.check_slides,
    "tiff decoders": decoders.check_tiffs,
    "picture decoders": decoders.check_pictures,
    "processor": computing.check_processor,
    "kernels": computing.check_kernels,
    "torch devices": computing.check_torch,
    "onnx providers": computing.check_onnx,
    **{f"extra {name}": partial(packages.check_extra, name) for name in packages.ENABLES},
    "self-test": self_test.check_search,
}
"""Checks that need nothing, in the order in which they are told."""

OF_AN_INDEX: dict[str, Callable[[str], Iterable[Check]]] = {
    "index folder": stored.check_folder,
    "index lock": stored.check_lock,
    "index": stored.check_index,
}
"""Checks of one index."""


def main(names: Sequence[str], index: str | None) -> None:
    """Run checks and print what they find, in the child process of `sish.doctor.children`.

    What libraries print goes to standard error.
    """
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")

    def tell(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    for name in names:
        tell({BEGIN: name})
        for check in _found(name, index):
            tell(asdict(check))
        tell({END: name})


def _found(name: str, index: str | None) -> Iterator[Check]:
    """Yield what a check finds; what it raises is what is wrong."""
    try:
        if name in OF_AN_INDEX:
            assert index is not None
            yield from OF_AN_INDEX[name](index)
        else:
            yield from OF_THE_MACHINE[name]()
    except Exception as error:
        advice = "install what is broken above again; if nothing is, this is a fault: sish doctor --report"
        yield Check(name, BROKEN, f"{type(error).__name__}: {first_line(error)}", advice)
