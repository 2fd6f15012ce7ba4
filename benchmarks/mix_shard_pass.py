"""One pass of a revision's tokenizing: `python benchmarks/mix_shard_pass.py MODEL RECORDS`, for `mix_shard.py --against`.

It prints the CPU seconds of tokenizing the lines of RECORDS, how many tokens there are, how many of them are learned, and a
digest of tokens and masks, as JSON. A few records go before, so that nothing is found out or compiled in the measured time.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import orjson

from mixtune.chat.tokenizer import ChatTokenizer

records = [orjson.loads(line) for line in Path(sys.argv[2]).read_bytes().splitlines()]
tokenizer = ChatTokenizer(Path(sys.argv[1]))
for _ in tokenizer.tokenize(records[:64]):
    pass
began = time.process_time()
items = list(tokenizer.tokenize(records))
seconds = time.process_time() - began
digest = hashlib.sha256()
for item in items:
    digest.update(item.input_ids.tobytes() + item.loss_mask.tobytes() + item.problem.encode())
num_tokens, num_learned = (
    int(sum(map(sum_of, items))) for sum_of in (lambda i: len(i.input_ids), lambda i: i.loss_mask.sum())
)
print(json.dumps([seconds, num_tokens, num_learned, digest.hexdigest()]))
