"""Near-duplicates by Daft: candidates among more records than one process's memory can sort.

Daft's native runner uses the whole pod; `DAFT_RUNNER=ray` makes it use a Ray cluster, which then needs to see the
temporary folder (`TMPDIR`) too. What is proposed is exactly what `minhash.propose_in_memory` proposes.
"""

import importlib.util
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixtune.errors import ConfigError
from mixtune.sanitize.dedup.minhash import BANDS, COMMON


def check_near_engine(engine: str) -> None:
    """Raise a ConfigError where candidates are to be found by Daft, and it is not installed."""
    if engine == "daft" and not importlib.util.find_spec("daft"):
        raise ConfigError("near_engine is 'daft', which is not installed here; install mixtune[daft]")


def propose_on_daft(buckets: Iterable[np.ndarray]) -> np.ndarray:
    """Return candidates by grouping and joining the buckets (`minhash.Propose`); takes 336 bytes of disk a record."""
    os.environ.update({"DO_NOT_TRACK": "true", "DAFT_PROGRESS_BAR": "0"})
    import daft
    from daft import col

    with tempfile.TemporaryDirectory() as folder:
        if not _write(buckets, Path(folder)):
            return np.empty((0, 2), np.int64)
        rows = daft.read_parquet(f"{folder}/*.parquet")
        sizes = rows.groupby("bucket").agg(col("row").count().alias("size"))
        rows = rows.join(sizes.where(col("size").between(2, COMMON)), on="bucket")
        firsts, seconds = (rows.select(col("bucket"), col("row").alias(name)) for name in ("first", "second"))
        pairs = firsts.join(seconds, on="bucket").where(col("first") < col("second"))
        table = pairs.select("first", "second").distinct().sort(["first", "second"]).to_arrow()
    return np.stack([table["first"].to_numpy(), table["second"].to_numpy()], axis=1)


def _write(buckets: Iterable[np.ndarray], folder: Path) -> int:
    """Write the buckets as rows of a record and a bucket, and return the number of records."""
    total = 0
    for number, block in enumerate(buckets):
        row = np.repeat(np.arange(total, total + len(block)), BANDS)
        bucket = np.arange(BANDS, dtype=np.uint64) << np.uint64(32) | block
        pq.write_table(pa.table({"row": row, "bucket": bucket.ravel()}), folder / f"{number:05d}.parquet")
        total += len(block)
    return total
