"""The parts of a sanitize job, by pods of an Indexed Job: `python -m mixtune.sanitize.indexed_job JOB_URI`.

JOB_URI is a JSON file of the component's parameters, `work_uri` among them. Pod i of n (JOB_COMPLETION_INDEX and
JOB_COMPLETIONS; alone: 0 of 1) makes the parts i, i + n, i + 2n and so on, several at once, and passes over those that
are there. The component, given the same parameters, takes the parts from `work_uri` and does what needs all records:
duplicates, splits, the pools and the report. Whatever is killed is run again; the bytes are those of one pod.
"""

import os
import sys

from mixtune import storage
from mixtune.errors import ConfigError, MixtuneError
from mixtune.sanitize.run import make_parts, prepare, read_parameters, spreading


def make_share(job_uri: str, index: int, count: int) -> int:
    """Make one pod's share of the parts, and return their number.

    Raises:
        ConfigError: No `work_uri`, a parameter is not as it should be, or no such pod.
        DataError: A file cannot be used.
    """
    if not 0 <= index < count:
        raise ConfigError(f"pod {index} of {count}: JOB_COMPLETION_INDEX is 0 to below JOB_COMPLETIONS")
    parameters = storage.read_json(job_uri)
    storage.configure_storage(parameters.pop("storage", {}))
    settings, inputs = read_parameters(parameters)
    if not inputs.work_uri:
        raise ConfigError(f"{job_uri}: without work_uri the parts would be lost; name a folder or an s3:// prefix")
    files, plan, _ = prepare(settings, inputs, inputs.work_uri)
    share = list(enumerate(files))[index::count]
    print(f"pod {index} of {count}: {len(share)} of {len(files)} parts", flush=True)
    with spreading([file for _, file in share], inputs.num_workers) as spread:
        make_parts(share, plan, spread)
    return len(share)


def main() -> int:
    """The command; 2 where trying again would not help, with the reason as its last line."""
    if len(sys.argv) != 2:
        print("usage: python -m mixtune.sanitize.indexed_job JOB_URI", file=sys.stderr)
        return 2
    place = (
        os.environ.get(name) or default for name, default in (("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "1"))
    )
    try:
        make_share(sys.argv[1], *map(int, place))
    except MixtuneError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
