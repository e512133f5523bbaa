"""Addresses of archives in PostgreSQL: ``postgresql://USER@HOST:PORT/DATABASE?archive=NAME``.

An address is a URI of libpq with one parameter more: ``archive``, the schema that holds the archive's tables
(default ``sish``). So one database holds several archives. What libpq takes from the environment and from
``~/.pgpass`` (``PGPASSWORD``, ...) may be left out.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from sish.errors import ParameterError

SCHEMES = ("postgresql", "postgres")
_SCHEMA = "sish"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SECRETS = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Address:
    """The place of an archive in PostgreSQL. Its text never shows a password.

    Examples
    --------
    >>> address = Address.parse("postgresql://ann:secret@db.example/slides?archive=breast")
    >>> str(address), address.name, address.schema, address.conninfo
    ('postgresql://ann@db.example/slides?archive=breast', 'slides.breast', 'breast', \
'postgresql://ann:secret@db.example/slides')
    """

    conninfo: str
    """The URI for libpq; it may hold a password."""
    schema: str
    """The schema of the archive's tables."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return an address; ParameterError if the text is none."""
        try:
            parts = urlsplit(text)
            pairs = parse_qsl(
                _own_plus(parts.query), keep_blank_values=True, strict_parsing=bool(parts.query)
            )
        except ValueError:  # it may quote a part of a password
            raise ParameterError(f"got {_shown(text)!r}, which is no URI; want {WANTED}") from None
        if parts.scheme not in SCHEMES:
            raise ParameterError(f"got {_shown(text)!r}; want {WANTED}")
        if parts.fragment or "@" in parts.path:
            raise ParameterError(
                f"got {_shown(text)!r}; want {WANTED}, and / ? # @ of a password as %2F %3F %23 %40"
            )
        schema = dict(pairs).get("archive", _SCHEMA)
        if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
            raise ParameterError(
                f"got archive={schema!r}; want up to 48 small letters, digits and _, not first a digit or pg_"
            )
        return cls(_with_query(text, [pair for pair in pairs if pair[0] != "archive"]), schema)

    def __str__(self) -> str:
        """Return it as it was given, without passwords."""
        parts = urlsplit(_shown(self.conninfo))
        pairs = [pair for pair in parse_qsl(_own_plus(parts.query)) if pair[0] not in _SECRETS]
        if self.schema != _SCHEMA:
            pairs.append(("archive", self.schema))
        return _with_query(urlunsplit(parts), pairs)

    def __repr__(self) -> str:
        """Return its text: a password would show in tracebacks and logs."""
        return f"Address({str(self)!r})"

    @property
    def name(self) -> str:
        """Return the database and the schema."""
        return f"{unquote(urlsplit(self.conninfo).path).strip('/') or 'postgres'}.{self.schema}"


WANTED = "postgresql://USER@HOST:PORT/DATABASE?archive=NAME"
"""How an address is written."""

Place = Path | Address
"""Where an archive is: a folder, or an address in PostgreSQL."""


def is_address(given: object) -> bool:
    """Return whether something is an address, or a text that is meant as one: any URI is no folder."""
    return isinstance(given, Address) or (isinstance(given, str) and bool(_URI.match(given)))


def place_of(given: str | os.PathLike[str] | Address) -> Place:
    """Return an address or a path as what it is."""
    if isinstance(given, Address):
        return given
    return Address.parse(os.fspath(given)) if is_address(given) else Path(given)


def _own_plus(query: str) -> str:
    """Return a query whose + stay what they are, as they do for libpq."""
    return query.replace("+", "%2B")


def _with_query(uri: str, pairs: list[tuple[str, str]]) -> str:
    """Return a URI with these parameters in place of its own."""
    parts = urlsplit(uri)
    query = urlencode(pairs, quote_via=quote)  # libpq would keep the + of a space
    head = f"{parts.scheme}://{parts.netloc}{parts.path}"  # urlunsplit drops the // of an empty host
    return f"{head}?{query}" if query else head


def _shown(text: str) -> str:
    """Return a text without passwords, whatever else it is."""
    without = re.sub(r"(?<=//)([^/@:]*):.*@", r"\1@", text)  # also where a password has / ? # @ in it
    return re.sub(rf"\b({'|'.join(_SECRETS)})=[^&]*&?", "", without)
