from pathlib import Path

import pytest
from kfp import dsl, local

from mixtune.artifacts.shards import open_shards
from mixtune.mix_shard.component import mix_shard

from ..chat_models import make_records, write_pools


@pytest.mark.slow
def test_the_shell_runs_under_the_local_runner(tmp_path: Path, chatml: Path) -> None:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    pools = {name: make_records(name, 20) for name in ("customer", "chat")}
    customer = write_pools(tmp_path / "customer", {"customer": pools["customer"]})
    general = write_pools(tmp_path / "general", {"chat": pools["chat"]})

    @dsl.pipeline(name="mix")
    def pipeline() -> None:
        mine = dsl.importer(artifact_uri=customer, artifact_class=dsl.Dataset, reimport=False)
        theirs = dsl.importer(artifact_uri=general, artifact_class=dsl.Dataset, reimport=False)
        mix_shard(
            customer=mine.output,
            general=theirs.output,
            base_model=str(chatml),
            weights={"chat": 100},
            customer_data_percent=50.0,
            options={"global_batch_size": 4, "train_on": ["assistant", "user"]},
        )

    pipeline()
    (manifest,) = [path for path in (tmp_path / "root").rglob("shards") if path.is_file()]
    shards = open_shards(str(manifest), tmp_path)
    assert shards.num_steps == 10
    assert shards.manifest.receipt.pools[0].per_batch == (2, 2)
    assert shards.manifest.train_on == ("assistant", "user")
