"""Answers as files to take along: a table, the self-contained report, GeoJSON for QuPath."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from sish.answers import csv_of
from sish.geojson import Origin
from sish.qupath import write_geojson
from sish.report import write_report
from sish.results import Results
from sish.slide_index import Index
from sish.tables import table_of


def as_csv(results: Results, _index: Index, _origin: Origin) -> bytes:
    """Return the hits as CSV, as ``sish search --csv`` writes them."""
    columns, rows = table_of([results.to_dict()], Results.HIT_FIELDS)
    return csv_of(rows, columns).encode(errors="backslashreplace")


def as_report(results: Results, index: Index, _origin: Origin) -> bytes:
    """Return the page of :func:`sish.write_report`."""
    with tempfile.TemporaryDirectory() as folder:
        return write_report(results, Path(folder, "report.html"), index=index).read_bytes()


def as_geojson(results: Results, index: Index, origin: Origin) -> bytes:
    """Return the files of :func:`sish.write_geojson` as a zip; ParameterError if the origin is unknown."""
    stream = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as out:
        for path in write_geojson(results, folder, index=index, origin=origin).paths:
            out.write(path, path.name)
    return stream.getvalue()
