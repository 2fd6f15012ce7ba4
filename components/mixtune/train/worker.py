"""One process of a training job: `torchrun ... -m mixtune.train.worker JOB_URI`.

The job is a JSON file, local or `s3://`: `{"config": fields of TrainSettings, "places": fields of Places, "storage":
options}`. Every place may be a URI; the model's manifest goes to `places.model_path`, last. Rank 0 alone prints the
loss line, tracks and writes. Without torchrun it is a training in one process, the same as in a component.
"""

import sys
from typing import Any

from mixtune import storage
from mixtune.errors import ConfigError, MixtuneError
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import TrainSettings
from mixtune.train.config import Places
from mixtune.train.run import run_training


def run_job(job_uri: str) -> str:
    """Run the training that a job file describes; the fingerprinted URI of its model comes back.

    Raises:
        ConfigError: Not a job, or one with an option that there is not.
    """
    job: Any = storage.read_json(job_uri)
    if not isinstance(job, dict) or not {"config", "places"} <= set(job):
        raise ConfigError(f"{job_uri}: a job is a JSON object with config, places and storage")
    storage.use(job.get("storage") or {})
    try:
        config, places = from_dict(TrainSettings, job["config"], "config"), from_dict(Places, job["places"], "places")
    except ConfigError as error:
        raise ConfigError(f"{job_uri}: {error}") from error
    return run_training(config, places)


def main() -> int:
    """The command; 1 where the training had to stop, with the reason as its last line."""
    if len(sys.argv) != 2:
        print("usage: python -m mixtune.train.worker JOB_URI", file=sys.stderr)
        return 2
    try:
        run_job(sys.argv[1])
    except MixtuneError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
