"""How the demo's base model was made: `python benchmarks/demo_model.py --out DIR --seed 0`.

A Llama of 0.8 million parameters, its byte-level BPE tokenizer and its chat template. It learns facts as questions and
answers, verifiable instructions and the repetition of words (a model that never said a label
cannot be taught to by an adapter), all in training wordings and nothing of the customer's task. It learns what users
ask too, so that it can ask itself: `rehearse`.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixtune.demo import facts, instructions, messages

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{% generation %}{{- message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{{- '\\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
VOCAB_SIZE = 1536
TOKENIZER_TEXTS = 6000
TOGETHER = 16
"""Examples of one forward pass."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the base model is pretrained."""

    steps: int = 4000
    """Optimizer steps."""
    batch_size: int = 32
    """Examples per step."""
    learning_rate: float = 3e-3
    """Peak; warmed up over 50 steps, then down to zero along a straight line."""
    asked_weight: float = 0.3
    """Weight of the mean loss over what users ask, beside the mean loss over answers."""
    seed: int = 0
    """Of initialisation and of every example."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A text in three parts: its frame, the prompt, and the answer."""

    frame: str = ""
    """What the chat template writes before a user speaks; not learned."""
    prompt: str
    """Learned at a lower weight, where there is a frame."""
    answer: str


def draw_example(draw: random.Random) -> Example:
    """One example of the general skills."""
    kind = draw.random()
    if kind < 0.3:
        question, answer = facts.open_question(draw)
        return Example(prompt=f"{question}\nAnswer:", answer=f" {answer}")
    if kind < 0.5:
        return chat(*facts.open_question(draw))
    if kind < 0.95:
        item = instructions.training_instruction(draw)
        return chat(item.prompt, item.answer)
    words = " ".join(draw.sample(_WORDS, draw.randint(1, 3)))
    return chat(f"Repeat: {words}", words)


def chat(prompt: str, answer: str) -> Example:
    """One turn of conversation, as the chat template writes it."""
    return Example(frame=f"{START}user\n", prompt=f"{prompt}{END}\n{START}assistant\n", answer=f"{answer}{END}")


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same seed gives the same files."""
    draw = random.Random(seed)
    texts = [
        example.frame + example.prompt + example.answer
        for example in (draw_example(draw) for _ in range(TOKENIZER_TEXTS))
    ]
    texts += [f"{word} {word}" for word in _WORDS for _ in range(20)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain = [text.replace(START, "").replace(END, "") for text in texts]
    tokenizer.train_from_iterator(plain, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The model, untrained."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def collate(texts: list[list[list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of (frame, prompt, answer) as one right-padded batch, and of each place which part it belongs to.

    Parts are 0 (not learned), 1 (prompt) and 2 (answer).
    """
    length = max(sum(map(len, parts)) for parts in texts)
    ids = torch.full((len(texts), length), pad)
    kinds = torch.zeros_like(ids)
    for row, (frame, prompt, answer) in enumerate(texts):
        whole = frame + prompt + answer
        ids[row, : len(whole)] = torch.tensor(whole)
        kinds[row, len(frame) : len(whole) - len(answer)] = 1 if frame else 0
        kinds[row, len(whole) - len(answer) : len(whole)] = 2
    return ids, kinds


def add_gradients(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example], asked_weight: float
) -> float:
    """The mean loss over the answers' tokens; its gradients and those of what is asked are added.

    Texts of like length go together.
    """
    parts = ([item.frame for item in examples], [item.prompt for item in examples], [item.answer for item in examples])
    texts = sorted(
        map(list, zip(*(tokenizer(part)["input_ids"] for part in parts), strict=True)),
        key=lambda text: sum(map(len, text)),
    )
    batches = [
        collate(texts[start : start + TOGETHER], int(tokenizer.pad_token_id))
        for start in range(0, len(texts), TOGETHER)
    ]
    counts = [max(1, sum(int((kinds == kind).sum()) for _, kinds in batches)) for kind in (1, 2)]
    total = 0.0
    for ids, kinds in batches:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][kinds[:, 1:] > 0]
        learned = kinds > 0
        losses = cross_entropy(model.lm_head(hidden), ids[learned], reduction="none")
        prompt_loss, answer_loss = (
            losses[kinds[learned] == kind].sum() / count for kind, count in zip((1, 2), counts, strict=True)
        )
        (asked_weight * prompt_loss + answer_loss).backward()
        total += float(answer_loss.detach())
    return total


def pretrain(recipe: Recipe) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train tokenizer and model."""
    tokenizer = make_tokenizer(recipe.seed)
    model = make_model(tokenizer, recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    draw = random.Random(recipe.seed + 1)
    started = time.perf_counter()
    model.train()
    for step in range(1, recipe.steps + 1):
        scale = min(step / 50, (recipe.steps - step + 1) / recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * scale
        loss = add_gradients(
            model, tokenizer, [draw_example(draw) for _ in range(recipe.batch_size)], recipe.asked_weight
        )
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == 1:
            print(f"step {step} of {recipe.steps}: loss {loss:.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    return model.eval(), tokenizer


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder that `AutoModelForCausalLM` and `AutoTokenizer` load: weights in bfloat16."""
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=64, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the demo's base model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    options = parser.parse_args()
    torch.set_num_threads(1)  # at this size a second thread only waits
    model, tokenizer = pretrain(Recipe(seed=options.seed, steps=options.steps))
    save(model, tokenizer, options.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {options.out}", flush=True)


_WORDS = sorted({*messages.vocabulary(), *instructions.TOPICS})


if __name__ == "__main__":
    main()
