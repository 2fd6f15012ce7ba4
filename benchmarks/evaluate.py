"""Log-probabilities and speed of `evaluate` against lm-eval's own `hf` engine on MMLU, and IFEval's constant answer.

    python benchmarks/evaluate.py --mmlu DIR --ifeval FILE --per-subject 4 --subjects 6 --model FOLDER
    python benchmarks/evaluate.py --mmlu DIR --ifeval FILE --per-subject 8 --results benchmarks/results/evaluate.md

`DIR` holds `test.parquet` and `dev.parquet` (question, subject, choices, answer); `FILE` is IFEval's JSONL. Models
have random weights: speed and agreement do not depend on what they learned.
"""

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixtune.evaluate import answers, choice_rows
from mixtune.evaluate.benchmarks import ifeval, mmlu
from mixtune.evaluate.scoring import ifeval_checkers
from mixtune.inference import loading
from mixtune.inference.loading import ModelSource
from mixtune.inference.prompts import render_question
from mixtune.inference.transformers_engine import TransformersEngine

VOCABULARY = 16_000
SIZES = {"2 M": {"hidden": 64, "layers": 4, "heads": 4}, "14 M": {"hidden": 256, "layers": 8, "heads": 8}}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(texts: list[str], folder: Path, vocabulary: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=CHATML
    )
    fast.save_pretrained(folder)
    return fast


def make_model(
    folder: Path, texts: list[str], *, hidden: int, layers: int, heads: int, vocabulary: int = VOCABULARY
) -> int:
    tokenizer = make_tokenizer(texts, folder, vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def count_parameters(folder: Path) -> int:
    with safe_open(folder / "model.safetensors", "np") as weights:
        return sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())  # noqa: SIM118


def sample_questions(uri: str, per_subject: int) -> tuple[list[choice_rows.Question], list[choice_rows.Question]]:
    splits = choice_rows.read_questions(choice_rows.ChoiceOptions(uri=uri))
    taken: dict[str, int] = defaultdict(int)
    chosen = []
    for question in splits["test"]:
        if taken[question.subject] < per_subject:
            taken[question.subject] += 1
            chosen.append(question)
    return chosen, splits["dev"]


def load(model: Path) -> tuple[TransformersEngine, Any]:
    """Load a model once, for both."""
    source = ModelSource(base_model=str(model), device="cpu", dtype="float32")
    fetched = loading.fetch(source)
    engine = loading.load_engine(source, fetched)
    assert isinstance(engine, TransformersEngine)
    return engine, loading.load_tokenizer(source, fetched)


def run_ours(
    engine: TransformersEngine,
    tokenizer: Any,
    questions: list[choice_rows.Question],
    shots: list[choice_rows.Question],
) -> dict[str, tuple[str, list]]:
    texts = mmlu.prompts(questions, shots, 5)
    by_subject: dict[str, list] = defaultdict(list)
    for question, text in zip(questions, texts, strict=True):
        by_subject[question.subject].append((question, text))
    found = {}
    for items in by_subject.values():
        samples = mmlu.score_questions("mmlu", tokenizer, "letter", items, engine)
        for (_, text), sample in zip(items, samples, strict=True):
            found[sample.item_id] = (text, list(sample.choice_logprobs))
    return found


def lm_eval_tasks(
    questions: list[choice_rows.Question], shots: list[choice_rows.Question], folder: Path
) -> list[dict[str, Any]]:
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    def write(path: Path, items: list[choice_rows.Question]) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"question": q.question, "choices": q.choices, "answer": q.answer}) for q in items]
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    tasks = Path(lm_eval.__file__).parent / "tasks"
    found = []
    for subject in sorted({question.subject for question in questions}):
        config = load_yaml(tasks / f"mmlu/default/mmlu_{subject}.yaml", resolve_func=True)
        config.pop("dataset_name", None)
        files = {
            "test": write(folder / "test" / f"{subject}.jsonl", [q for q in questions if q.subject == subject]),
            "dev": write(folder / "dev" / f"{subject}.jsonl", [q for q in shots if q.subject == subject]),
        }
        found.append({**config, "dataset_path": "json", "dataset_kwargs": {"data_files": files}})
    return found


def run_lm_eval(
    engine: TransformersEngine, tokenizer: Any, tasks: list[dict[str, Any]], batch_size: int
) -> dict[str, tuple[str, list]]:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    result = lm_eval.simple_evaluate(
        model=HFLM(pretrained=engine.model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=tasks,
        num_fewshot=5,
        device="cpu",
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
        verbosity="ERROR",
    )
    found = {}
    for name, samples in result["samples"].items():
        subject = name.removeprefix("mmlu_")
        for sample in samples:
            arguments = sample["arguments"].values() if isinstance(sample["arguments"], dict) else sample["arguments"]
            prompt = next(iter(arguments))
            prompt = prompt["arg_0"] if isinstance(prompt, dict) else prompt[0]
            logprobs = [float(one[0][0]) for one in sample["resps"]]
            found[f"{subject}/{sample['doc_id']}"] = (prompt, logprobs)
    return found


def timed(function: Any, *arguments: Any) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def compare_answers(options: argparse.Namespace) -> list[str]:
    """Return how IFEval's first prompts are answered by lm-eval's engine and by ours, greedily, in batches of one size."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    engine, tokenizer = load(Path(options.model))
    prompts = [render_question(tokenizer, item.prompt) for item in ifeval.read_prompts(options.ifeval, {})]
    prompts, tokens = prompts[: options.answers], options.new_tokens
    lm = HFLM(pretrained=engine.model, tokenizer=tokenizer, batch_size=options.answers)
    asked = {"until": ["<|im_end|>"], "do_sample": False, "max_gen_toks": tokens}
    instances = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, asked), idx=place)
        for place, prompt in enumerate(prompts)
    ]
    theirs, _, their_cpu = timed(lm.generate_until, instances)
    ours, _, our_cpu = timed(answers.generate, engine, tokenizer, prompts, tokens)
    same = sum(one["response"].strip() == other.strip() for one, other in zip(ours, theirs, strict=True))
    lines = [
        "| IFEval prompts | tokens at most | lm-eval hf, CPU s | evaluate, CPU s | ratio of CPU | same answer |",
        "|---|---|---|---|---|---|",
        f"| {len(prompts)} | {tokens} | {their_cpu:.1f} | {our_cpu:.1f} | {their_cpu / our_cpu:.2f} | {same} |",
    ]
    print(lines[-1], flush=True)
    return lines


def compare_engines(options: argparse.Namespace) -> list[str]:
    questions, shots = sample_questions(options.mmlu, options.per_subject)
    if options.subjects:
        names = sorted({question.subject for question in questions})[:: max(1, 57 // options.subjects)]
        questions = [question for question in questions if question.subject in names]
    texts = [
        f"{q.question} {' '.join(q.choices)}"
        for q in choice_rows.read_questions(choice_rows.ChoiceOptions(uri=options.mmlu))["test"]
    ]
    lines = [
        "| parameters | questions | lm-eval hf, s (CPU s) | evaluate, s (CPU s) | ratio of wall | ratio of CPU | largest difference, nats | same prediction |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = lm_eval_tasks(questions, shots, folder / "data")
        for label, size in ({options.model: {}} if options.model else SIZES).items():
            model = Path(options.model or folder / label)
            count = make_model(model, texts, **size) if size else count_parameters(model)
            loaded = load(model)
            theirs, their_wall, their_cpu = timed(run_lm_eval, *loaded, tasks, options.batch_size)
            ours, our_wall, our_cpu = timed(run_ours, *loaded, questions, shots)
            assert set(ours) == set(theirs)
            prompts = sum(ours[key][0] == theirs[key][0] for key in ours)
            assert prompts == len(ours), f"{len(ours) - prompts} prompts differ"
            gap = max(float(np.abs(np.subtract(ours[key][1], theirs[key][1])).max()) for key in ours)
            same = np.mean([np.argmax(ours[key][1]) == np.argmax(theirs[key][1]) for key in ours])
            lines.append(
                f"| {count / 1e6:.1f} M | {len(ours)} of {len({q.subject for q in questions})} subjects | "
                f"{their_wall:.1f} ({their_cpu:.1f}) | {our_wall:.1f} ({our_cpu:.1f}) | {their_wall / our_wall:.1f} | "
                f"{their_cpu / our_cpu:.1f} | {gap:.1e} | {100 * same:.1f} % |"
            )
            print(lines[-1], flush=True)
    return lines


def constant_answers(path: str) -> list[str]:
    items = ifeval.read_prompts(path, {})
    ifeval_checkers.check_instructions(items)
    lines = ["| answer to every prompt | prompts, strict | instructions, strict |", "|---|---|---|"]
    for answer in ("x", "Yes.", "I'm sorry, but I can't help with that."):
        strict = [ifeval_checkers.follow(item, answer)[0] for item in items]
        prompts = np.mean([all(found) for found in strict])
        instructions = np.mean([one for found in strict for one in found])
        lines.append(f"| `{answer}` | {100 * prompts:.1f} % of {len(items)} | {100 * instructions:.1f} % |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmlu", required=True)
    parser.add_argument("--ifeval", required=True)
    parser.add_argument("--per-subject", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--model", default="", help="folder of a real model in place of random ones; answers are compared, too"
    )
    parser.add_argument("--subjects", type=int, default=0, help="so many subjects; 0: all")
    parser.add_argument("--answers", type=int, default=16, help="IFEval prompts that are answered, with --model")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--results", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# evaluate against lm-eval 0.4.13",
        "",
        f"{time.strftime('%Y-%m-%d')}, 2 CPU cores, one thread, torch {torch.__version__}, float32, MMLU with five shots, "
        f"lm-eval's batch size {options.batch_size}. Prompts are byte-identical; the model is loaded once, for both.",
        "",
        *compare_engines(options),
        "",
    ]
    if options.model:
        lines += compare_answers(options)
    else:
        lines += ["IFEval, constant answers:", "", *constant_answers(options.ifeval)]
    if options.results:
        Path(options.results).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
