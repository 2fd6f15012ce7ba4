"""The core of training in one flat file: an exact mix, packing, one loss for the whole batch, one optimizer step.

    python examples/train_loop.py

It tunes a LoRA adapter on the demo's tiny base model for a few steps. The loop of the package
(`mixtune/train/loop.py`) does the same for any model. It adds
what a long training needs: processes, checkpoints, guards, a monitor of forgetting.
"""

import random
from importlib import resources

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

BASE_MODEL = str(resources.files("mixtune.demo") / "base_model")
CUSTOMER_RATIO = 0.75
GLOBAL_BATCH_SIZE = 8
NUM_STEPS = 20
MAX_TOKENS = 96
"""Tokens of one micro batch at most; a longer record is a micro batch of its own."""

torch.manual_seed(0)
rng = random.Random(0)

# -- 1. Two pools of records: the customer's, and general ones that the model must not lose.
TICKETS = {
    "card": ["My card was stolen.", "The card machine refuses my card.", "Where is my new card?"],
    "delivery": ["Where is my parcel?", "The parcel is broken.", "My order is late."],
}
customer_pool = [(text, label) for label, texts in TICKETS.items() for text in texts]
general_pool = [(f"What is {a} plus {b}?", str(a + b)) for a in range(1, 6) for b in range(1, 6)]

# -- 2. Tokens by the model's own chat template; the loss is on the assistant's tokens alone.
tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
Record = tuple[list[int], list[int]]
"""A record's token ids, and its loss mask: 1 where a token is learned."""


def tokenize(question: str, answer: str) -> Record:
    """Return a conversation of one turn as a record."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    encoded: dict[str, list[int]] = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    return encoded["input_ids"], encoded["assistant_masks"]


customer = [tokenize(*record) for record in customer_pool]
general = [tokenize(*record) for record in general_pool]


# -- 3. Every global batch has exactly the asked share, so no step can drift towards one pool.
def draw_batch() -> list[Record]:
    """Return the records of one optimizer step, in random order."""
    num_customer = round(CUSTOMER_RATIO * GLOBAL_BATCH_SIZE)
    batch = rng.sample(customer, num_customer) + rng.sample(general, GLOBAL_BATCH_SIZE - num_customer)
    rng.shuffle(batch)
    return batch


# -- 4. Micro batches: records one behind the other in one row, without padding.
def split(batch: list[Record], max_tokens: int) -> list[list[Record]]:
    """Return a global batch in micro batches of at most `max_tokens` tokens."""
    micro_batches: list[list[Record]] = [[]]
    for record in batch:
        used = sum(len(ids) for ids, _ in micro_batches[-1])
        if used and used + len(record[0]) > max_tokens:
            micro_batches.append([])
        micro_batches[-1].append(record)
    return micro_batches


def pack(records: list[Record]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return input ids, position ids and labels of a packed row, each (1, num_tokens)."""
    input_ids = [token for ids, _ in records for token in ids]
    # Positions start again at 0 with every record. Without an attention mask and a cache, transformers reads from them
    # where records begin, so no token attends to another record.
    position_ids = [place for ids, _ in records for place in range(len(ids))]
    # -100 is no target. A record's first token has nothing before it in its own record, so it is never one.
    labels = [
        token if place and learned else -100
        for ids, mask in records
        for place, (token, learned) in enumerate(zip(ids, mask, strict=True))
    ]
    return torch.tensor([input_ids]), torch.tensor([position_ids]), torch.tensor([labels])


# -- 5. The model: the base is frozen, the adapter is trained.
base = AutoModelForCausalLM.from_pretrained(BASE_MODEL, dtype=torch.float32)
model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0)


def backward(batch: list[Record], max_tokens: int) -> float:
    """Add the gradient of a global batch's loss; return the loss, in nats per token to learn.

    Every micro batch divides by the loss tokens of the whole batch, not by its own. So the loss, its gradient and the
    training do not depend on how the batch was cut, nor on the number of GPUs.
    """
    num_loss_tokens = sum(sum(mask[1:]) for _, mask in batch)
    total = 0.0
    for records in split(batch, max_tokens):
        input_ids, position_ids, labels = pack(records)
        logits = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        # (num_tokens - 1,) the logits at a place predict the token after it
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum")
        (loss / num_loss_tokens).backward()
        total += loss.item() / num_loss_tokens
    return total


# -- 6. The cut makes no difference: one row for the whole batch, or a row for every record.
batch = draw_batch()
gradients = []
for max_tokens in (10_000, 1):
    backward(batch, max_tokens)
    gradients.append(torch.cat([item.grad.flatten() for item in parameters if item.grad is not None]))
    optimizer.zero_grad()
difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
print(f"gradients of one row and of {GLOBAL_BATCH_SIZE} rows differ by {difference:.1e} of their norm")

# -- 7. The loop: one global batch, one optimizer step.
for step in range(1, NUM_STEPS + 1):
    batch = draw_batch()
    optimizer.zero_grad()
    loss = backward(batch, MAX_TOKENS)
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    print(f"step {step:2}  loss {loss:.4f}  gradient norm {norm:.3f}  micro batches {len(split(batch, MAX_TOKENS))}")
