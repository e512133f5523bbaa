"""The tables of an archive in PostgreSQL.

========== =================================================================================================
table      what
========== =================================================================================================
archive    one row: format, id, generation, header, what was measured, the tree, how many patches each key
           has, how many slides were ever added, the generation in which a slide's row changed last, and the
           name of the table of patches
slide      a row for each slide that was ever added, numbered from 0 on; removed ones have ``removed``
patch_N    a row for each patch, partitioned by ranges of keys, some perhaps on other servers (`foreign`); N
           grows whenever the keys are made anew
========== =================================================================================================

Slides and patches are only ever added behind the others, as slides of higher numbers, and as later patches
(``nth``) of their keys. So a reader that holds one state of the archive goes on to see it, whatever others
add or remove: it asks for slides below its own number of slides. Patches of a writer that died lie behind
that number, too, and the next writer deletes them. The row of ``archive`` is the only commit point.

Removed slides stay until the archive is compacted, as in an index on disk. That, and learning another tree,
fills a new table of patches; its name in ``archive`` and the end of the old one are one transaction.
"""

from __future__ import annotations

FORMAT = 1
"""The version of these tables."""

SLIDE_BITS, ROW_BITS = 26, 22
"""A patch is the number slide << ROW_BITS | row."""
BITS_SHIFT = SLIDE_BITS + ROW_BITS
"""A result is distance << BITS_SHIFT | patch."""

CREATE = (
    "CREATE SCHEMA IF NOT EXISTS {schema}",
    """
    CREATE TABLE {archive} (
        one bool PRIMARY KEY DEFAULT true CHECK (one),
        format int NOT NULL,
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        generation bigint NOT NULL,
        header json NOT NULL,
        measured json NOT NULL,
        patches text NOT NULL,
        slides int NOT NULL,
        rows_changed bigint NOT NULL DEFAULT 0,
        barcode_bytes int,
        vector_bytes int,
        counts bytea NOT NULL,
        tree bytea
    )
    """,
    """
    CREATE TABLE {slide} (
        number int PRIMARY KEY,
        slide_id text NOT NULL,
        path text NOT NULL,
        n_patches bigint NOT NULL,
        patch_l0_px float8 NOT NULL,
        mpp float8 NOT NULL,
        mpp_source text NOT NULL,
        width bigint NOT NULL,
        height bigint NOT NULL,
        label text,
        patient text NOT NULL,
        site text,
        status text NOT NULL,
        metadata json NOT NULL,
        file_digest text,
        codes_digest bytea NOT NULL,
        removed bool NOT NULL DEFAULT false
    )
    """,
    "CREATE UNIQUE INDEX ON {slide} (slide_id) WHERE NOT removed",
)
FIRST = """
INSERT INTO {archive} (format, generation, header, measured, patches, slides, counts)
    VALUES (%s, 0, %s, '{{}}', 'patch_0', 0, '')
"""
"""The row of an archive without slides."""

_PATCH = """
CREATE TABLE {patch} (
    key bigint NOT NULL,
    patch bigint NOT NULL,
    x int NOT NULL,
    y int NOT NULL,
    nth int NOT NULL,
    slide int NOT NULL,
    "row" int NOT NULL,
    barcode bit({bits}) NOT NULL,
    vector bytea
)
"""
PATCHES = f"{_PATCH} PARTITION BY RANGE (key)"
PARTITION = "CREATE TABLE {part} PARTITION OF {patch} FOR VALUES FROM ({low}) TO ({high})"
PLAIN = "ALTER TABLE {part} ALTER barcode SET STORAGE PLAIN"
"""Barcodes are neither compressed nor stored with short headers, which costs a copy for each comparison."""
ELSEWHERE = (_PATCH, PLAIN.replace("{part}", "{patch}"))
"""A partition's table on another server."""
FOREIGN = """
CREATE FOREIGN TABLE {part} PARTITION OF {patch} FOR VALUES FROM ({low}) TO ({high}) SERVER {server}
    OPTIONS (schema_name {remote_schema}, table_name {remote_table}, async_capable 'true', fetch_size '10000')
"""
"""A partition on another server; all servers compare patches at the same time."""
INDEXES = (
    "CREATE INDEX {key_index} ON {patch} (key, nth)",
    'CREATE INDEX {row_index} ON {patch} (slide, "row")',
)
"""Those of a partitioned table are made on its partitions, but for those on other servers."""
SLIDE_COLUMNS = (
    "slide_id", "path", "n_patches", "patch_l0_px", "mpp", "mpp_source", "width", "height",
    "label", "patient", "site", "status", "metadata", "file_digest",
)  # fmt: skip
"""The columns of a slide that are fields of its `SlideRow`, by the same names."""

GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}",
)
"""What lets a role read, but not write."""
