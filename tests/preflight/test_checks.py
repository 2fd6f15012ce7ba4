import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tokenizers import normalizers

from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError
from mixtune.evaluate.benchmark_checks import check_engine
from mixtune.preflight.checks import check_memory, run_preflight
from mixtune.preflight.item_checks import check_items
from mixtune.preflight.model_checks import check_architecture
from mixtune.preflight.places import about_records, check_sources
from mixtune.preflight.run_settings import RunSettings
from mixtune.preflight.template_check import check_template
from mixtune.settings.sanitize import SourceSettings
from mixtune.settings.train import TrainSettings

from ..chat_models import CHATML, make_tokenizer, save_model

GOOD: dict[str, Any] = {
    "base_model": str(BASE_MODEL),
    "general_pools": ["chat"],
    "weights": {"chat": 100.0},
    "customer_data_percents": [75.0],
    "customer_epochs": 1.0,
    "max_steps": 0,
    "mix_options": {"max_length": 512},
    "method": "lora",
    "learning_rate": 1e-5,
}


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_run_that_is_well_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_preflight(RunSettings(**GOOD), str(tmp_path / "report")) == "pass"
    assert "chat template are there; licence: apache-2.0" in capsys.readouterr().out
    page = (tmp_path / "report").read_text()
    assert "customer" in page
    assert "learned, token by token: plain answers, several turns" in page


def test_records_that_make_too_few_steps_are_warned_of_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tickets.jsonl").write_text("{}\n" * 300)
    sources = [SourceSettings(name="customer", uri=str(tmp_path / "tickets.jsonl"))]
    good = {**GOOD, "sources": sources, "left_out": ("items",)}
    assert run_preflight(RunSettings(**good), str(tmp_path / "report")) == "warn"
    wanted = (
        "about 300 customer records make about 13 steps at 75 %, which hardly move a model: 2 customer_epochs make 25"
    )
    assert wanted in capsys.readouterr().out
    for enough in ({"customer_epochs": 4.0}, {"max_steps": 2}):
        assert run_preflight(RunSettings(**{**good, **enough}), str(tmp_path / "report")) == "pass"
    (tmp_path / "more.json").write_text("[{}]")  # of how many records, cannot be told
    sources = [SourceSettings(name="customer", uri=str(tmp_path))]
    run = RunSettings(**GOOD, sources=sources)
    assert run_preflight(run, str(tmp_path / "report")) == "pass" and run.num_records.total() == 300


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"customer_data_percents": [75.0, 120.0]}, "share of every global batch, 0 to 100; got 120"),
        ({"weights": {"chat": 60.0}}, "sum to 60"),
        ({"mix_options": {"global_batch_size": 0}}, "global_batch_size counts records, 1 or more; got 0"),
        ({"customer_data_percents": [0.0]}, "so customer_epochs gives no length; set max_steps"),
        ({"customer_epochs": 0.0}, "customer_epochs is more than 0"),
        ({"method": "qlora"}, "method is one of lora, sft; got 'qlora'"),
        ({"learning_rate": 0.0}, "learning_rate is above 0"),
        ({"train_options": {"lora_rnak": 8}}, "train: unknown key 'lora_rnak'; did you mean 'lora_rank'"),
        ({"train_options": {"memory": {"dtype": "fp8"}}}, "dtype is one of float32, bfloat16 or empty; got 'fp8'"),
        ({"train_options": {"seed": 1}}, "train_options: seed is a parameter of its own"),
        ({"mix_options": {"unit": "words"}}, "unit is 'words'; it is one of records, tokens, loss_tokens"),
        ({"mix_options": {"thinking": "off"}}, "sanitize_options.chat: thinking is 'record', and 'off' in mix_options"),
        ({"evaluate_options": {"chat": {"on_lost": {"system": "keep"}}}}, "evaluate_options.chat: on_lost is"),
        ({"base_model": "org/name"}, "give a folder, an s3:// prefix, or org/name@revision"),
        ({"tracking": {"url": "x"}}, "unknown key 'url'"),
    ],
)
def test_every_failed_check_is_named_with_its_way_out(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_preflight(RunSettings(**{**GOOD, **wrong}), str(tmp_path / "report"))


def test_all_failures_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 of 16 checks failed:\n- mix: .*\n- training: "):
        run_preflight(
            RunSettings(**{**GOOD, "customer_data_percents": [-1.0], "method": "x"}), str(tmp_path / "report")
        )


def test_a_failure_that_several_checks_share_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"checks failed:\n- base model, architecture, .*, memory: base_model 'x/y'"
    ) as failed:
        run_preflight(RunSettings(**{**GOOD, "base_model": "x/y"}), str(tmp_path / "report"))
    assert str(failed.value).count("give a folder, an s3:// prefix") == 1
    printed = capsys.readouterr().out
    assert printed.count("give a folder, an s3:// prefix") == 1
    assert "fail  memory: as base model" in printed


def test_a_template_by_which_nothing_is_learned_and_a_tokenizer_unlike_its_file_are_said_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    special, folder = ["<|im_start|>", "<|im_end|>"], tmp_path / "model"
    tokenizer = make_tokenizer(special)
    save_model(folder, CHATML, special, tokenizer)
    tokenizer.normalizer = normalizers.Lowercase()
    run = RunSettings(**{**GOOD, "base_model": str(folder)})
    other = ChatTokenizer(folder, fast=False)
    tokenizer.save(str(tmp_path / "other.json"))
    assert other.unlike_file(folder / "tokenizer.json") == ""
    assert other.unlike_file(tmp_path / "other.json").startswith("I'm you'RE")
    assert [outcome for outcome, _ in check_template(run)] == ["pass"] * 4
    (folder / "chat_template.jinja").write_text(CHATML.replace("assistant\n{%", "assistant\n<think>\n{%"))
    verdict, text = next(iter(check_template(run)))
    assert verdict == "warn" and "asks for every answer with a thought, and one has none; thinking='on'" in text
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}")
    with pytest.raises(
        ConfigError, match="not even plain answers are learned: the chat template writes no end of turn"
    ):
        run_preflight(run, str(tmp_path / "report"))


@pytest.mark.parametrize(
    ("max_length", "chosen", "said"),
    [
        (8192, 0, "10.9 GB per process (weights 0.6, optimizer 0.1, activations 9.9, logits 0.4), estimated for micro"),
        (512, 0, "for micro batches of 512 tokens, up to 4.0 GB for 2048 tokens at once: as many as fit are taken"),
        (8192, 16384, "53.3 GB per process"),
    ],
)
def test_on_a_cpu_the_longest_record_lies_alone_and_packed_ones_only_as_far_as_they_pay(
    max_length: int, chosen: int, said: str, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE_MODEL, base)
    (base / "config.json").write_text(json.dumps(SMOLLM2_135M))
    memory = {"memory": {"max_tokens_per_gpu": chosen}}
    run = RunSettings(
        **{**GOOD, "base_model": str(base), "mix_options": {"max_length": max_length}, "train_options": memory}
    )
    *_, (_, text) = check_memory(run)
    assert said in text and ("up to" in said) == ("up to" in text)


SMOLLM2_135M = {
    "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_70B = {
    "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_model_that_a_gpu_does_not_hold_is_refused_with_the_option_by_which_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE_MODEL, base)
    (base / "config.json").write_text(json.dumps(LLAMA_70B))
    run = RunSettings(**{**GOOD, "base_model": str(base), "tracking": {"hyperpod": "1x-p5.48xlarge"}})
    run = replace(run, num_nodes="1", gpus_per_node="8")
    (failure,) = [words for grade, words in check_memory(run) if grade == "fail"]
    assert "too big for H100" in failure
    option = "train_options={'memory': {'shard_base': True}}"
    assert option in failure
    assert [grade for grade, _ in check_memory(replace(run, train_options=ast.literal_eval(option.split("=")[1])))][
        :1
    ] == ["pass"]


def test_a_global_batch_that_leaves_gpus_idle_is_warned_of_with_one_that_does_not(tmp_path: Path) -> None:
    run = replace(RunSettings(**GOOD), num_nodes="4", gpus_per_node="8", tracking={"hyperpod": "4x-p5.48xlarge"})
    (warning,) = [words for grade, words in check_memory(run) if grade == "warn" and "GPUs" in words]
    assert warning.startswith("global_batch_size 32 over 32 GPUs")
    assert "128 or more keeps them busy" in warning
    enough = replace(run, mix_options={**GOOD["mix_options"], "global_batch_size": 128})
    assert not [words for _, words in check_memory(enough) if "busy" in words]


def records(path: Path, count: int) -> str:
    head = "text,category\n" if path.suffix == ".csv" else ""
    path.write_text(head + "Where is my parcel?,delivery\n" * count)
    return str(path)


@pytest.mark.parametrize("name", ["tickets.csv", "tickets.jsonl"])
def test_records_that_are_too_few_to_tell_are_warned_of_by_axis_with_a_way_out(name: str, tmp_path: Path) -> None:
    sources = [
        SourceSettings(name="customer", uri=records(tmp_path / name, 120)),
        SourceSettings(name="chat", uri=records(tmp_path / "chat.jsonl", 600)),
    ]
    held = {"splits": {"holdout_records": 200}}
    run = RunSettings(**GOOD, sources=sources, sanitize_options=held)
    (passed, known), (own, gain), (general, loss) = check_items(run)
    assert (passed, own, general) == ("pass", "warn", "warn")
    assert known.startswith("about 12 test records, 60 general records held out")
    assert gain.startswith(
        "customer: about 12 test records: a gain of 0.1 is proved in about 29 % of runs; give a test_uri"
    )
    assert gain.endswith("about 62")
    assert loss.startswith("general_nll: 60 items and max_drop=0.02: a model that lost nothing passes in about 46 % of")
    assert loss.endswith("to hold out about 160, or set benchmarks.general_nll.max_drop to 0.033")
    array = tmp_path / "array.json"
    array.write_text("[]")
    uncounted = replace(run, sources=[replace(source, uri=str(array)) for source in sources])
    (_, text), *_ = check_items(uncounted)
    assert text == (
        "test records not counted before they are read (JSONL, CSV and TSV are), general records held out not counted "
        "before they are read (JSONL, CSV and TSV are)"
    )
    enough = [replace(sources[0], split="test"), SourceSettings(name="chat", uri=records(tmp_path / "all.jsonl", 2000))]
    assert [outcome for outcome, _ in check_items(replace(run, sources=enough))] == ["pass"]
    limited = replace(run, sources=enough, evaluate_options={"limit": 60})
    assert [text.partition("; ")[2].split(" about")[0] for _, text in list(check_items(limited))[1:]] == [
        "raise evaluate_options.limit to"
    ] * 2
    looser = replace(limited, limits={"general_nll": 0.04, "customer": 0.11})
    assert [outcome for outcome, _ in check_items(looser)] == ["pass"]


def test_the_head_of_a_csv_is_no_record_and_its_last_line_needs_no_end(tmp_path: Path) -> None:
    whole = Path(records(tmp_path / "tickets.csv", 12)).read_text()
    for text in (whole, whole.rstrip("\n")):
        (tmp_path / "tickets.csv").write_text(text)
        for uri in (tmp_path / "tickets.csv", tmp_path):
            assert about_records([SourceSettings(name="customer", uri=str(uri))]) == {("customer", "train"): 12}


def test_files_whose_records_are_not_counted_are_said_to_be_left_out_of_the_count(tmp_path: Path) -> None:
    records(tmp_path / "a.jsonl", 10)
    (own,) = check_sources([SourceSettings(name="chat", uri=str(tmp_path))], 10)
    assert "about 10 records, for whose" in own[1]
    for name in ("b.json", "c.parquet", "d.jsonl.gz"):
        (tmp_path / name).write_bytes(b"some bytes")
    (own,) = check_sources([SourceSettings(name="chat", uri=str(tmp_path))], 10)
    assert "about 10 records without those of 3 files that are not JSONL, CSV or TSV, b.json first, for" in own[1]


def test_an_adapter_on_experts_is_warned_of_before_vllm_is_asked(tmp_path: Path) -> None:
    def outcomes(kind: str, **options: Any) -> set[str]:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        training = TrainSettings.from_options({"lora_options": options}, method="lora", learning_rate=1e-5, seed=1)
        found = check_engine(str(tmp_path), {"engine": "vllm"}, training, elsewhere=True)
        return {outcome for outcome, text in found if "adapter" in text or "merged" in text}

    assert outcomes("qwen3_moe") == outcomes("dense", target_modules=["q_proj"], target_parameters=["x"]) == {"warn"}
    assert outcomes("llama") == outcomes("qwen3_moe", target_modules=["q_proj"]) == set()
    assert outcomes("llama", use_osf=True) == {"fail"}
    assert outcomes("llama", use_osf=True, merge=True) == {"pass"}


def test_an_experiment_that_was_deleted_is_refused_before_anything_runs(tmp_path: Path, mlflow_uri: str) -> None:
    client = MlflowClient(mlflow_uri)
    tracking = {"uri": mlflow_uri, "experiment": "old"}
    run = RunSettings(**GOOD, tracking=tracking)
    client.delete_experiment(client.create_experiment("old"))
    with pytest.raises(ConfigError, match=r"MLflow's experiment 'old' is deleted.*tracking\.experiment"):
        run_preflight(run, str(tmp_path / "report"))
    assert run_preflight(replace(run, tracking={**tracking, "experiment": "new"}), str(tmp_path / "report"))


def test_what_is_said_of_packing_and_attention_is_of_the_machine_that_trains(tmp_path: Path) -> None:
    def said(kind: str, gpus: str) -> str:
        shutil.copytree(BASE_MODEL, tmp_path / kind, dirs_exist_ok=True)
        config = json.loads((tmp_path / kind / "config.json").read_text())
        (tmp_path / kind / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        run = RunSettings(**{**GOOD, "base_model": str(tmp_path / kind), "gpus_per_node": gpus})
        return next(text for _, text in check_architecture(run) if text.startswith(f"{kind}: "))

    assert "each is a row of its own" in said("opt", "")
    assert said("opt", "8").startswith("opt: records are packed; an adapter")
    assert "attention is sdpa, with a mask" in said("gemma4_text", "8")
    assert "with a mask" not in said("gemma4_text", "")
