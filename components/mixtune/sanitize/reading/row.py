"""A row of a file, and the parts of files that can be read apart."""

from dataclasses import dataclass
from typing import NamedTuple

from mixtune.sanitize.reading.values import JsonObject

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is quarantined rather than held in memory."""


class Row(NamedTuple):
    """One row of a file."""

    line: int
    """1-based: the line; the number of the row in formats without lines."""
    value: JsonObject
    problem: str = ""
    """Why the row cannot be read; empty where it can."""


@dataclass(frozen=True)
class Range:
    """A part of a file: the lines that begin in it, or its row groups. The default is the whole file."""

    start: int = 0
    """First byte (JSONL) or row group (Parquet)."""
    end: int = 0
    """Past the last; 0: the file's end."""
    first_line: int = 1
    """Number of its first line or row, 1-based."""


WHOLE = Range()
