"""On-policy distillation from the base: a trained model answers general prompts, and learns what its base would say.

At every token of its own answers the model's prediction is drawn to the base's by the reverse Kullback-Leibler
divergence over the whole vocabulary (Agarwal et al. 2024, "On-Policy Distillation of Language Models"; MiniLLM, Gu et
al. 2024). It is exact: the sampled estimator, the difference of two log-probabilities of one token, has the same mean
and needs the same two forward passes, and is noisy. The base costs no second model under an adapter.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import ConfigError
from mixtune.inference.engine import Tokenizer
from mixtune.inference.loading import max_length, stop_ids
from mixtune.train.batches import PackedBatch
from mixtune.train.distributed import ProcessGroup
from mixtune.train.modeling.attention import attention_names, load_with_attention
from mixtune.train.modeling.loss import PackedLoss, PerToken, evaluate_tokens
from mixtune.train.modeling.sharding import shard
from mixtune.train.modeling.trainable import Trainable
from mixtune.train.restoring.own_answers import AnswerWriter, answered, prompt_of
from mixtune.train.trainer import Trainer

CPU_PREDICTIONS, GPU_PREDICTIONS = 2**26, 2**29
"""Log-probabilities of the base that are held at once, at most: 256 MiB and 2 GiB."""
_ROUNDING = 1e-9


def restore_towards_base(trainer: Trainer) -> Trainer:
    """Return the training with on-policy distillation for general records; the customer's are learned as ever.

    Raises:
        ConfigError: The shards hold no general records.
    """
    settings, model, group = trainer.settings.restore, trainer.model, trainer.group
    shares = trainer.shards.manifest.receipt.pools
    if settings is None or (shares and not any(pool.num_records for pool in shares[1:])):
        raise ConfigError(
            "restore: the mix holds no general records, whose prompts it needs; customer_data_percent < 100"
        )
    tokenizer = AutoTokenizer.from_pretrained(str(model.folder), trust_remote_code=False)
    if template := trainer.shards.manifest.chat_template:
        tokenizer.chat_template = template
    writer = AnswerWriter(
        model=model,
        group=group,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=trainer.settings.seed,
        stop_ids=stop_ids(model.causal.generation_config, cast(Tokenizer, tokenizer)),
        max_length=max_length(model.causal.config, cast(Tokenizer, tokenizer)),
    )
    limit = CPU_PREDICTIONS if group.on_cpu else GPU_PREDICTIONS
    tokens = min(trainer.max_micro_tokens, limit // model.causal.config.get_text_config().vocab_size)
    objective = Distillation(model, Teacher(model, group), writer, settings.learned_ratio)
    return replace(trainer, objective=objective, max_micro_tokens=max(1, tokens))


class Teacher:
    """The base model: the student with its adapter switched off; beside all weights a second model, frozen.

    Args:
        student: What is trained.
        group: All processes.
    """

    def __init__(self, student: Trainable, group: ProcessGroup) -> None:
        self._student = student.loss
        self._peft = student.adapter.peft if student.adapter else None
        self._loss = student.loss if self._peft else _load_frozen(student, group)

    @contextmanager
    def present(self) -> Iterator[PackedLoss]:
        """While the block runs, the base model runs in what is yielded."""
        self._loss.layout = self._student.layout
        if self._peft is None:
            yield self._loss
            return
        with self._peft.disable_adapter():
            yield self._loss


def _load_frozen(student: Trainable, group: ProcessGroup) -> PackedLoss:
    dtype, names = student.loss.dtype, attention_names(student.loss.dtype)
    present = (str(student.causal.config._attn_implementation),) if names else ()
    causal = load_with_attention(student.folder, dtype, present).requires_grad_(False).eval()
    causal.config.use_cache = False
    loss = PackedLoss(causal, dtype)
    if student.is_sharded:
        shard(loss, group, dtype, trains_all=False)
    else:
        loss.to(group.device)
    return loss


class Distillation:
    """The objective: the reverse divergence for general records, the cross entropy for the customer's.

    Args:
        model: What is trained.
        teacher: Its base.
        writer: Of the answers.
        learned_ratio: Share of the general records that are learned by the cross entropy, too; 0 to below 1.
    """

    def __init__(self, model: Trainable, teacher: Teacher, writer: AnswerWriter, learned_ratio: float = 0.0) -> None:
        self._model, self._teacher, self._writer = model, teacher, writer
        self._drawn_ratio = 1 - learned_ratio
        self._is_drawn = torch.zeros(0, dtype=torch.bool)

    def batch(self, records: list[TokenRecord], step: int, num_parts: int) -> list[TokenRecord]:
        """Return the batch with the model's own answers to prompts of its general records; see `Objective`."""
        places = self._drawn([place for place, record in enumerate(records) if record.pool], step)
        prompts = [self._writer.cut(prompt_of(records[place])) for place in places]
        answers = self._writer.write(prompts, step, num_parts)
        batch = list(records)
        for place, prompt, answer in zip(places, prompts, answers, strict=True):
            batch[place] = answered(records[place], prompt, answer)
        self._is_drawn = torch.zeros(len(records), dtype=torch.bool)
        self._is_drawn[places] = True
        return batch

    def _drawn(self, general: list[int], step: int) -> list[int]:
        """Return the places of general records that are drawn to the base, evenly among them and over the steps."""
        numbers = range(step * len(general), (step + 1) * len(general))
        ratio = self._drawn_ratio
        return [
            place
            for place, number in zip(general, numbers, strict=True)
            if int((number + 1) * ratio + _ROUNDING) > int(number * ratio + _ROUNDING)
        ]

    def losses(self, packed: PackedBatch) -> torch.Tensor:
        """Return the loss of every token to learn; see `Objective`."""
        with self._teacher.present() as base:
            predictions = evaluate_tokens(base, packed, lambda logits, _ids: logits.log_softmax(-1))
        is_drawn = self._is_drawn.to(packed.records.device)[packed.records]
        losses: torch.Tensor = self._model.loss(packed, ReverseDivergence(predictions, is_drawn))
        return losses

    def base(self) -> AbstractContextManager[PackedLoss]:
        """Return a context in which the base model runs."""
        return self._teacher.present()


class ReverseDivergence:
    """The divergence of a model's predictions from its base's, in nats, or the cross entropy, by token.

    Args:
        base: Log-probabilities of the base, float32, (tokens, vocabulary).
        is_drawn: Which tokens are drawn to the base, bool, (tokens,).
    """

    def __init__(self, base: torch.Tensor, is_drawn: torch.Tensor) -> None:
        self._base, self._is_drawn = base, is_drawn

    def split(self, size: int) -> Sequence[PerToken]:
        """Return one for each chunk of so many tokens."""
        return [
            ReverseDivergence(*chunk) for chunk in zip(self._base.split(size), self._is_drawn.split(size), strict=True)
        ]

    def __call__(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the loss of each token, (tokens,)."""
        current = logits.log_softmax(-1)
        divergence = (current.exp() * (current - self._base)).sum(-1)
        return torch.where(self._is_drawn, divergence, cross_entropy(logits, ids, reduction="none"))
