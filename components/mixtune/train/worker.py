"""One process of a training job: `python -m torch.distributed.run ... -m mixtune.train.worker JOB_URI`.

The job is a `TrainJobFile`, local or in S3. Rank 0 alone prints the loss line, tracks and writes. Without torchrun it
is a training in one process, the same as in a component.
"""

import sys

from mixtune import storage
from mixtune.artifacts.model import TrainedModel
from mixtune.artifacts.typed_json import read_artifact
from mixtune.errors import MixtuneError
from mixtune.train.distributed import check_gpus
from mixtune.train.entry import run_here
from mixtune.train.task import TrainJobFile


def run_job(job_uri: str) -> TrainedModel:
    """Run the training that a job file describes.

    Raises:
        DataError: Not a job, or one with an option that there is not.
        ClusterError: The node lacks the GPUs that it was asked for with.
    """
    job = read_artifact(TrainJobFile, job_uri)
    check_gpus(job.gpus_per_node)
    storage.configure_storage(job.storage)
    return run_here(job.task)


def main() -> int:
    """Run the command; 1 where the training had to stop, with the reason as its last line."""
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
