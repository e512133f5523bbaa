"""Take out of a text what a public issue must not tell: people, machines, folders, addresses and secrets.

>>> private = Private({"/home/jane": "~", "jane": "USER", "lab7": "HOST"})
>>> private.hide("/home/jane/My Slides/lib.so: is broken, says jane on lab7; janet does not")
'~/.../lib.so: is broken, says USER on HOST; janet does not'
>>> private.hide('no answer of postgresql://x:secret@db.hospital.org/archive at "10.0.0.5", port 5432')
'no answer of postgresql://... at "ADDRESS", port 5432'
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_URL = re.compile(r"\b(\w[\w+.-]*://)[^\s'\"]+")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)*")
_IP = re.compile(r"(?<=[\"'(])(\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]+(%\w+)?)(?=[\"')])")
_QUOTED = re.compile(r'\b(user|role|database|schema|host name|server at|service) "[^"]*"')
"""What libpq and PostgreSQL call by name."""

_TOPS = ("~", "TEMP", "PYTHON", "HERE", "INDEX")
"""Words that stand for folders."""

_FOLDERS = re.compile(rf"(?<![\w.)/])({'|'.join(_TOPS)})?/([^/\s]([^/\n:;,'\"|]*[^/\s:;,'\"|])?/)+")
"""All folders of a path but the last name; folders may have spaces in their names."""

_LAST = re.compile(r"(?<=\.\.\./)[^/\s:;,'\"|.]+(?![^\s:;,'\"|])")
"""The last name of a path, if it has no ending: it may be a folder."""


@dataclass(frozen=True, slots=True)
class Private:
    """Words that must not be told, and the words that stand for them."""

    words: Mapping[str, str]
    """Folders, names of people and machines, and secrets; longer ones are replaced first."""

    @classmethod
    def here(cls, index: str | None = None) -> Private:
        """Return what is private about this user, this machine and an index."""
        words = {tempfile.gettempdir(): "TEMP", sys.prefix: "PYTHON"}
        with suppress(OSError):  # it may have been deleted
            words[str(Path.cwd())] = "HERE"
        words |= dict.fromkeys({str(Path.home()), os.path.realpath(Path.home())}, "~")
        with suppress(OSError, KeyError):  # a container may run as a user without a name
            words[getpass.getuser()] = "USER"
        host = socket.gethostname()
        words |= {host: "HOST", host.partition(".")[0]: "HOST", Path.home().name: "USER"}
        if index is not None:
            words |= _of_index(index)
        return cls({word: cover for word, cover in words.items() if word.strip("/ ") not in _PUBLIC})

    def hide(self, text: str) -> str:
        """Return a text without what is private."""
        for word in sorted(self.words, key=len, reverse=True):
            if word.startswith("/"):
                text = text.replace(word, self.words[word])
        text = _URL.sub(r"\1...", text)
        for word in sorted(self.words, key=len, reverse=True):
            text = re.sub(rf"(?<![\w]){re.escape(word)}(?![\w])", self.words[word], text)
        text = _IP.sub("ADDRESS", _QUOTED.sub(r'\1 "PRIVATE"', _MAIL.sub("MAIL", text)))
        return _LAST.sub("...", _FOLDERS.sub(lambda found: f"{found[1] or ''}/.../".lstrip("/"), text))


_PUBLIC = frozenset({"", "localhost", "root", "python", "sish"})
"""Words that tell nothing about anyone."""


_TOLD = ("user", "password", "sslpassword", "dbname", "service", "archive")
"""Parameters of an address whose values are private."""


def _of_index(index: str) -> dict[str, str]:
    """Return what is private about an index: its folder, or all parts of its address."""
    if "://" not in index:
        names = {index, str(Path(index).absolute()), os.path.realpath(index)}
        return dict.fromkeys(names, "INDEX")
    parts = urlsplit(index)
    person, _, hosts = parts.netloc.rpartition("@")
    asked = parse_qs(parts.query)
    hosts = ",".join([hosts, *asked.get("host", ()), *asked.get("hostaddr", ())])
    found = [*person.split(":", 1), *(re.sub(r":\d*$", "", host) for host in hosts.split(","))]
    found += [parts.path.strip("/"), *(value for name in _TOLD for value in asked.get(name, ()))]
    return {unquote(part): "PRIVATE" for part in found if part}
