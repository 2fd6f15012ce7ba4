from pathlib import Path

import pytest

from mixtune.artifacts.model import ModelManifest
from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import ConfigError, DataError
from mixtune.preflight.fingerprint import (
    fingerprint_benchmarks,
    fingerprint_model,
    fingerprint_options,
    fingerprint_pools,
    fingerprint_sanitize,
    fingerprint_trained,
    hand_on_chat,
    read_pools,
)
from mixtune.settings.chat import ChatSettings

CHAT = {"category": "chat", "uri": "chat.jsonl", "weight": 60.0}
MATH = {"category": "math", "uri": "math.jsonl", "weight": 40.0}


def test_sources_carry_digests_and_weights_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("customer.csv", "test.csv", "chat.jsonl", "math.jsonl"):
        (tmp_path / name).write_text(name)
    customer, general, weights = fingerprint_pools("customer.csv", {"prompt": "text"}, "test.csv", [CHAT, MATH])
    assert [(item["name"], item["split"]) for item in customer] == [("customer", "train"), ("customer", "test")]
    assert str(customer[0]["uri"]).startswith(str(tmp_path / "customer.csv") + "#")
    assert [item["name"] for item in general] == ["chat", "math"]
    assert all("weight" not in item for item in general)
    assert weights == {"chat": 60.0, "math": 40.0}
    (tmp_path / "chat.jsonl").write_text("changed")
    again = fingerprint_pools("customer.csv", {"prompt": "text"}, "test.csv", [CHAT, MATH])
    assert again[0] == customer
    assert again[1][0] != general[0]
    assert again[1][1] == general[1]


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ([], "at least one is needed, also at 100 % customer"),
        ([CHAT], "the weights sum to 60; they are percents of the general share, sum 100"),
        ([CHAT, {**CHAT, "weight": 40}], "category 'chat' names two pools"),
        ([{**CHAT, "category": "customer", "weight": 100}], "category 'customer' names two pools"),
        ([{"category": "chat", "weight": 100}], "entry 1: 'uri' is missing"),
        ([CHAT, {"category": "math", "uri": "math.jsonl"}], "entry 2: 'weight' is missing"),
        ([{**CHAT, "wieght": 1}], "entry 1: unknown key 'wieght'"),
        ([{**CHAT, "weight": -1}, {**MATH, "weight": 101}], "weight of 'chat' is -1"),
    ],
)
def test_badly_described_pools_are_refused_by_name(pools: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_pools(pools)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv: no such file or folder"):
        fingerprint_pools(str(tmp_path / "nothing.csv"), {}, "", [{**CHAT, "weight": 100.0}])
    with pytest.raises(ConfigError, match="base_model is missing"):
        fingerprint_model("")
    assert fingerprint_model("org/name@3f2a1b") == "org/name@3f2a1b"


def test_limits_leave_apart_from_benchmarks_so_that_a_new_limit_measures_nothing_again(tmp_path: Path) -> None:
    (tmp_path / "mmlu.jsonl").write_text("{}")
    given = {
        "mmlu": {"uri": str(tmp_path / "mmlu.jsonl"), "num_fewshot": 0, "max_drop": 0.05},
        "general_nll": {"max_drop": 0.1},
    }
    benchmarks, limits = fingerprint_benchmarks(given)
    assert list(benchmarks) == ["mmlu"]
    assert benchmarks["mmlu"]["num_fewshot"] == 0
    assert str(benchmarks["mmlu"]["uri"]).startswith(str(tmp_path / "mmlu.jsonl") + "#")
    assert limits == {"mmlu": 0.05, "general_nll": 0.1}
    assert str(fingerprint_benchmarks({"ifeval": str(tmp_path / "mmlu.jsonl")})[0]["ifeval"]).count("#") == 1
    with pytest.raises(ConfigError, match="'mmlu' is a URI or an object"):
        fingerprint_benchmarks({"mmlu": 5})


def test_pools_without_weights_are_for_a_mix_by_temperature(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text("{}")
    uri = str(tmp_path / "chat.jsonl")
    assert fingerprint_pools(uri, {}, "", [{"category": "chat", "uri": uri}])[2] == {}


def test_a_chat_templates_file_gets_its_digest_so_that_changed_bytes_are_seen(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}")
    options = fingerprint_options({"chat_template_uri": str(template), "unit": "tokens"})
    assert options["unit"] == "tokens"
    assert str(options["chat_template_uri"]).startswith(f"{template}#")
    template.write_text("{{ messages[0] }}")
    assert fingerprint_options({"chat_template_uri": str(template)}) != options
    assert fingerprint_options({"unit": "tokens"}) == {"unit": "tokens"}


def test_a_changed_list_of_those_who_consented_is_seen_and_the_hold_out_is_the_users(tmp_path: Path) -> None:
    who = tmp_path / "who.txt"
    who.write_text("ann\nben\n")
    asked = {"consent": {"list_uri": str(who), "required": True}, "splits": {"test_ratio": 0.2}}
    options = fingerprint_sanitize(asked)
    assert options["consent"]["required"] and options["consent"]["list_uri"].startswith(f"{who}#")
    assert options["splits"] == {"holdout_records": 200, "test_ratio": 0.2}
    who.write_text("ann\n")
    assert fingerprint_sanitize(asked)["consent"] != options["consent"], "ben has withdrawn"
    assert fingerprint_sanitize({"splits": {"holdout_records": 50}})["splits"] == {"holdout_records": 50}


def test_a_gain_can_be_asked_for_on_the_customers_own_records() -> None:
    assert fingerprint_benchmarks({"customer": {"min_gain": 0.05}}) == ({}, {"customer": 0.05})
    for wrong in ({}, {"min_gain": -1}, {"min_gain": 5}, {"min_gain": True}, {"min_gain": 0.1, "uri": "x"}):
        with pytest.raises(ConfigError, match="takes min_gain alone, 0 to 1"):
            fingerprint_benchmarks({"customer": wrong})


def test_sanitize_and_evaluate_render_as_the_mix_does_or_as_the_model_was_trained(tmp_path: Path) -> None:
    mix = {"thinking": "off", "on_lost": {"system": "keep"}, "global_batch_size": 8}
    chat = {"thinking": "off", "on_lost": {"system": "keep"}}
    assert hand_on_chat(mix, {"limit": 5}) == {"limit": 5, "chat": chat}
    assert hand_on_chat(mix, {"chat": {"thinking": "on"}}) == {"chat": {**chat, "thinking": "on"}}
    assert hand_on_chat({"global_batch_size": 8}, {"limit": 5}) == {"limit": 5}
    manifest = ModelManifest(chat=ChatSettings(thinking="on"), data_uri=str(tmp_path / "data" / "model"))
    write_artifact(str(tmp_path / "model"), manifest)
    trained = fingerprint_options({"on_lost": {"system": "keep"}}, f"{tmp_path}/data/model")
    assert trained == {"thinking": "on", "on_lost": {"system": "keep"}}
    assert hand_on_chat(trained, {})["chat"] == trained
    assert fingerprint_options({"thinking": "off"}, f"{tmp_path}/data/model")["thinking"] == "off"
    assert fingerprint_options({}, str(tmp_path)) == fingerprint_options({}, "failed: loss nan") == {}


def test_a_trained_model_leaves_with_the_digest_of_what_is_there_now(tmp_path: Path) -> None:
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_text("first")
    first = fingerprint_trained(str(tmp_path))
    assert first.startswith(f"{tmp_path}#")
    assert fingerprint_trained(first) == first, "an output of `train` has its digest already"
    weights.write_text("second")
    assert fingerprint_trained(str(tmp_path)) != first
    with pytest.raises(DataError, match="changed since"):
        fingerprint_trained(first)
    assert fingerprint_trained("") == ""
