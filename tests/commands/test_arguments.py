import json
import shutil
from pathlib import Path

import pytest
import yaml

from mixtune import __version__
from mixtune.cli import main
from mixtune.commands.argument_places import check_places, resolve_places
from mixtune.commands.arguments import check_arguments, find_pipeline, read_arguments, with_defaults
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
    (tmp_path / "a.json").write_text('{"uri": 4, "percent": 75, "steps": 5.0}')
    numbers = read_arguments(pipeline, [], str(tmp_path / "a.json"))
    assert (type(numbers["percent"]), type(numbers["steps"]), numbers["uri"]) == (float, int, "4"), "as KFP wants them"
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match="a JSON object is needed; got a list"):
        read_arguments(pipeline, [], str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["uri=a", "percnt=75"], "no parameter 'percnt'; did you mean 'percent'"),
        (["uri=a", "percent=many"], "percent is a number; got 'many'"),
        (["uri=a", "percent=NaN"], "percent is a number; got 'NaN'"),
        (["uri=a", "percent=1e400"], "percent is a number; got '1e400'"),
        (["uri=a", f"percent={'9' * 400}"], "percent is a number; got '999"),
        (["uri=a", 'options={"depth": -Infinity}'], "options is a JSON object; got .*-Infinity is no number"),
        (["uri=a", "steps=2.5"], "steps is a whole number; got 2.5"),
        (["uri=a", "pools={}"], "pools is a JSON list"),
        (["uri=a", "pools=@nowhere.json"], "pools: nowhere.json cannot be read"),
        (["uri=a", "uri=b"], "uri is given twice"),
        (["uri=a", "options.depth.a=1", "options.depth.a=2"], "options.depth.a is given twice"),
        (["uri=a", "options.depth=3", "options.depth.a=1"], "options.depth is 3, and has no 'a'"),
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
    named = read_arguments(find_pipeline("finetune"), [*needed, 'benchmarks={"a": "a/"}', "benchmarks.a.max_drop=0.1"])
    assert named["benchmarks"] == {"a": {"uri": "a/", "max_drop": 0.1}}, "as preflight proposes it"
    with pytest.raises(ConfigError, match="method is text, and has no 'name'"):
        read_arguments(find_pipeline("finetune"), [*needed, "method.name=lora"])


def test_a_pipeline_is_a_file_or_one_of_ours(pipeline: Path) -> None:
    assert find_pipeline(str(pipeline)) == pipeline
    assert find_pipeline("rehearse").parent.name == "rehearse", "a component by itself"
    with pytest.raises(ConfigError, match="nothing: no such file, and mixtune ships nothing of that name"):
        find_pipeline("nothing")
    with pytest.raises(ConfigError, match="not a compiled pipeline"):
        read_arguments(Path(__file__), [])


def test_what_is_not_given_has_the_pipelines_own_default() -> None:
    assert with_defaults(find_pipeline("finetune"), {"max_steps": 5})["max_steps"] == 5
    assert with_defaults(find_pipeline("mix_grid"), {})["customer_data_percents"] == [100.0, 75.0, 50.0]


def test_every_wrong_name_is_said_at_once_with_what_was_meant() -> None:
    with pytest.raises(
        ConfigError, match=r"evaluate_only has no parameters 'customer_data_percent', 'metod', 'sead' \(did "
    ):
        read_arguments(find_pipeline("evaluate_only"), ["customer_data_percent=75", "metod=lora", "sead=1"])
    for option in ("train_options.lora_rank", "sanitize_options.splits.test_ratio", "mix_options.max_length"):
        with pytest.raises(ConfigError, match=rf"no parameter '\w+'; write '{option}'"):
            read_arguments(find_pipeline("finetune"), [f"{option.rpartition('.')[2]}=8"])
    with pytest.raises(ConfigError, match=r"customer_data_percent is 0 to 100; got 120"):
        texts = ["customer_data_percent=120", "customer_uri=a", "general_pools=[]", "base_model=b"]
        read_arguments(find_pipeline("finetune"), texts)
    with pytest.raises(
        ConfigError, match=r"finetoon: no such file.*did you mean 'finetune'\?; .*`mixtune runs` the runs here"
    ):
        find_pipeline("finetoon")


def test_places_are_understood_as_a_shell_or_a_browser_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "chat.jsonl").write_text("{}")
    given = {
        "customer_uri": "~/tickets.csv",
        "test_uri": "file:///data/my%20tickets.csv",
        "base_model": "s3://bucket/model",
        "other_model": "~/other",
        "general_pools": [{"category": "chat", "uri": "chat.jsonl", "weight": 100}],
        "benchmarks": {"mmlu": "~/mmlu", "ifeval": {"uri": "here.jsonl"}},
    }
    resolved = resolve_places(given, tmp_path / "world")
    assert resolved == {
        "customer_uri": f"{tmp_path}/tickets.csv",
        "test_uri": "/data/my tickets.csv",
        "base_model": "s3://bucket/model",
        "other_model": f"{tmp_path}/other",
        "general_pools": [{"category": "chat", "uri": f"{tmp_path}/world/chat.jsonl", "weight": 100}],
        "benchmarks": {"mmlu": f"{tmp_path}/mmlu", "ifeval": {"uri": "here.jsonl"}},
    }
    (tmp_path / "chat.jsonl").write_text("other")
    with pytest.raises(ConfigError, match=r"general_pools\[0\].uri 'chat.jsonl': one lies beside the arguments' file"):
        resolve_places(given, tmp_path / "world")
    with pytest.raises(ConfigError, match=r"customer_uri 'file://host/x': file:// names files of this machine"):
        resolve_places({"customer_uri": "file://host/x"}, tmp_path)


def test_what_is_not_there_is_named_by_its_parameter_and_entry(tmp_path: Path) -> None:
    given = {
        "customer_uri": str(tmp_path / "missing.csv"),
        "base_model": "Qwen/Qwen3-0.6B",
        "general_pools": [{"category": "chat", "uri": "s3://bucket/chat.jsonl"}, {"category": "b", "uri": "nosuch"}],
        "benchmarks": {"mmluu": {"uri": str(tmp_path)}},
        "judge_model": str(tmp_path),
        "other_model": str(tmp_path / "other"),
    }
    (tmp_path / "inner").mkdir()
    with pytest.raises(ConfigError) as caught:
        check_places(given)
    assert str(caught.value).splitlines() == [
        "benchmarks.mmluu: no known form 'mmluu'; did you mean 'mmlu'?",
        f"customer_uri '{tmp_path}/missing.csv': no such file or folder; give a path or s3:// key that exists",
        "base_model 'Qwen/Qwen3-0.6B': no such folder here; of the hub write org/name@revision, such as "
        "Qwen/Qwen3-0.6B@main",
        "general_pools[1].uri 'nosuch': no such file or folder; give a path or s3:// key that exists",
        f"benchmarks.mmluu.uri '{tmp_path}': a folder without files",
        f"judge_model '{tmp_path}': a folder without files",
        f"other_model '{tmp_path}/other': no such folder here",
    ]
    (tmp_path / "inner" / "a.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match=r"no config.json in it; `mixtune merge` makes a model of an adapter"):
        check_places({"other_model": str(tmp_path / "inner")})
    check_places({"base_model": "Qwen/Qwen3-0.6B@main", "customer_uri": str(tmp_path)})


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 0, "COMMAND"),
        (["help"], 0, "COMMAND"),
        (["version"], 0, __version__),
        (["help", "demo"], 0, "--write-only"),
        (["rnu"], 2, "there is no command 'rnu'; did you mean 'run'?"),
        (
            ["run", "finetune", "--argments=x.json"],
            2,
            "unrecognized arguments: --argments=x.json; did you mean '--arguments'?",
        ),
        (["merge", "r", "--out", "f", "--work_dir", "w"], 2, "did you mean '--work-dir'?"),
        (["list"], 0, "mix_grid        Try several mixes"),
        (["list"], 0, "choose_mix       Compare several mixes and name the one to take\n"),
        (["list"], 0, "sanitize         Turn raw files into clean pools of records\n"),
        (["run", "finetune", "--help"], 0, "customer_data_percent  (a number; default 50.0)"),
        (["run", "rehearse", "-h"], 0, "base_model  (text; required)"),
        (["run"], 2, "`mixtune list` shows"),
        (["run", "finetune", "--resume", "finetune-1"], 2, "--resume finetune-1: there is no such run in "),
        (["run", "fingerprint", "--work-dir", "/dev/null"], 2, "fingerprint needs base_model=..., "),
        (["export", ".", "--format", "openai", "--out", "out"], 1, "mixtune: .: a folder; name the file in it"),
        (["run", "finetune", "general_pools=@latin.csv"], 2, "general_pools: latin.csv cannot be read ('utf-8' codec"),
        (["run", "latin.csv"], 2, "latin.csv: not a compiled pipeline; compile it (kfp dsl compile --py"),
        (["plan", "finetune", "base_model=b", "--mix", "latin.csv"], 2, "--mix latin.csv: cannot be read as YAML"),
        (["runs", "--work-dir", "~nosuch-user/x"], 1, "Could not determine home directory"),
        (["finetune", "seed=1"], 2, "there is no command 'finetune'; did you mean 'run finetune'?"),
        (["pools", "no-robot"], 2, "no pool 'no-robot' in the catalogue; did you mean no-robots?"),
        (["pools", "--allow", "apache-2.0"], 0, "without an entry: code, factuality, identity"),
        (["run", "finetune", "--arguments", "no.json"], 2, "--arguments no.json: no such file; name one with a JSON"),
        (["run", "finetune", "--arguments", "."], 2, "--arguments .: cannot be read as JSON (Is a directory)"),
        (["demo", "--write-only", "/proc/x"], 2, "/proc/x: it cannot be written"),
        (["demo", "--epochs", "0"], 2, "--epochs is above 0; got 0"),
        (["plan", "prepare_data", "base_model=b"], 0, "prepare_data trains nothing"),
        (["preflight", "rehearse", "base_model=org/b@main", "num_records=3"], 2, "rehearse is no whole run"),
    ],
)
def test_the_command_line_answers_in_one_line_without_a_traceback(
    words: list[str],
    code: int,
    text: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.csv").write_bytes("é".encode("latin-1"))
    try:
        exit_code = main(words)
    except SystemExit as end:
        exit_code = int(end.code or 0)
    shown = capsys.readouterr()
    assert (exit_code, text in shown.out + shown.err) == (code, True), shown.out + shown.err


def test_a_message_names_a_file_as_the_user_does_without_the_digest_that_the_run_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pools = f"{tmp_path}/pools#{'0a' * 16}"
    assert main(["export", pools, "--format", "nova", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}/pools:" in error and "#" not in error


def test_a_folder_that_cannot_be_copied_is_one_line_with_its_first_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def copy(words: list[str]) -> int:
        raise shutil.Error([(name, name, f"[Errno 28] No space left on device: {name!r}") for name in "abc"])

    monkeypatch.setattr("mixtune.cli._dispatch", copy)
    assert main(["runs"]) == 1
    assert capsys.readouterr().err.startswith("mixtune: [Errno 28] No space left on device: 'a'; name a path")


def write_json(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


TASK = {"customer_uri": "a", "general_pools": [], "base_model": "m"}


def test_one_file_of_arguments_serves_every_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_json(
        tmp_path / "f.json", {**TASK, "customer_data_percent": 75, "learning_rate": 1, "find_options": {}}
    )
    assert read_arguments(find_pipeline("mix_grid"), [], file) == {**TASK, "learning_rate": 1.0}
    wanted = f"mix_grid leaves out what {file} says for other pipelines: customer_data_percent, find_options\n"
    assert capsys.readouterr().err == wanted
    assert read_arguments(find_pipeline("prepare_data"), [], file) == {**TASK, "customer_data_percent": 75.0}
    assert "the earlier run says" not in capsys.readouterr().err
    read_arguments(find_pipeline("evaluate_only"), ["model_uri=t"], "", {**TASK, "customer_epochs": 2.0})
    assert "what the earlier run says for other pipelines: customer_epochs\n" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="mix_grid has no parameter 'customer_data_percent'"):
        read_arguments(find_pipeline("mix_grid"), ["customer_data_percent=75"], file)


def test_a_slip_in_a_file_of_arguments_is_refused_though_another_pipeline_knows_the_name(tmp_path: Path) -> None:
    other = write_json(tmp_path / "a.json", {**TASK, "customer_data_percents": 75})
    with pytest.raises(ConfigError, match=r"'customer_data_percents'; did you mean 'customer_data_percent'\?"):
        read_arguments(find_pipeline("finetune"), [], other)
    nobodys = write_json(tmp_path / "b.json", {**TASK, "metod": "lora"})
    with pytest.raises(ConfigError, match=r"finetune has no parameter 'metod'; did you mean 'method'\?"):
        read_arguments(find_pipeline("finetune"), [], nobodys)


def test_restore_takes_no_mix_and_no_length_of_a_trainings_file(tmp_path: Path) -> None:
    trained = {**TASK, "customer_data_percent": 75, "max_steps": 500}
    file = write_json(tmp_path / "f.json", trained)
    restore = find_pipeline("restore")
    assert read_arguments(restore, ["model_uri=t"], file) == {**TASK, "model_uri": "t"}
    assert read_arguments(restore, ["model_uri=t"], "", trained) == {**TASK, "model_uri": "t"}, "as --like"
    own = write_json(tmp_path / "restore.json", {**trained, "model_uri": "t"})
    assert read_arguments(restore, [], own)["max_steps"] == 500
    assert read_arguments(find_pipeline("finetune"), [], own) == TASK


def test_a_file_of_arguments_without_its_option_is_understood(pipeline: Path) -> None:
    with pytest.raises(ConfigError, match=r"a file of them is given as --arguments finetune\.json"):
        read_arguments(pipeline, ["finetune.json"])


def test_where_something_is_written_need_not_be_there(tmp_path: Path) -> None:
    check_places({"out_uri": str(tmp_path / "rehearsed")})
    with pytest.raises(ConfigError, match="prompts_uri"):
        check_places({"out_uri": str(tmp_path / "rehearsed"), "prompts_uri": str(tmp_path / "prompts")})


def test_what_is_listed_ends_with_a_whole_clause(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 30 and max(map(len, lines)) <= 110
    assert [line for line in lines if line.endswith("...")] == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "run judge url=http://127.0.0.1:9 model=m",
            "judge takes what other steps made (base, candidate); call it in a",
        ),
        ("export run-that-is-not --format openai --out e", "run-that-is-not: no run in mixtune-work and no file"),
        ("export odd.json --format openai --out e", "a pools file is needed, this is none that a step wrote"),
        ("chat . --max-new-tokens 0", "--max-new-tokens 0: an answer has 1 token or more"),
    ],
)
def test_a_command_says_what_it_cannot_take_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.json").write_text("[1]")
    assert main(command.split()) in (1, 2)
    assert message in capsys.readouterr().err
