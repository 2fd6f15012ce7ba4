"""Jobs as tuning services export them become arguments of finetune, in one command each, and nothing is passed over."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest

from mixtune import storage
from mixtune.cli import main
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.reading.readers import read_rows
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.tuning_import.exports import read_export
from mixtune.tuning_import.import_job import Additions, find_file, import_job
from mixtune.tuning_import.services import read_table
from mixtune.tuning_import.settings_map import map_settings

SAMPLES = Path(__file__).with_name("samples")
DEMO = Path(__file__).parents[2] / "components" / "mixtune" / "demo" / "base_model"
POOLS = [{"category": "chat", "uri": "chat.jsonl", "weight": 100}]
TRAIN = str(SAMPLES / "file-Train01.jsonl")
LORA_PLUS_OFF = {"lora_options": {"lora_plus_ratio": 1.0}}
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "openai_succeeded.json": ("", {
        "customer_uri": TRAIN, "test_uri": str(SAMPLES / "file-Valid01.jsonl"), "customer_epochs": 3.0,
        "seed": 683058546, "mix_options": {"global_batch_size": 8},
    }),
    "openai_legacy.json": ("", {
        "customer_uri": TRAIN, "customer_epochs": 4.0, "seed": 42, "mix_options": {"global_batch_size": 1},
    }),
    "openai_request.json": ("", {"customer_uri": TRAIN, "seed": 7}),
    "openai_list.json": ("ftjob-b2", {"customer_uri": TRAIN, "customer_epochs": 2.0}),
    "vertex_gemini.json": ("", {
        "customer_uri": str(SAMPLES / "gemini_train.jsonl"), "customer_epochs": 4.0,
        "train_options": {"lora_rank": 4, "lora_alpha": 8},
    }),
    "vertex_request.json": ("", {"customer_uri": str(SAMPLES / "gemini_train.jsonl")}),
    "vertex_open_full.json": ("78", {
        "customer_uri": TRAIN, "customer_epochs": 2.0, "method": "sft", "learning_rate": 5e-6,
        "mix_options": {"global_batch_size": 16},
    }),
    "vertex_list.yaml": ("", {
        "customer_uri": str(SAMPLES / "gemini_train.jsonl"), "customer_epochs": 5.0,
        "train_options": {"lora_rank": 32, "lora_alpha": 64},
    }),
    "cohere_chat.json": ("", {
        "customer_uri": str(SAMPLES / "tickets-ds-7.jsonl"), "customer_epochs": 1.0,
        "mix_options": {"global_batch_size": 16},
    }),
    "cohere_lora.json": ("", {
        "customer_uri": str(SAMPLES / "tickets-ds-7.jsonl"), "customer_epochs": 3.0,
        "mix_options": {"global_batch_size": 8}, "train_options": {"lora_rank": 8, "lora_alpha": 16},
    }),
    "cohere_classify.json": ("", {"customer_uri": str(SAMPLES / "intents-ds-8.csv"), "customer_epochs": 5.0}),
    "databricks_chat.json": ("", {
        "customer_uri": TRAIN, "test_uri": str(SAMPLES / "file-Valid01.jsonl"), "customer_epochs": 3.0,
        "method": "sft", "learning_rate": 5e-7, "mix_options": {"max_length": 8192},
    }),
    "databricks_table.yaml": ("", {
        "customer_uri": str(SAMPLES / "tickets.jsonl"), "max_steps": 200, "method": "sft", "learning_rate": 1e-6,
    }),
    "databricks_tokens.json": ("", {"customer_uri": str(SAMPLES / "tickets.jsonl"), "method": "sft"}),
    "bedrock_llama.json": ("", {
        "customer_uri": "s3://acme-tuning/bedrock/converse_train.jsonl", "customer_epochs": 5.0,
        "learning_rate": 0.0001, "mix_options": {"global_batch_size": 1}, "train_options": LORA_PLUS_OFF,
    }),
    "bedrock_nova.json": ("", {
        "customer_uri": "s3://acme-tuning/bedrock/converse_train.jsonl",
        "test_uri": "s3://acme-tuning/bedrock/valid.jsonl", "customer_epochs": 2.0,
        "mix_options": {"global_batch_size": 1},
    }),
    "bedrock_claude_request.json": ("", {
        "customer_uri": "s3://acme-tuning/haiku.jsonl", "customer_epochs": 4.0, "mix_options": {"global_batch_size": 32},
    }),
    "vertex_sdk.json": ("", {
        "customer_uri": str(SAMPLES / "gemini_train.jsonl"), "customer_epochs": 3.0,
        "train_options": {"lora_rank": 8, "lora_alpha": 16},
    }),
    "vertex_continued.json": ("", {
        "customer_uri": str(SAMPLES / "gemini_train.jsonl"), "customer_epochs": 2.0,
        "train_options": {"lora_rank": 4, "lora_alpha": 8},
    }),
    "nova_recipe.yaml": ("", {
        "customer_uri": "s3://acme-tuning/nova/converse_train.jsonl", "max_steps": 100,
        "mix_options": {"global_batch_size": 64, "max_length": 32768},
        "train_options": {"lora_options": {"lora_plus_ratio": 32.0}, "schedule": {"weight_decay": 0.0}},
    }),
    "nova_recipe_1.yaml": ("", {
        "customer_uri": "s3://acme-tuning/nova/converse_train.jsonl", "customer_epochs": 2.0,
        "mix_options": {"global_batch_size": 64, "max_length": 8192},
        "train_options": {"lora_options": {"lora_plus_ratio": 16.0, "lora_dropout": 0.01}},
    }),
    "together_lora.json": ("", {
        "customer_uri": TRAIN, "test_uri": str(SAMPLES / "file-Valid01.jsonl"), "customer_epochs": 3.0,
        "learning_rate": 1e-5, "mix_options": {"global_batch_size": 8},
        "train_options": {
            "lora_rank": 8, "lora_alpha": 16, "lora_options": {"lora_dropout": 0.05, "lora_plus_ratio": 1.0},
            "schedule": {"warmup_ratio": 0.03, "max_grad_norm": 1.0, "weight_decay": 0.01},
        },
    }),
    "together_full.json": ("", {
        "customer_uri": TRAIN, "customer_epochs": 1.0, "learning_rate": 2e-6, "method": "sft",
    }),
    "mistral_job.json": ("", {
        "customer_uri": TRAIN, "test_uri": str(SAMPLES / "file-Valid01.jsonl"), "max_steps": 100,
        "learning_rate": 1e-4, "mix_options": {"max_length": 16384},
        "train_options": {"schedule": {"weight_decay": 0.1, "warmup_ratio": 0.05}, **LORA_PLUS_OFF},
    }),
    "mistral_request.json": ("", {
        "customer_uri": TRAIN, "customer_epochs": 2.0, "learning_rate": 1e-4, "train_options": LORA_PLUS_OFF,
    }),
    "azure_auto.json": ("", {
        "customer_uri": TRAIN, "test_uri": str(SAMPLES / "file-Valid01.jsonl"), "seed": 105,
    }),
    "openai_fine_tune.json": ("", {
        "customer_uri": TRAIN, "customer_epochs": 4.0, "mix_options": {"global_batch_size": 8},
    }),
    "openai_wandb.json": ("", {
        "customer_uri": TRAIN, "customer_epochs": 3.0, "seed": 3, "mix_options": {"global_batch_size": 4},
    }),
    "openai_list_mixed.json": ("ftjob-a1", {"customer_uri": TRAIN, "customer_epochs": 1.0, "seed": 3}),
    "openai_open_weights.json": ("", {
        "customer_uri": TRAIN, "customer_epochs": 3.0, "mix_options": {"max_length": 4096},
    }),
    "openai_printed.txt": ("", {
        "customer_uri": TRAIN, "customer_epochs": 3.0, "seed": 154, "mix_options": {"global_batch_size": 1},
    }),
    "openai_rows.jsonl": ("", {"customer_uri": TRAIN, "customer_epochs": 1.0, "seed": 3}),
    "bedrock_boto3.txt": ("", {
        "customer_uri": "s3://b/train.jsonl", "customer_epochs": 2.0, "mix_options": {"global_batch_size": 1},
    }),
    "gemini_tuned_model.json": ("", {"customer_epochs": 5.0, "mix_options": {"global_batch_size": 4}}),
    "predibase_adapter.json": ("", {
        "customer_uri": str(SAMPLES / "tickets.jsonl"), "customer_epochs": 3.0, "learning_rate": 0.0002,
        "train_options": {"lora_rank": 16, "lora_alpha": 32, **LORA_PLUS_OFF},
    }),
    "fireworks_list.json": ("", {
        "customer_uri": str(SAMPLES / "tickets.jsonl"), "customer_epochs": 2.0, "learning_rate": 0.0001,
        "mix_options": {"max_length": 8192}, "train_options": {"lora_rank": 16, "lora_alpha": 32, **LORA_PLUS_OFF},
    }),
    "anyscale_lora.yaml": ("", {
        "customer_uri": "s3://b/train.jsonl", "test_uri": "s3://b/valid.jsonl", "customer_epochs": 10.0,
        "learning_rate": 0.0001, "mix_options": {"max_length": 512},
        "train_options": {
            "lora_rank": 8, "lora_alpha": 16, "lora_options": {"lora_dropout": 0.05, "lora_plus_ratio": 1.0},
        },
    }),
    "sagemaker_jumpstart.json": ("", {
        "customer_uri": "s3://b/train/", "customer_epochs": 5.0, "learning_rate": 0.0001, "seed": 10,
        "train_options": {
            "lora_rank": 8, "lora_alpha": 32, "lora_options": {"lora_dropout": 0.05, "lora_plus_ratio": 1.0},
        },
    }),
    "file-Train01.jsonl": ("", {"customer_uri": TRAIN}),
    "intents-ds-8.csv": ("", {"customer_uri": str(SAMPLES / "intents-ds-8.csv")}),
    "converse_train.jsonl": ("", {"customer_uri": str(SAMPLES / "converse_train.jsonl")}),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_one_command_makes_arguments_of_an_export_and_says_what_became_of_every_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    job, expected = EXPECTED[name]
    out = tmp_path / "finetune.json"
    command = ["import-tuning", str(SAMPLES / name), "--files", str(SAMPLES), "--out", str(out)]
    command += ["--base-model", str(DEMO), "--general-pools", json.dumps(POOLS), *(["--job", job] if job else [])]
    assert main(command) == 0
    assert json.loads(out.read_text()) == {**expected, "base_model": str(DEMO), "general_pools": POOLS}
    shown = capsys.readouterr().out
    for setting in read_export(str(SAMPLES / name), job).settings:
        assert f"\n{setting} " in shown
    assert "mixtune plan finetune" in shown


def test_every_service_of_the_table_has_samples() -> None:
    services = [read_export(str(SAMPLES / name), job).service for name, (job, _) in EXPECTED.items()]
    assert len(services) > 20
    assert set(services) == {*(service.name for service in read_table().services), "a file of records"}


@pytest.mark.parametrize(
    "path",
    sorted({*SAMPLES.glob("*.jsonl"), *SAMPLES.glob("*.csv")} - {SAMPLES / "openai_rows.jsonl"}),
    ids=lambda path: path.name,
)
def test_records_in_a_services_own_form_are_read_as_conversations(path: Path) -> None:
    rows = list(read_rows(str(path)))
    schema = find_schema(rows[0].value, {})
    for row in rows:
        messages = schema.record(row.value, str(path), row.line, Counter())["messages"]
        assert [message["role"] for message in messages][-2:] == ["user", "assistant"]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_dry_run_with_its_price_is_the_very_command_that_the_import_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # an earlier test's has its credentials
    storage.s3_client.cache_clear()
    (job, expected), out = EXPECTED[name], tmp_path / "finetune.json"
    command = ["import-tuning", str(SAMPLES / name), "--files", str(SAMPLES), "--out", str(out)]
    command += ["--base-model", str(DEMO), "--general-pools", json.dumps(POOLS), *(["--job", job] if job else [])]
    assert main(command) == 0
    (plan,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    words = shlex.split(plan)[2:]
    if (
        expected.get("customer_uri", "s3://").startswith("s3://") and "max_steps" not in expected
    ):  # a laptop that may not look there
        assert main(words) == 2
        shown = capsys.readouterr().err
        if "customer_uri" in expected:
            assert "its records cannot be counted (s3://" in shown and "NoCredentialsError: no AWS credentials" in shown
        words += ["--customer-records", "500"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^total: .* h, \$\d", shown, re.MULTILINE) and "training, " in shown


def test_what_an_export_does_not_hold_is_asked_for_with_the_way_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "finetune.json"
    assert main(["import-tuning", str(SAMPLES / "openai_succeeded.json"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for name in ("customer_uri: file-Train01", "test_uri: file-Valid01", "base_model", "general_pools"):
        assert f"still to give: {name}" in shown


def test_a_setting_that_nobody_knows_is_in_the_table() -> None:
    job = read_export(str(SAMPLES / "openai_legacy.json"))
    job = type(job)(**{**vars(job), "settings": {"n_epochs": 1, "moment": 0.9}})
    (line,) = [line for line in map_settings(job)[1] if line.setting == "moment"]
    assert not line.becomes and "not known" in line.note


def test_a_setting_that_two_objects_give_is_listed_twice_and_a_number_outweighs_auto(tmp_path: Path) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto", "batch_size": 4}}}
    job = {"model": "m", "training_file": "f", "hyperparameters": {"n_epochs": 3, "batch_size": 4}, "method": method}
    (tmp_path / "job.json").write_text(json.dumps(job))
    arguments, lines = map_settings(read_export(str(tmp_path / "job.json")))
    assert arguments["customer_epochs"] == 3
    assert [line.setting for line in lines] == [
        "n_epochs", "batch_size", "method.supervised.hyperparameters.n_epochs",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"'])
def test_a_file_without_a_record_is_refused_by_its_name(tmp_path: Path, capsys: Any, text: str) -> None:
    (tmp_path / "job.json").write_text(text)
    assert main(["import-tuning", str(tmp_path / "job.json"), "--out", str(tmp_path / "out.json")]) == 1
    assert f"{tmp_path}/job.json: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [{"hello": "world"}, {"model_type": "llama", "vocab_size": 8}, [{"a": 1}, {"b": 2}]]
)
def test_json_that_is_neither_a_job_nor_records_is_refused_with_both_reasons(tmp_path: Path, content: object) -> None:
    (tmp_path / "job.json").write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=r"no job of .* in it, and no record \(no known schema in columns .*docs/moving"
    ):
        read_export(str(tmp_path / "job.json"))
    (tmp_path / "job.json").write_text('[{"text": "hi", "label": "a"}]')
    assert read_export(str(tmp_path / "job.json")).service == "a file of records"


def test_a_setting_that_is_0_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"object": "fine_tuning.job", "model": "m", "seed": 0}))
    assert map_settings(read_export(str(tmp_path / "job.json")))[0] == {"seed": 0}


def test_a_rate_is_taken_over_only_where_the_same_weights_are_tuned_again() -> None:
    for name, rate in (("bedrock_nova.json", None), ("bedrock_llama.json", 0.0001), ("cohere_lora.json", None)):
        assert map_settings(read_export(str(SAMPLES / name)))[0].get("learning_rate") == rate


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"object": "fine_tuning.job", "model": "m", "training_file": "f", "method": {"type": "dpo"}}, "method.type is dpo, taken is supervised"),
        ({"baseModel": "gemini-2.5-pro", "preferenceOptimizationSpec": {}}, "preferenceOptimizationSpec"),
        ({"settings": {"base_model": {"base_type": "BASE_TYPE_RERANK"}, "dataset_id": "d"}}, "BASE_TYPE_RERANK"),
        ({"model": "m", "train_data_path": "p", "task_type": "CONTINUED_PRETRAIN"}, "CONTINUED_PRETRAIN"),
        ({"model": "m", "train_data_path": "p", "training_duration": "2 days"}, "a number with one of ep, ba, tok"),
        ({"trainingDataConfig": {}, "baseModelArn": "a/b", "customizationType": "DISTILLATION"}, "DISTILLATION"),
        ({"trainingDataConfig": {"s3Uri": "s3://b/t"}, "baseModelArn": "a/b", "hyperParameters": {"epochCount": "many"}},
         "epochCount is 'many'"),
        ({"trainingDataConfig": {"s3Uri": "s3://b/t"}, "baseModelArn": "a/b", "hyperParameters": {"batchSize": "1.5"}},
         "a whole number"),
        ({"trainingDataConfig": {"s3Uri": "s3://b/t"}, "baseModelArn": "a/b", "hyperParameters": {"epochCount": "-2"}},
         "customer_epochs is more than 0"),
        ({"hello": "world"}, "no job of Bedrock, Vertex AI, Cohere"),
        ({"model": "m", "training_files": ["a", "b"]}, "training_files: 2 files; put them into one folder"),
        ({"model": "m", "training_files": ["a"], "job_type": "classifier"}, "job_type is classifier"),
        ({"model": "a/b", "training_file": "f", "n_epochs": 1, "training_method": {"method": "dpo"}}, "method is dpo"),
        ({"run": {"model_type": "n"}, "training_config": {"model": {"dpo_cfg": {"beta": 0.1}}}}, "dpo_cfg is another"),
    ],
)  # fmt: skip
def test_what_cannot_be_moved_is_refused_with_the_reason(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        import_job(read_export(str(tmp_path / "job.yaml")), Additions())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"object": "list", "data": [{"object": "fine_tuning.job.event", "id": "e"}]}', "events or checkpoints of a job"),
        ('{"data": [{"object": "fine_tuning.job.checkpoint", "fine_tuning_job_id": "f"}]}', "save the answer of GET"),
        ('{"modelCustomizationJobSummaries": [{"jobName": "desk"}]}', "get-model-customization-job --job-identifier"),
        ('{"error": {"message": "Incorrect API key"}}', "an error that was answered in place of a job"),
        ('{"data": []}', "it holds nothing, no job and no record"),
        ("id='ft-1' training_file='file-1' state=<State.DONE: 'DONE'>", "Python prints of an object; save it as JSON"),
        ("Run(name='a', status=DONE, details=Run completed)", "Python prints of an object"),
        ("[" * 20000, "neither JSON nor YAML"),
        ('{"run": {"model_type": "n"}, "training_config": {"task_type": "cpt"}}', "task_type is cpt, taken is sft"),
        ('{"name": "accounts/a/dpoJobs/d", "dataset": "t", "trainingConfig": {"baseModel": "b"}}', "trainingConfig is another"),
    ],
)  # fmt: skip
def test_what_a_service_answers_besides_jobs_is_refused_with_the_way_to_one(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "job.json").write_text(content)
    with pytest.raises((ConfigError, DataError), match=message):
        read_export(str(tmp_path / "job.json"))


def test_a_training_of_another_kind_hinders_no_other_job_of_its_list() -> None:
    with pytest.raises(ConfigError, match="2 jobs; name one by --job: ftjob-a1, ftjob-d2"):
        read_export(str(SAMPLES / "openai_list_mixed.json"))
    with pytest.raises(ConfigError, match=r"OpenAI ftjob-d2: method\.type is dpo"):
        read_export(str(SAMPLES / "openai_list_mixed.json"), "ftjob-d2")


def test_a_setting_at_the_top_of_a_job_that_nobody_knows_is_in_the_table(tmp_path: Path) -> None:
    for name in ("together_lora.json", "databricks_chat.json", "bedrock_llama.json", "openai_succeeded.json"):
        content = json.loads((SAMPLES / name).read_text()) | {"momentum": 0.9}
        (tmp_path / "job.json").write_text(json.dumps(content))
        assert "momentum" in read_export(str(tmp_path / "job.json")).settings


def test_one_of_several_jobs_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 jobs; name one by --job: ftjob-b1, ftjob-b2"):
        read_export(str(SAMPLES / "openai_list.json"))
    with pytest.raises(ConfigError, match="no job 'ftjob-b3'"):
        read_export(str(SAMPLES / "openai_list.json"), "ftjob-b3")
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(DataError, match="neither JSON nor YAML"):
        read_export(str(tmp_path / "job.json"))


def test_a_file_is_found_by_its_name_its_id_or_its_table_and_never_guessed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.jsonl", "file-1-tickets.jsonl", "deep/rows.parquet"):
        (tmp_path / name).touch()
    folder = str(tmp_path)
    assert find_file("gs://bucket/x/a.jsonl", folder) == f"{folder}/a.jsonl"
    assert find_file("file-1", folder) == f"{folder}/file-1-tickets.jsonl"
    assert find_file("main.desk.rows", folder) == f"{folder}/deep/rows.parquet"
    (tmp_path / "tickets.jsonl").touch()
    (tmp_path / "tickets-old.jsonl").touch()
    assert find_file("accounts/acme/datasets/tickets", folder) == f"{folder}/tickets.jsonl"
    assert find_file("file-2", folder) == find_file("file-1", "") == ""
    (tmp_path / "file-1-more.jsonl").touch()
    with pytest.raises(ConfigError, match="give --training"):
        find_file("file-1", folder)


def test_a_file_that_is_there_already_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "finetune.json"
    out.write_text("{}")
    assert main(["import-tuning", str(SAMPLES / "openai_succeeded.json"), "--out", str(out)]) == 2
    assert "there is something already" in capsys.readouterr().err
    assert out.read_text() == "{}"


@pytest.mark.parametrize("name", ["file-Train01.jsonl", "intents-ds-8.csv", "openai_rows.jsonl"])
def test_a_job_that_is_not_in_a_file_is_never_another(name: str) -> None:
    with pytest.raises(ConfigError, match="no job 'ftjob-zz'"):
        read_export(str(SAMPLES / name), "ftjob-zz")


def test_a_folder_of_files_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["import-tuning", str(SAMPLES / "openai_succeeded.json"), "--out", str(tmp_path / "finetune.json")]
    assert main([*command, "--files", str(tmp_path / "downlods")]) == 2
    assert "downlods: there is no such folder" in capsys.readouterr().err
