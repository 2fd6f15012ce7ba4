"""The errors of mixtune: one tree, each also a standard error.

    MixtuneError
        ConfigError (ValueError)      a parameter or a combination of them is wrong
        DataError (ValueError)        a file, a record or a manifest is wrong
        ModelError (ValueError)       a base model, tokenizer or adapter cannot be used
        TrainingError (RuntimeError)  training cannot go on
        ClusterError (RuntimeError)   a cluster object or its API failed
        StorageError (RuntimeError)   S3 refused, or a disk is full; the same may go well later

A message names the thing, the value, the limit and the way out.
"""

import errno
import tempfile
import tomllib
from functools import cache
from pathlib import Path


class MixtuneError(Exception):
    """Anything that mixtune refuses to do, with the way out in its text."""


def reason(error: Exception) -> str:
    """Return why something failed: of the system's errors the words alone, without number and file."""
    return getattr(error, "strerror", None) or str(error)


@cache
def way_out(kind: str, code: str) -> str:
    """Return what to do about an error of the `system` or of `s3`; empty where it is not known."""
    return str(_ways_out()[kind].get(code, ""))


@cache
def _ways_out() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("ways_out.toml").read_text(encoding="utf-8"))


def explain_system(error: OSError) -> str:
    """Return what the system refused, where, and the way out; without one of the network's errors."""
    code = errno.errorcode.get(error.errno or 0, "")
    place = (
        error.filename2
        or error.filename
        or (f"{tempfile.gettempdir()} or the run's folder" if code in ("ENOSPC", "EDQUOT") else "")
    )
    other = "name a path that can be read or written" if error.filename or not error.errno else ""
    way = way_out("system", code) or other
    return (f"{place}: " if place else "") + reason(error) + (f"; {way}" if way else "")


class ConfigError(MixtuneError, ValueError):
    """A parameter, or a combination of parameters, cannot be run."""


class DataError(MixtuneError, ValueError):
    """A file, a record or a manifest cannot be used as it is."""


class ModelError(MixtuneError, ValueError):
    """A base model, tokenizer, adapter or checkpoint cannot be used as it is."""


class TrainingError(MixtuneError, RuntimeError):
    """Training had to stop."""


class ClusterError(MixtuneError, RuntimeError):
    """A cluster object, or the API that serves it, failed."""


class StorageError(MixtuneError, RuntimeError):
    """S3, or a disk, did not do what was asked of it; the same input may go well later."""

    code = ""  # S3's own name of what went wrong

    @property
    def passes(self) -> bool:
        """Whether the same may go well in a minute, with nothing done about it."""
        return self.code in way_out("s3", "passing").split()
