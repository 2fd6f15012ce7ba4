"""Peak memory and time of the chunked loss beside full logits, at a vocabulary of 128,256: forward and backward.

    python benchmarks/chunked_loss.py --results benchmarks/results/chunked_loss.md

Each way runs in a process of its own. The model is as small as its vocabulary lets it be, so that logits are what
counts; all but the head is the same. The baseline of memory is what the process holds just before the forward pass.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

WAYS = ("full logits", "chunked")
SHARES = (1.0, 0.5)
"""Of the tokens that carry loss: all of them, or an answer as long as its question."""
VOCABULARY, WIDTH, TOKENS = 128_256, 256, 2048


def measure(way: str, share: float) -> dict[str, float]:
    """One forward and backward pass over one record of which the last tokens carry loss."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from mixtune.artifacts.shards import TokenRecord
    from mixtune.train.batches import pack
    from mixtune.train.modeling.loss import PackedLoss

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, VOCABULARY, (TOKENS,))
    mask = np.arange(TOKENS) >= TOKENS * (1 - share)
    record = TokenRecord(pool=0, record_id="", input_ids=ids.numpy(), loss_mask=mask.astype(np.uint8), weight=1.0)
    labels = ids.masked_fill(~torch.from_numpy(mask), -100)[None]
    for value in model.parameters():
        value.grad = torch.zeros_like(value)  # an optimizer step would have made them
    before, began = _peak(), time.process_time()
    if way == "chunked":
        loss = PackedLoss(model, torch.float32)(pack([record])).mean()
    else:
        loss = model(input_ids=ids[None], labels=labels, use_cache=False).loss
    loss.backward()
    seconds = time.process_time() - began
    norm = torch.nn.utils.get_total_norm([value.grad for value in model.parameters()])
    return {"bytes": _peak() - before, "seconds": seconds, "loss": float(loss.detach()), "grad_norm": float(norm)}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help="measure this one, here")
    parser.add_argument("--share", type=float, default=1.0, help="of the tokens that carry loss")
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given.share)))
        return
    rows = [
        f"| vocabulary {VOCABULARY:,}, {TOKENS:,} tokens, float32 | loss on | peak beyond model and gradients, MB | CPU s "
        "| loss | gradient norm |",
        "|---|---|---|---|---|---|",
    ]
    for share, way in itertools.product(SHARES, WAYS):
        command = [sys.executable, __file__, "--way", way, "--share", str(share)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            f"| {way} | {share:.0%} | {told['bytes'] / 1e6:,.0f} | {told['seconds']:.1f} | {told['loss']:.6f} "
            f"| {told['grad_norm']:.6f} |"
        )
    print("\n".join(rows))
    if given.results:
        given.results.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
