from pathlib import Path

import pytest
import yaml

from mixtune.commands.arguments import ONE_RUN, check_arguments, find_pipeline, read_arguments, with_defaults
from mixtune.errors import ConfigError

PARAMETERS = {
    "uri": {"parameterType": "STRING"},
    "percent": {"parameterType": "NUMBER_DOUBLE", "isOptional": True, "defaultValue": 50.0},
    "steps": {"parameterType": "NUMBER_INTEGER", "isOptional": True, "defaultValue": 0},
    "pools": {"parameterType": "LIST", "isOptional": True},
    "options": {"parameterType": "STRUCT", "isOptional": True},
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump({"root": {"inputDefinitions": {"parameters": PARAMETERS}}}))
    return path


def test_texts_become_values_of_the_parameters_type(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "pools.json").write_text('[{"category": "chat"}]')
    texts = ["uri=s3://b/k=v", "percent=75", "steps=5", f"pools=@{tmp_path}/pools.json", 'options={"a": 1}']
    assert read_arguments(pipeline, texts) == {
        "uri": "s3://b/k=v", "percent": 75.0, "steps": 5, "pools": [{"category": "chat"}], "options": {"a": 1},
    }  # fmt: skip


def test_a_file_of_arguments_is_overridden_by_texts(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"uri": "a", "steps": 7}')
    assert read_arguments(pipeline, ["steps=9"], str(tmp_path / "a.json")) == {"uri": "a", "steps": 9}
    (tmp_path / "a.json").write_text('{"uri": "a", "percent": 75, "steps": 5.0}')
    numbers = read_arguments(pipeline, [], str(tmp_path / "a.json"))
    assert (type(numbers["percent"]), type(numbers["steps"])) == (float, int), "as KFP wants them"
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match="a JSON object is needed; got a list"):
        read_arguments(pipeline, [], str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["uri=a", "percnt=75"], "no parameter 'percnt'; did you mean 'percent'"),
        (["uri=a", "percent=many"], "percent is a number; got 'many'"),
        (["uri=a", "steps=2.5"], "steps is a whole number; got 2.5"),
        (["uri=a", "pools={}"], "pools is a JSON list"),
        (["uri=a", "pools=@nowhere.json"], "pools: nowhere.json cannot be read"),
        (["uri=a", "uri=b"], "uri is given twice"),
        (["percent=1"], "demo needs uri=..."),
        (["uri"], "'uri': an argument is written key=value"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(pipeline: Path, texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        read_arguments(pipeline, texts)


def test_values_that_come_as_values_are_checked_too(pipeline: Path) -> None:
    with pytest.raises(ConfigError, match="steps is a whole number; got '5'"):
        check_arguments(pipeline, {"uri": "a", "steps": "5"})


def test_one_entry_of_an_object_is_written_with_dots() -> None:
    needed = ["customer_uri=a", 'general_pools=[{"category": "chat"}]', "base_model=m"]
    words = ["train_options.lora_rank=8", "train_options.memory.shard_base=true", "train_options.memory.dtype=float32"]
    arguments = read_arguments(find_pipeline("finetune"), [*needed, 'train_options={"lora_alpha": 16}', *words])
    assert arguments["train_options"] == {
        "lora_alpha": 16,
        "lora_rank": 8,
        "memory": {"shard_base": True, "dtype": "float32"},
    }
    with pytest.raises(ConfigError, match="method is text, and has no 'name'"):
        read_arguments(find_pipeline("finetune"), [*needed, "method.name=lora"])


def test_a_pipeline_is_a_file_or_one_of_ours(pipeline: Path) -> None:
    assert find_pipeline(str(pipeline)) == pipeline
    assert find_pipeline("rehearse").parent.name == "rehearse", "a component by itself"
    with pytest.raises(ConfigError, match="nothing: no such file, and mixtune ships no pipeline of that name"):
        find_pipeline("nothing")
    with pytest.raises(ConfigError, match="not a compiled pipeline"):
        read_arguments(Path(__file__), [])


def test_a_pipeline_that_does_not_train_once_is_refused_by_what_looks_at_one_run() -> None:
    assert with_defaults(find_pipeline("finetune"), {"max_steps": 5}, ONE_RUN)["max_steps"] == 5
    with pytest.raises(ConfigError, match=r"mix_grid has no parameter 'customer_data_percent'.*take finetune"):
        with_defaults(find_pipeline("mix_grid"), {}, ONE_RUN)
