"""The texts that a Cedar policy set is built from, read once, so that every process builds the same set.

Promises: `read_source` reads each file once and keeps its path for messages; `build` gives the same `Cedar` in any
process that gets the same source. Never: looks at the files again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from .cedar import Cedar, assemble
from .cedar_annotations import CheckObligation
from .cedar_statements import PolicyFile, read_files, read_text


class Source(msgspec.Struct, frozen=True):
    """Paths with their texts. `entities` and `schema` are (path, text), or None where there are none."""

    policies: tuple[tuple[str, str, str], ...]
    links: tuple[tuple[str, str, str], ...] = ()
    entities: tuple[str, str] | None = None
    schema: tuple[str, str] | None = None
    open_types: tuple[str, ...] | None = None


def read_source(
    policies: str | Path,
    entities: str | Path | None = None,
    schema: str | Path | None = None,
    open_types: tuple[str, ...] | None = None,
) -> Source:
    """Read policies (a file or a folder), entities and schema. Raises PolicyError for what cannot be read."""
    files, links = read_files(Path(policies))

    def texts(found: list[PolicyFile]) -> tuple[tuple[str, str, str], ...]:
        return tuple((f.path, f.name, f.text) for f in found)

    return Source(texts(files), texts(links), _text(entities), _text(schema), open_types)


def _text(path: str | Path | None) -> tuple[str, str] | None:
    if path is None or path == "":
        return None
    return str(path), read_text(path)


def build(source: Source, check_obligation: CheckObligation | None = None) -> Cedar:
    """Build the policy set. Raises PolicyError with file, line and reason."""
    return assemble(
        [PolicyFile(*f) for f in source.policies],
        [PolicyFile(*f) for f in source.links],
        source.entities,
        source.schema,
        open_types=None if source.open_types is None else frozenset(source.open_types),
        check_obligation=check_obligation,
    )
