"""The reference of the HTTP interface, written by the description that ``sish serve`` gives out."""

from collections.abc import Iterator
from typing import Any

from sish.serve.app import CALLS
from sish.serve.openapi import openapi_of


def text() -> str:
    """Return Markdown on all calls."""
    described = openapi_of(CALLS)
    lines = [described["info"]["description"], ""]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            lines += _told(f"{method.upper()} {path}", operation)
    return "\n".join(lines)


def _told(name: str, operation: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on one call."""
    answers = " or ".join(f"`{kind}`" for kind in operation["responses"]["200"]["content"])
    yield f"## `{name}`\n\n{operation['summary']} Answers {answers}.\n"
    asked = [it for it in operation["parameters"] if it["in"] == "query"]
    yield from _table("query", {it["name"]: it["description"] for it in asked})
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        yield from _table("body", {name: it["description"] for name, it in schema["properties"].items()})


def _table(title: str, rows: dict[str, str]) -> Iterator[str]:
    """Yield a table of names and what they are."""
    if rows:
        yield f"| {title} | |\n|---|---|"
        yield from (f"| `{name}` | {told.replace('|', chr(92) + '|')} |" for name, told in rows.items())
        yield ""
