import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mixtune.artifacts.shards import MixReceipt, PoolReceipt, ShardsManifest
from mixtune.artifacts.typed_json import write_artifact
from mixtune.cli import main
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError
from mixtune.preflight.shape import Shape
from mixtune.prices import OWN_TABLE, read_prices
from mixtune.training_math import operations_per_token, reachable_share

from ..trainings import write_model_manifest

LLAMA_8B = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
    "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False,
}  # fmt: skip
START = ["--start", "2026-08-01T09:00"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA_8B))
    return str(tmp_path / "model")


def words(model: str, *more: str) -> list[str]:
    return ["plan", "finetune", "customer_uri=c.csv", "general_pools=[]", f"base_model={model}", *more]


def planned(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0) -> dict:
    assert main([*words, "--json"]) == code
    out = capsys.readouterr().out
    return dict(json.loads(out[out.index("{") :]))


def test_the_articles_pilot_costs_what_the_price_table_says(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    pilot = words(model, "--nodes", "4", "--customer-records", "15372", "--tokens-per-record", "900", *START)
    plan = planned(capsys, pilot)
    assert plan["usd_per_hour"] == pytest.approx(4 * 55.04 + 55.04) == pytest.approx(275.20)
    assert plan["prices"] == "AWS Price List, on demand, us-east-1, 2026-07-20"
    validation, training, evaluation = plan["stages"]
    assert (validation["name"], validation["instance"]) == ("validation run, 5 steps", "g6e.xlarge")
    assert (training["instances"], training["instance"]) == (4, "p5.48xlarge")
    assert (evaluation["instances"], evaluation["basis"]) == (1, "assumed; --evaluation-hours says otherwise")
    tokens = 961 * 32 * 900  # ceil(15,372 / 16) steps
    shape = Shape.from_config(LLAMA_8B)
    share = reachable_share("lora", shape.active, shape.attention, 900)
    rate = share * 989e12 / operations_per_token("lora", shape.active, shape.attention, 900)
    assert training["hours"] == pytest.approx(0.25 + tokens / (rate * 32) / 3600)
    assert training["basis"].startswith(f"assumed: {share:.0%} of 989 TFLOPS")
    assert plan["usd"] == pytest.approx(sum(stage["usd"] for stage in plan["stages"]))


def test_a_plan_counts_the_nodes_and_the_gpus_that_train(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    def hours(*more: str) -> float:
        stage = planned(capsys, words(model, "max_steps=1000", *more, *START))["stages"][1]
        return float(stage["hours"] - 0.25) * stage["instances"]

    assert hours("gpus_per_node=2") == pytest.approx(4 * hours()) == pytest.approx(4 * hours("gpus_per_node=8"))
    assert hours("num_nodes=2", "gpus_per_node=4", "--nodes", "4") == pytest.approx(2 * hours())
    assert main(words(model, "max_steps=1", "gpus_per_node=16")) == 2
    assert "gpus_per_node is 16; p5.48xlarge has 8; fewer, or another --instance" in capsys.readouterr().err
    assert planned(capsys, words(model, "max_steps=1", "num_nodes=2", "--nodes", "4"))["stages"][1]["instances"] == 4


def test_measured_throughput_wins_and_the_plan_says_so(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model_manifest(str(tmp_path / "validation"), tokens_per_second_per_gpu=5000.0, peak_memory_bytes=95e9)
    plan = planned(
        capsys,
        words(
            model, "max_steps=100", "--measured", str(tmp_path / "validation"), "--tokens-per-record", "1000", *START
        ),
        code=1,
    )
    assert plan["stages"][1]["basis"] == "measured: 5,000 tokens/s per GPU"
    assert plan["stages"][1]["hours"] == pytest.approx(0.25 + 100 * 32 * 1000 / (5000 * 8) / 3600)
    assert plan["memory"] == "measured: 95.0 GB per GPU"
    assert not plan["fits"]
    assert "needs 95 GB" in " ".join(plan["warnings"])


def test_shards_give_exact_steps_and_tokens(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = PoolReceipt(name="customer", pool_records=300)
    receipt = MixReceipt(num_steps=20, num_tokens=640_000, global_batch_size=32, pools=(pool,))
    manifest = ShardsManifest(num_steps=20, pools=("customer",), shards=(), receipt=receipt)
    write_artifact(str(tmp_path / "shards"), manifest)
    plan = planned(capsys, words(model, "--shards", str(tmp_path / "shards"), "--grid", "100,75,50", *START))
    assert plan["stages"][1]["name"] == "training, 20 steps"
    assert [(point["customer_data_percent"], point["steps"]) for point in plan["grid"]] == [
        (100, 10),
        (75, 13),
        (50, 19),
    ]
    assert plan["grid"][0]["usd"] < plan["grid"][2]["usd"]


def test_a_grid_costs_all_its_trainings_and_an_evaluation_of_each(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(words(model, "max_steps=10", "--customer-records", "300", "--grid", "100,50", "--evaluation-hours", "2"))
        == 0
    )
    text = capsys.readouterr().out
    hours = {name: float(line.split(" h, $")[0].split()[-1]) for line in text.splitlines() if " h, $" in line
             for name in [line.split(":")[0]]}  # fmt: skip
    trainings = hours["at 100 % customer"] + hours["at 50 % customer"]
    assert hours["all of it, with 3 evaluations"] == pytest.approx(
        hours["validation run, 5 steps"] + trainings + 3, abs=0.02
    )
    assert "total of one mix: " in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--block-ends", "2026-08-01T09:10"],
            "hours before the training is done (45 minutes before the block ends)",
        ),
        (["--deadline", "2026-08-01T09:30+00:00"], "after the deadline"),
        (["method=sft", "--instance", "g5.12xlarge"], "does not fit: needs"),
    ],
)
def test_what_does_not_end_in_time_or_does_not_fit_is_warned_of_and_fails(
    model: str, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(model, "max_steps=1000", *more, *START)) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING: ")]
    assert said in line


def test_old_prices_are_warned_of_and_a_table_of_ones_own_is_taken(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(model, "max_steps=9", "--start", "2027-08-01T09:00")) == 0
    assert "WARNING: the prices are 377 days old" in capsys.readouterr().out
    own = tmp_path / "own.toml"
    own.write_text(OWN_TABLE.read_text().replace("55.04", "31.5"))
    plan = planned(capsys, words(model, "max_steps=9", "--prices", str(own), *START))
    assert plan["usd_per_hour"] == 63.0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--instance", "p9.huge", "max_steps=1"], "no price of 'p9.huge'; there are g6e.xlarge"),
        ([], "steps are not known: give --customer-records N or max_steps=N; JSONL"),
        (["max_steps=1", "--deadline", "soon"], "'soon' is no time"),
        (["max_steps=1", "--grid", "a"], "--grid a: percents"),
        (["max_steps=1", "--mfu", "40"], "mfu is a share of the peak"),
        (["max_steps=1", "--evaluation-hours", "-1"], "evaluation_hours is 0 to 100,000; got -1"),
        (["max_steps=1", "--evaluation-hours", "1e300"], "evaluation_hours is 0 to 100,000; got 1e+300"),
        (["--customer-records", "-5"], "customer_records is 1 to 1,000,000,000, or left out: then they are counted"),
        (["--customer-records", "9" * 20], "then they are counted; got 999"),
        (["max_steps=99999999999999"], "the run would end after the year 9999"),
        (["max_steps=1", "num_nodes=two"], "num_nodes is empty or a whole number as text; got 'two'"),
        (["max_steps=1", "--evaluation-hours", "nan"], "evaluation_hours is 0 to 100,000; got nan"),
        (["max_steps=1", "--tokens-per-record", "inf"], "tokens_per_record is above 0; got inf"),
        (["max_steps=1", "--prices=~/nowhere.toml"], f"--prices {Path.home()}/nowhere.toml: not a price table"),
        (["max_steps=1", "--prices", "nowhere.toml"], "--prices nowhere.toml: not a price table"),
    ],
)
def test_a_plan_that_cannot_be_made_says_why(
    model: str, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(model, *more)) == 2
    assert said in capsys.readouterr().err


def test_steps_come_from_the_customers_lines_where_nothing_else_says_them(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.csv").write_text("text,label\n" + "Hello,greeting\n" * 6_399)
    assert main([*words(model), "customer_data_percent=50", "--json", *START]) == 0
    shown = capsys.readouterr()
    assert "about 6,400 customer records" in shown.err
    counted = main([*words(model), "--customer-records", "6400", "customer_data_percent=50", "--json", *START])
    assert (counted, capsys.readouterr().out) == (0, shown.out)


def test_the_page_has_every_stage_and_needs_no_network(model: str, tmp_path: Path) -> None:
    assert main(words(model, "max_steps=9", "--html", str(tmp_path / "plan.html"), *START)) == 0
    page = (tmp_path / "plan.html").read_text()
    assert "validation run, 5 steps" in page and "http" not in page and "<script" not in page


def test_a_bad_price_table_is_refused_by_name(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN_TABLE.read_text().replace("usd_per_hour = 55.04", "usd_per_hour = 0"))
    with pytest.raises(ConfigError, match=r"usd_per_hour of p5\.48xlarge is above 0; got 0"):
        read_prices(str(own))
    assert read_prices().warning(date(2026, 11, 25)) == ""
    assert datetime.now(UTC).date() >= read_prices().date


def test_parameters_are_counted_as_the_model_has_them() -> None:
    assert Shape.from_config(LLAMA_8B).parameters == 8_030_261_248  # Llama 3 8B
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(BASE_MODEL))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    counted = Shape.from_config(json.loads((BASE_MODEL / "config.json").read_text())).parameters
    assert counted == sum(item.numel() for item in model.parameters())


def test_a_search_is_planned_at_the_most_that_it_may_take(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["plan", "find_mix", "customer_uri=c.csv", "general_pools=[]", f"base_model={model}", *START]
    search += ["--customer-records", "3200"]
    plan = planned(capsys, search)
    assert plan["stages"][1]["name"] == "training, 600 steps"
    assert main([*search, 'find_options={"max_cost": 4}']) == 0
    text = capsys.readouterr().out
    assert "training, 400 steps" in text
    assert "at most the steps of 4 trainings on customer records alone" in text and "4 short ones 0.96 of them" in text


def test_a_plan_needs_no_pools_or_records_where_the_steps_are_given(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(capsys, ["plan", "finetune", f"base_model={model}", "max_steps=100"])
    assert plan["stages"][1]["name"] == "training, 100 steps"
