"""The errors of mixtune: one tree, each also a standard error.

    MixtuneError
        ConfigError (ValueError)      a parameter or a combination of them is wrong
        DataError (ValueError)        a file, a record or a manifest is wrong
        ModelError (ValueError)       a base model, tokenizer or adapter cannot be used
        TrainingError (RuntimeError)  training cannot go on
        ClusterError (RuntimeError)   a cluster object or its API failed

A message names the thing, the value, the limit and the way out.
"""


class MixtuneError(Exception):
    """Anything that mixtune refuses to do, with the way out in its text."""


def reason(error: Exception) -> str:
    """Return why something failed: of the system's errors the words alone, without number and file."""
    return getattr(error, "strerror", None) or str(error)


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
