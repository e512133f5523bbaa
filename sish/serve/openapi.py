"""The description of the API in the OpenAPI format, made of the calls themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sish.serve.calls import Call
from sish.version import __version__

_ERROR = {
    "description": "What was got, what was wanted, what to do",
    "content": {
        "application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}
    },
}


def openapi_of(calls: Iterable[Call]) -> dict[str, Any]:
    """Return the description of some calls, as OpenAPI 3.1 has it.

    Parameters
    ----------
    calls : iterable of Call
        The calls.

    Returns
    -------
    dict
        Plain values for JSON.
    """
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sish serve",
            "version": __version__,
            "description": "Places are level-0 pixels, x first. Ids of slides are one segment of a path: "
            "percent-encode them. Programs send the token as 'Authorization: Bearer TOKEN'.",
        },
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


def _operation(call: Call) -> dict[str, Any]:
    within = re.findall(r"{(\w+)}", call.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in within
    ]
    parameters += [
        {"name": name, "in": "query", "description": told, "schema": {"type": "string"}}
        for name, told in call.asked.items()
    ]
    operation: dict[str, Any] = {
        "summary": call.summary,
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {call.answers: {}}}, "default": _ERROR},
    }
    if call.body:
        fields = {name: {"description": told} for name, told in call.body.items()}
        schema = {"type": "object", "properties": fields, "additionalProperties": False}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation
