"""What is taken from the cache of local runs: nothing whose files changed under their name."""

from pathlib import Path

import pytest
from kfp import compiler, dsl

from mixtune.commands.local.run import run_pipeline
from mixtune.commands.local.work_dir import WorkDir
from mixtune.preflight.component import fingerprint
from mixtune.sanitize.component import sanitize

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_server")]


@dsl.pipeline(name="clean")
def clean(uri: str, base_model: str):
    inputs = fingerprint(
        customer_uri=uri, general_pools=[{"category": "chat", "uri": uri, "weight": 100.0}], base_model=base_model
    ).set_caching_options(False)
    sanitize(sources=inputs.outputs["general"], splits={"test_ratio": 0.0, "holdout_records": 1})


def test_a_changed_file_under_the_same_name_is_sanitized_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, file = tmp_path / "clean.yaml", tmp_path / "chat.jsonl"
    compiler.Compiler().compile(clean, str(pipeline))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    rows = [f'{{"prompt": "Where is house {number}?", "completion": "In street {number}."}}\n' for number in range(20)]
    shown = []
    for text in ("".join(rows), "".join(rows), "".join(rows).replace("street 7", "avenue 7")):
        file.write_text(text)
        run_pipeline(pipeline, {"uri": str(file), "base_model": str(model)}, WorkDir(tmp_path / "work"))
        shown.append(capsys.readouterr().out)
    hits = ["sanitize: from the cache" in text for text in shown]
    runs = ["sanitize: done in" in text for text in shown]
    assert (hits, runs) == ([False, True, False], [True, False, True])
