"""Held-out general records, tokenized beside the shards: on them a training watches what it forgets."""

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.pools import PoolsManifest
from mixtune.artifacts.shards import HOLDOUT_FILE, SCHEMA
from mixtune.chat.tokenizer import ChatTokenizer, Tokenized

HOLDOUT_RECORDS = 64
"""Target number of held-out records, split evenly over the pools; a smaller pool contributes all it has."""


def write_holdout(general: PoolsManifest, tokenizer: ChatTokenizer, data_uri: str) -> list[storage.FileEntry]:
    """Write the first records of every general pool's `holdout` split as one record batch; without any, no file.

    Records that the tokenizer makes too long are left out.
    """
    each = -(-HOLDOUT_RECORDS // max(1, len(general.pools)))
    rows = [
        {
            "pool": number,
            "record_id": bytes.fromhex(item.record["id"]),
            "input_ids": item.input_ids,
            "loss_mask": item.loss_mask,
            "weight": 1.0,
        }
        for number, pool in enumerate(general.pools, 1)
        for item in islice(_usable(general, pool.name, tokenizer), each)
    ]
    if not rows:
        return []
    with storage.open_write(storage.join(data_uri, HOLDOUT_FILE)) as stream, pa.ipc.new_file(stream, SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    return [stream.entry(HOLDOUT_FILE)]


def _usable(pools: PoolsManifest, name: str, tokenizer: ChatTokenizer) -> Iterator[Tokenized]:
    tokenized = tokenizer.tokenize(islice(pools.records(name, "holdout"), 4 * HOLDOUT_RECORDS))
    return (item for item in tokenized if not item.problem and len(item.input_ids) <= tokenizer.settings.max_length)
