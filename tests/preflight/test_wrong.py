"""Ways to get a run wrong, each with the line that preflight prints: a real S3 server that enforces IAM, a cluster's API."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from mixtune import storage
from mixtune.cli import main
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.preflight.cluster_checks import check_cluster
from mixtune.settings.job import NodeSettings

from ..http_server import Answers, LocalServer, write_kubeconfig

BUCKET = "team-data"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/raw/*"},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": f"arn:aws:s3:::{BUCKET}/kfp/*"},
    ],
}  # fmt: skip
SERVER = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(900)
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, str, str]]:
    """URL of a server that enforces IAM, and the keys of a user who may read raw/ and write kfp/."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    session = boto3.Session(aws_access_key_id="admin", aws_secret_access_key="secret", region_name="us-east-1")
    client, iam = session.client("s3", endpoint_url=url), session.client("iam", endpoint_url=url)
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="raw/customer.jsonl", Body=b'{"prompt": "a", "completion": "b"}\n')
    client.put_object(Bucket=BUCKET, Key="raw/empty.jsonl", Body=b"")
    client.put_object(Bucket=BUCKET, Key="other/secret.jsonl", Body=b"{}\n")
    client.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    client.put_object(Bucket="far-away", Key="raw/customer.jsonl", Body=b"{}\n")
    iam.create_user(UserName="pod")
    everywhere = json.loads(json.dumps(POLICY))
    everywhere["Statement"].append(
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::far-away", "arn:aws:s3:::far-away/*"]}
    )
    iam.put_user_policy(UserName="pod", PolicyName="pod", PolicyDocument=json.dumps(everywhere))
    key = iam.create_access_key(UserName="pod")["AccessKey"]
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(request, timeout=10).read()
    storage.s3_client.cache_clear()
    yield url, key["AccessKeyId"], key["SecretAccessKey"]
    storage.s3_client.cache_clear()
    process.kill()
    process.wait()


class Cluster(LocalServer):
    """The Kubernetes API as preflight uses it: discovery, three kinds of objects, access reviews."""

    def __init__(self) -> None:
        super().__init__(Api)
        self.objects = {
            "/apis/trainer.kubeflow.org", "/apis/kueue.x-k8s.io",
            "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/mixtune-torch-p5",
            "/apis/kueue.x-k8s.io/v1beta2/namespaces/team/localqueues/mixtune",
            "/api/v1/namespaces/team/serviceaccounts/mixtune-trainer",
        }  # fmt: skip
        self.forbidden: set[str] = set()
        self.settings = {"queue": "mixtune"}
        self.rights = {
            ("create", "trainjobs"),
            ("get", "trainjobs"),
            ("delete", "trainjobs"),
            ("list", "pods"),
            ("get", "pods/log"),
        }
        self.reviews: list[dict[str, Any]] = []


class Api(Answers):
    server: Cluster

    def do_GET(self) -> None:
        if self.path in self.server.forbidden:
            self.answer(403, {"kind": "Status"})
        elif self.path.endswith("/configmaps/mixtune-jobs"):
            self.answer(200, {"data": self.server.settings})
        elif self.path in self.server.objects:
            self.answer(200, {"preferredVersion": {"version": "v1beta2"}})
        else:
            self.answer(404, {"kind": "Status"})

    def do_POST(self) -> None:
        review = self.body()
        self.server.reviews.append(review)
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (asked["resource"], asked["subresource"]) if part)
        self.answer(201, {**review, "status": {"allowed": (asked["verb"], resource) in self.server.rights}})


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    server = Cluster()
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", server.url)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    with server.running():
        yield server


@pytest.fixture
def run(
    s3: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Preflight of a good run with something changed: exit code and what was printed."""
    url, key, secret = s3
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_", "MIXTUNE_"))]:
        monkeypatch.delenv(name)
    values = {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
    }
    for name, value in {**values, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(BASE_MODEL, tmp_path / "model")
    (tmp_path / "mmlu.jsonl").write_text(
        '{"question": "q", "choices": ["a", "b"], "answer": "A"}\n'
        '{"question": "r", "choices": ["a", "b"], "answer": "B"}\n'
    )
    (tmp_path / "ifeval.jsonl").write_text(
        '{"key": 1, "prompt": "q", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}\n'
    )
    (tmp_path / "chat.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    good = {
        "customer_uri": f"s3://{BUCKET}/raw/customer.jsonl",
        "general_pools": [{"category": "chat", "uri": "chat.jsonl", "weight": 100}],
        "base_model": "model",
        "customer_data_percent": 75.0,
        "mix_options": {"max_length": 512},
        "tracking": {"hyperpod": "4x-p5.48xlarge"},
    }

    def preflight(change: dict[str, Any], *options: str) -> tuple[int, str]:
        (tmp_path / "run.json").write_text(json.dumps({**good, **change}))
        options = options or ("--pipeline-root", f"s3://{BUCKET}/kfp")
        code = main(["preflight", "finetune", "--arguments", "run.json", "--namespace", "team", *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    return preflight


def test_a_run_that_is_well_passes_every_check(run: Any, cluster: Cluster, tmp_path: Path) -> None:
    code, said = run({"num_nodes": "4", "gpus_per_node": "8"})
    assert code == 0, said
    assert "fail  " not in said
    assert (
        "pass  cluster: namespace team: trainjobs, runtime mixtune-torch-p5, queue mixtune, service account and rights"
        in said
    )
    assert f"pass  artifacts: s3://{BUCKET}/kfp can be written" in said or f"warn  artifacts: s3://{BUCKET}/kfp" in said
    page = (tmp_path / "mixtune-work" / "preflight.html").read_text()
    assert "Reproducibility" in page and '>seed</td><td class="text">42<' in page and "data: customer" in page
    assert {review["spec"]["resourceAttributes"]["namespace"] for review in cluster.reviews} == {"team"}


POOL = {"category": "chat", "uri": "chat.jsonl", "weight": 100}
BIG = {
    "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672, "vocab_size": 128256,
    "num_attention_heads": 64, "num_key_value_heads": 8, "tie_word_embeddings": False, "max_position_embeddings": 131072,
}  # fmt: skip
ENDED: dict[str, tuple[dict[str, Any], str]] = {
    "a bucket that is not there": (
        {"customer_uri": "s3://no-such-bucket/x.jsonl"},
        "s3://no-such-bucket/x.jsonl: AccessDenied: no right",
    ),
    "a bucket without a key": ({"customer_uri": "s3://team-data"}, "not a whole S3 address; write s3://bucket/key"),
    "an object that is not there": (
        {"customer_uri": f"s3://{BUCKET}/raw/none.jsonl"},
        "none.jsonl: no such file or folder",
    ),
    "a prefix that the role may not read": (
        {"customer_uri": f"s3://{BUCKET}/other/secret.jsonl"},
        "no right to do this; the role's policy (policies/iam) and the key's",
    ),
    "a local file that is not there": (
        {"customer_uri": "tickets.csv"},
        "customer_uri 'tickets.csv': no such file or folder",
    ),
    "no general pool": ({"general_pools": []}, "general_pools is empty; at least one is needed"),
    "weights that do not sum to 100": (
        {"general_pools": [{**POOL, "weight": 60}]},
        "the weights sum to 60; they are percents",
    ),
    "a pool named twice": (
        {"general_pools": [{**POOL, "weight": 50}, {**POOL, "weight": 50}]},
        "category 'chat' names two pools",
    ),
    "a misspelt key of a pool": ({"general_pools": [{**POOL, "wight": 1}]}, "unknown key 'wight'"),
    "a benchmark without a URI": ({"benchmarks": {"mmlu": 5}}, "'mmlu' is a URI or an object with one"),
    "a limit in words": (
        {"benchmarks": {"mmlu": {"uri": "mmlu.jsonl", "max_drop": "1 %"}}},
        "max_drop is a number from 0",
    ),
    "a shell's variable that is not set": ({"customer_uri": ""}, "customer_uri is empty; give a file, a folder or a"),
    "a pool without a place": (
        {"general_pools": [{"category": "chat", "uri": "", "weight": 100}]},
        "general_pools: uri of 'chat' is empty; give a file, a folder or a pattern",
    ),
    "CPUs in words": ({"data_cpu": "many"}, "data_cpu is a number of CPUs as Kubernetes writes it, such as 2 or 500m"),
    "a percentage of 120": (
        {"customer_data_percent": 120.0},
        "customer_data_percent is 0 to 100; got 120",
    ),
    "a model that is not there": (
        {"base_model": "nothing"},
        "base_model 'nothing': no such folder here; of the hub write org/name@revision",
    ),
    "a model's file in place of its folder": (
        {"base_model": f"{BASE_MODEL}/config.json"},
        "config.json': a file; give the folder that it lies in",
    ),
    "a hub name without its revision": (
        {"base_model": "org/name"},
        "base_model 'org/name': no such folder here; of the hub write org/name@revision, such as org/name@main",
    ),
    "a limit in percent": (
        {"benchmarks": {"mmlu": {"uri": "mmlu.jsonl", "max_drop": 2}}},
        "benchmarks: 'mmlu': max_drop is a share, so that 0.02 is 2 %; got 2",
    ),
    "a gain in percent": (
        {"benchmarks": {"customer": {"min_gain": 5}}},
        "'customer' stands for your own records and takes min_gain alone, 0 to 1; got {'min_gain': 5}",
    ),
    "a misspelt key of storage": ({"storage": {"kms": "x"}}, "storage: unknown option 'kms'"),
}
"""What ends preflight before its checks."""
TOGETHER: list[dict[str, tuple[dict[str, Any], str]]] = [
    {
        "a misspelt option of a benchmark": (
            {"benchmarks": {"mmlu": {"uri": "mmlu.jsonl", "num_fewshoot": 0}}},
            "fail  benchmarks: benchmark 'mmlu': unknown key 'num_fewshoot'; did you mean 'num_fewshot'?",
        ),
        "0 % customer without max_steps": (
            {"customer_data_percent": 0.0},
            "fail  mix: mix_shard: customer_data_percent is 0, so customer_epochs gives no length; set max_steps",
        ),
        "an unknown method": ({"method": "qlora"}, "fail  training: train: method is one of lora, sft; got 'qlora'"),
        "a misspelt key of tracking": ({"tracking": {"url": "x"}}, "fail  tags: tracking: unknown key 'url'"),
        "a number of nodes in words": (
            {"num_nodes": "four"},
            "fail  cluster: num_nodes is empty or a whole number as text; got 'four'",
        ),
        "a second seed": (
            {"sanitize_options": {"seed": 7}},
            "fail  options: sanitize_options: seed is a parameter of its own",
        ),
        "an amount of memory in words": (
            {"data_memory": "much"},
            "data_memory is an amount as Kubernetes writes it, such as 4G or 500Mi",
        ),
    },
    {
        "more solved items than there are": (
            {"benchmarks": {"mmlu": "mmlu.jsonl"}},
            "fail  benchmarks: benchmarks.mmlu: MMLU subject 'all': 0 items in the dev split, num_fewshot is 5",
        ),
        "no epochs": (
            {"customer_epochs": 0.0},
            "fail  mix: mix_shard: customer_epochs is more than 0, or set max_steps; got 0",
        ),
        "a learning rate of 0": ({"learning_rate": 0.0}, "fail  training: train: learning_rate is above 0; got 0"),
        "tested on what is trained": (
            {"test_uri": f"s3://{BUCKET}/raw/customer.jsonl"},
            f"raw/customer.jsonl holds what s3://{BUCKET}/raw/customer.jsonl does: no record would be left to train on",
        ),
        "an MLflow that does not answer": (
            {"tracking": {"uri": "mlflow-nowhere:///x"}},
            "fail  tracking: MLflow at mlflow-nowhere:///x does not answer",
        ),
        "pseudonyms without a key": (
            {"sanitize_options": {"personal_data": {"email": "pseudonym"}}},
            "fail  rules: personal_data: pseudonyms need a key; mount a secret as /etc/mixtune/pseudonym-key",
        ),
        "thoughts of a model that has no switch for them": (
            {"evaluate_options": {"thinking": "both"}},
            "fail  evaluation: thinking is both, but the chat template of ",
        ),
    },
    {
        "a benchmark of another layout": (
            {"benchmarks": {"math": "mmlu.jsonl"}},
            "mmlu.jsonl row 1: it has choices, which would not be asked; take form multiple_choice or mmlu",
        ),
        "an empty batch": (
            {"mix_options": {"global_batch_size": 0}},
            "fail  mix: mix_shard: global_batch_size counts records, 1 or more; got 0",
        ),
        "a misspelt option of the training": (
            {"train_options": {"memory": {"shard_bas": True}}},
            "fail  training: train: memory: unknown key 'shard_bas'; did you mean 'shard_base'?",
        ),
        "a country that no telephone is of": (
            {"sanitize_options": {"text": {"phone_region": "ZZ"}}},
            "fail  rules: phone_region: no country 'ZZ' has a numbering plan; it is such as DE or GB",
        ),
    },
    {
        "a bucket in another region": (
            {"customer_uri": "s3://far-away/raw/customer.jsonl"},
            "bucket far-away is in eu-west-1, the run in us-east-1",
        ),
        "a limit of a benchmark without a file": (
            {"benchmarks": {"mmlu": {"max_drop": 0.01}}},
            "fail  axes: benchmarks.mmlu has no uri, so nothing would be measured; give its file or folder",
        ),
        "a misspelt option of the mix": (
            {"mix_options": {"max_lenght": 512}},
            "fail  mix: options: unknown key 'max_lenght'; did you mean 'max_length'?",
        ),
        "an adapter on a layer that is not there": (
            {"train_options": {"lora_options": {"target_modules": ["q_proj", "c_proj"]}}},
            "fail  adapter: lora_options: target_modules: nothing is named 'c_proj'; the adapter works on q_proj",
        ),
        "vLLM where it is not installed": (
            {"evaluate_options": {"engine": "vllm"}},
            "fail  evaluation: engine vllm: it is not installed here; use an image that has vLLM, or engine transformers",
        ),
    },
    {
        "nothing that tells of forgetting": (
            {"sanitize_options": {"splits": {"holdout_records": 0}}},
            "fail  axes: sanitize_options.splits.holdout_records is 0, so general_nll has no items, and no benchmark is",
        ),
        "stages that take more steps than there are": (
            {"mix_options": {"stages": [{"steps": 50}]}, "max_steps": 40},
            "fail  mix: mix_shard: stages take 50 steps, and max_steps is 40: raise it, or shorten them",
        ),
        "a rank of a layer without an adapter": (
            {"train_options": {"lora_options": {"rank_pattern": {"lm_head": 4}}}},
            "fail  adapter: lora_options: rank_pattern: nothing is named 'lm_head'; the adapter works on down_proj,",
        ),
        "a served model in the place of both": (
            {"evaluate_options": {"engine": "endpoint", "endpoint": {"url": "http://served/v1", "model": "m"}}},
            "fail  evaluation: engine endpoint asks one served model, whichever is evaluated",
        ),
    },
    {
        "nothing tracked": (
            {"tracking": {}, "num_nodes": "4"},
            "warn  tracking: no MLflow tracking URI: nothing will be tracked",
        ),
        "a gain that no record would show": (
            {"benchmarks": {"customer": {"min_gain": 0.1}}, "sanitize_options": {"splits": {"test_ratio": 0}}},
            "fail  axes: customer asks for a gain, but splits.test_ratio is 0 and there is no test_uri to show one",
        ),
        "an odd rank of an orthogonal adapter": (
            {"train_options": {"lora_rank": 15, "lora_options": {"init_lora_weights": "orthogonal"}}},
            "fail  adapter: lora_options: Orthogonal initialization requires the LoRA rank to be even, got 15 instead.",
        ),
    },
    {
        "an empty file": ({"customer_uri": f"s3://{BUCKET}/raw/empty.jsonl"}, "empty.jsonl is empty (0 bytes)"),
        "a limit of items of no axis": (
            {
                "benchmarks": {"mmlu": {"uri": "mmlu.jsonl", "num_fewshot": 0}},
                "evaluate_options": {"axis_limits": {"mmul": 5}},
            },
            "fail  axes: axis_limits: no axis 'mmul'; did you mean 'mmlu'?",
        ),
    },
    {
        "a limit on forgetting that nothing would show": (
            {
                "benchmarks": {"mmlu": {"uri": "mmlu.jsonl", "num_fewshot": 0}},
                "sanitize_options": {"splits": {"holdout_records": 0}},
                "train_options": {"guards": {"max_nll_rise": 0.1}},
            },
            "fail  training: max_nll_rise needs held-out general records, and sanitize_options.splits.holdout_records is 0",
        ),
        "more GPUs for a model than a task has": (
            {"evaluate_options": {"gpus_per_model": 16}, "num_nodes": "1", "gpus_per_node": "8"},
            "fail  options: evaluate_options: gpus_per_model is 16; gpus_per_node is 8",
        ),
    },
    {
        "an adapter that vLLM does not take": (
            {"evaluate_options": {"engine": "vllm"}, "train_options": {"lora_options": {"use_dora": True}}},
            "engine vllm takes plain LoRA, and it is a DoRA adapter; train with lora_options.merge, and the merged weights",
        ),
        "answers as long as the model": (
            {"benchmarks": {"ifeval": {"uri": "ifeval.jsonl", "max_new_tokens": 512}}},
            "fail  benchmarks: benchmarks.ifeval: max_new_tokens is 512 of the 512 tokens that the model takes in all",
        ),
    },
    {
        "a rank that vLLM does not take": (
            {
                "evaluate_options": {"engine": "vllm"},
                "train_options": {"lora_rank": 300, "lora_options": {"init_lora_weights": "pissa"}},
            },
            "engine vllm takes plain LoRA, and its rank is 600, the largest is 512; train with lora_options.merge",
        ),
    },
    {
        "a benchmark of too few items to tell": (
            {"benchmarks": {"mmlu": {"uri": "mmlu.jsonl", "num_fewshot": 0}}},
            "warn  benchmarks: mmlu: 2 items and max_drop=0.02: a model that lost nothing passes in about 6 % of runs; give",
        ),
        "nothing mixed in": ({"customer_data_percent": 100.0}, "warn  mix: 100 % customer: nothing is mixed in"),
        "less memory than sanitize needs": (
            {"data_memory": "1k"},
            "warn  data: about 2 records: to find duplicates sanitize needs 0 GB, its tasks reserve 1k",
        ),
        "a learning rate too low for LoRA": (
            {"learning_rate": 1e-7},
            "warn  training: an adapter hardly learns at 6.4e-06 (learning_rate times lora_plus_ratio)",
        ),
        "records longer than the model takes": (
            {"mix_options": {"max_length": 65536}},
            "warn  lengths: max_length 65536 is more than the",
        ),
    },
    {
        "a gain that too few records would show": (
            {"benchmarks": {"customer": {"min_gain": 0.05}}, "test_uri": "chat.jsonl"},
            "warn  items: customer: about 1 test records: a gain of 0.1 passes min_gain=0.05 in about 7 % of runs; give",
        ),
        "too few records to learn from": (
            {"max_steps": 0, "customer_epochs": 2},
            "warn  mix: about 1 customer records make about 1 steps at 75 %, which hardly move a model: 480 customer_epochs",
        ),
    },
]
"""What the checks find, as much in a run as goes together."""


def _is_in(line: str, said: str) -> bool:
    """Return whether a line is said; in that of its check it may stand behind what else the check found."""
    check, text = re.fullmatch(r"((?:fail|warn)  [^:]+: )?(.*)", line).groups(default="")  # type: ignore[union-attr]
    return any(row.startswith(check) and text in row for row in said.splitlines())


@pytest.mark.parametrize("ways", [*({name: way} for name, way in ENDED.items()), *TOGETHER], ids=", ".join)
def test_a_wrong_run_gets_its_lines(run: Any, ways: dict[str, tuple[dict[str, Any], str]]) -> None:
    changes = [change for change, _ in ways.values()]
    together = {key: value for change in changes for key, value in change.items()}
    assert len(together) == sum(map(len, changes))
    code, said = run(together)
    assert [name for name, (_, line) in ways.items() if not _is_in(line, said)] == [], said
    assert "Traceback" not in said
    is_warned = all(line.startswith("warn") for _, line in ways.values()) and "fail  " not in said
    assert code == 0 if is_warned else code in (1, 2)


PLACES = {
    "a pipeline root that may not be written": (
        f"s3://{BUCKET}/other",
        "fail  artifacts: s3://team-data/other cannot be written: AccessDenied: no right",
    ),
    "a pipeline root in no bucket": (
        "s3://no-such-bucket/kfp",
        "fail  artifacts: s3://no-such-bucket/kfp cannot be written",
    ),
    "a folder that may not be written": ("/proc/nowhere", "fail  artifacts: /proc/nowhere cannot be written"),
}


@pytest.mark.parametrize(("root", "line"), PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_written_gets_its_line(run: Any, root: str, line: str) -> None:
    code, said = run({}, "--pipeline-root", root)
    assert (code, line in said) == (1, True), said


def test_a_column_that_no_file_has_is_said_before_anything_runs(run: Any) -> None:
    code, said = run({"customer_columns": {"prompt": "prompt", "completion": "answer"}}, "--report", "page.html")
    row = (
        f"customer_columns of s3://{BUCKET}/raw/customer.jsonl: completion is 'answer', but there is no column "
        "'answer'; there are"
    )
    assert (code, row in said) == (1, True), said


Replaced = tuple[str, str | None, str]
"""A file of the model, what is in it instead (None: it is taken away), and the line."""
MODELS: list[dict[str, Replaced]] = [
    {
        "a model without its tokenizer": (
            "tokenizer.json",
            None,
            "fail  base model: model: no tokenizer.json in it; save the tokenizer beside the model",
        ),
        "a model without safetensors": (
            "model.safetensors",
            None,
            "fail  base model: model: no safetensors weights in it; convert the model, pickles are not loaded",
        ),
        "a model without a chat template": (
            "chat_template.jinja",
            None,
            "fail  base model: model: the tokenizer has no chat template; take the instruct version, or add one",
        ),
        "full tuning of a model too big for the GPUs": (
            "config.json",
            json.dumps(BIG),
            "too big for H100, which has 72 to give; method=lora, or more nodes",
        ),
    },
    {"a broken config.json": ("config.json", "not json", "config.json: not JSON")},
    {
        "an architecture that nobody knows": (
            "config.json",
            json.dumps({**BIG, "model_type": "nobody"}),
            "fail  architecture: nobody: transformers 5.23.0 has no model of this type that writes text",
        ),
        "a model whose weights were cut": (
            "model.safetensors",
            "half",
            "fail  base model: model: model.safetensors cannot be read (Error while deserializing header",
        ),
    },
    {
        "a known architecture under a name of its own": (
            "config.json",
            json.dumps({**BIG, "model_type": "kimi_k2", "architectures": ["DeepseekV3ForCausalLM"]}),
            "its class DeepseekV3ForCausalLM is that of deepseek_v3: set model_type to it in the config.json of a copy",
        ),
    },
    {
        "a model without a licence": ("README.md", None, "warn  base model: model: no licence lies beside it"),
        "weights in a form in which nothing is trained": (
            "config.json",
            json.dumps({**BIG, "quantization_config": {"quant_method": "awq"}}),
            "weights are stored as awq, in which nothing is trained; take the same model in bfloat16, or as fp8 or mxfp4",
        ),
    },
    {
        "an encoder": (
            "config.json",
            json.dumps({**BIG, "model_type": "bert"}),
            "fail  architecture: bert does not train: BertLMHeadModel: a token's loss depends on the tokens after it",
        ),
    },
    {
        "fewer learned positions than tokens": (
            "config.json",
            json.dumps({**BIG, "model_type": "gpt2", "max_position_embeddings": 64}),
            "fail  lengths: max_length 512 is more than the 64 tokens that the model takes, by a learned vector",
        ),
    },
    {
        "a token beyond the embedding": (
            "config.json",
            json.dumps({**BIG, "vocab_size": 64}),
            "of the tokenizer's tokens have no row of the embedding's 64, such as",
        ),
    },
]


@pytest.mark.parametrize("ways", MODELS, ids=", ".join)
def test_a_wrong_base_model_gets_its_lines(
    run: Any, cluster: Cluster, tmp_path: Path, ways: dict[str, Replaced]
) -> None:
    for file, text, _ in ways.values():
        target = tmp_path / "model" / file
        target.unlink() if text is None else target.write_text(text)
    _, said = run({"num_nodes": "1", "gpus_per_node": "8", "method": "sft"})
    assert [name for name, (*_, line) in ways.items() if not _is_in(line, said)] == [], said


CLUSTER = [
    {"a cluster without Kubeflow Trainer": ("/apis/trainer.kubeflow.org", "fail  cluster: no trainer.kubeflow.org API: the TrainJob CRDs are missing")},
    {"a cluster without Kueue": ("/apis/kueue.x-k8s.io", "warn  cluster: no kueue.x-k8s.io API: jobs do not queue")},
    {
        "a cluster without the runtime": ("/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/mixtune-torch-p5", "fail  cluster: no runtime mixtune-torch-p5"),
        "a namespace without its queue": ("/apis/kueue.x-k8s.io/v1beta2/namespaces/team/localqueues/mixtune", "fail  cluster: no queue mixtune in team"),
        "a namespace without the service account": ("/api/v1/namespaces/team/serviceaccounts/mixtune-trainer", "fail  cluster: no service account mixtune-trainer in team"),
    },
]  # fmt: skip


@pytest.mark.parametrize("ways", CLUSTER, ids=", ".join)
def test_what_is_missing_in_the_cluster_gets_its_lines(
    run: Any, cluster: Cluster, ways: dict[str, tuple[str, str]]
) -> None:
    cluster.objects -= {path for path, _ in ways.values()}
    code, said = run({"num_nodes": "4", "gpus_per_node": "8"})
    assert [name for name, (_, line) in ways.items() if not _is_in(line, said)] == [], said
    assert code == any(line.startswith("fail") for _, line in ways.values())


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        (
            {"backend": "pytorchjob", "queue": "hyperpod-ns-team-localqueue"},
            {
                "/apis/kubeflow.org", "/api/v1/namespaces/team/podtemplates/mixtune-torch-p5",
                "/apis/kueue.x-k8s.io/v1beta2/namespaces/team/localqueues/hyperpod-ns-team-localqueue",
            },
        ),
        (
            {"runtime_kind": "TrainingRuntime", "queue": ""},
            {"/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainingruntimes/mixtune-torch-p5"},
        ),
        ({"runtime": "team-h200"}, {"/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/team-h200"}),
    ],
)  # fmt: skip
def test_what_is_looked_for_is_what_the_namespaces_settings_say(
    run: Any, cluster: Cluster, settings: dict[str, str], there: set[str]
) -> None:
    cluster.settings = settings
    needed = {
        "/apis/trainer.kubeflow.org",
        "/apis/kueue.x-k8s.io",
        "/api/v1/namespaces/team/serviceaccounts/mixtune-trainer",
    }
    cluster.objects = needed | there
    cluster.rights |= {(verb, "pytorchjobs") for verb in ("create", "get", "delete")}
    _, said = run({"num_nodes": "4", "gpus_per_node": "8"})
    assert "fail  cluster" not in said
    for path in there:
        cluster.objects = (needed | there) - {path}
        findings = check_cluster("team", NodeSettings(num_nodes="4", gpus_per_node="8"))
        assert [text for outcome, text in findings if outcome == "fail" and text.startswith("no ")], path


RIGHTS = "fail  cluster: no right in team to create trainjobs, get pods/log; run as mixtune-launcher, or bind its role"
NO_CLUSTER = "fail  cluster: no cluster is configured"
GPUS = "fail  memory: gpus_per_node is 16; p5.48xlarge has 8"
KEY = "SignatureDoesNotMatch: the secret key is wrong; check the credentials"


def test_missing_rights_are_named_one_by_one(run: Any, cluster: Cluster) -> None:
    cluster.rights -= {("create", "trainjobs"), ("get", "pods/log")}
    cluster.forbidden.add("/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/mixtune-torch-p5")
    code, said = run({"num_nodes": "4", "gpus_per_node": "8"})
    assert RIGHTS in said
    assert code == 1


def test_wrong_gpus_and_no_cluster_get_their_lines(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nowhere"))
    _, said = run({"num_nodes": "4", "gpus_per_node": "16"})
    assert NO_CLUSTER in said
    assert GPUS in said


def test_wrong_credentials_get_their_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage.s3_client.cache_clear()
    code, said = run({})
    storage.s3_client.cache_clear()
    assert KEY in said and "Traceback" not in said
    assert code in (1, 2)


def test_the_documents_list_every_way_with_its_line() -> None:
    tables: list[dict[str, Any]] = [ENDED, *TOGETHER, PLACES, *MODELS, *CLUSTER]
    ways = {name: entry[-1] for table in tables for name, entry in table.items()}
    ways |= {"missing rights": RIGHTS, "no cluster": NO_CLUSTER, "more GPUs than a node has": GPUS, "a wrong key": KEY}
    rows = [f"| {name} | `{line}` |" for name, line in ways.items()]
    page = (Path(__file__).parents[2] / "docs" / "preflight.md").read_text()
    table = page.partition("| what is wrong | what preflight prints of it |\n|---|---|\n")[2].partition("\n\n")[0]
    assert sorted(table.splitlines()) == sorted(rows)
