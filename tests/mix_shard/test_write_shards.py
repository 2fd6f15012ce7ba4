import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from mixtune import storage
from mixtune.artifacts.shards import Drops, Shards, ShardsManifest, open_shards
from mixtune.artifacts.typed_json import write_artifact
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.mix_shard.exposure import make_plan
from mixtune.mix_shard.store import Store, make_part, write_store
from mixtune.mix_shard.write_shards import Target, write_shards
from mixtune.settings.mix import MixSettings

from ..chat_models import make_records

DYING = """
import os, pickle, signal, sys
from mixtune.mix_shard import write_shards as writing

with open(sys.argv[1], "rb") as file:
    target = pickle.load(file)
function, left, writers = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
really = getattr(writing, function, print)

def dying(*arguments, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return really(*arguments, **named)

setattr(writing, function, dying)
writing.write_shards(target, target.open_stores(), writers)
"""
"""Writes shards in a process of its own, and kills it where a function is called for the nth time."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, chatml: Path) -> Target:
    """A small plan over two tokenized pools, whose shards are of two steps each."""
    scratch = tmp_path_factory.mktemp("scratch")
    tokenizer = ChatTokenizer(chatml)
    for number, records in enumerate([make_records("customer", 50), make_records("chat", 30)]):
        write_store(scratch, str(number), [make_part(tokenizer.tokenize(records), 8192)])
    with closing(Store(scratch, "0")) as customer, closing(Store(scratch, "1")) as chat:
        mix = MixSettings(customer_data_percent=75, weights={"chat": 100}, global_batch_size=4)
        plan = make_plan(mix, ["customer", "chat"], [customer, chat], [Drops(), Drops()], scratch / "plan")
    return Target(plan=plan, scratch=scratch, data_uri=str(scratch / "shards"), shard_bytes=1500)


def written(target: Target, uri: str, writers: int = 1) -> dict[str, str]:
    """Digests of the shards' files, by name, written to a folder."""
    stores = target.open_stores()
    to = Target(plan=target.plan, scratch=target.scratch, data_uri=uri, shard_bytes=target.shard_bytes)
    _, entries = write_shards(to, stores, writers)
    for store in stores:
        store.close()
    return {entry.path: entry.sha256 for entry in entries}


def test_the_bytes_are_the_same_for_one_two_and_four_writers(target: Target, tmp_path: Path) -> None:
    found = [written(target, str(tmp_path / str(writers)), writers) for writers in (1, 2, 4)]
    assert len(found[0]) > 6
    assert found[0] == found[1] == found[2]


def test_writing_that_is_killed_again_and_again_ends_with_the_same_bytes(target: Target, tmp_path: Path) -> None:
    wanted = written(target, str(tmp_path / "undisturbed"))
    folder = tmp_path / "disturbed"
    (told := tmp_path / "target").write_bytes(
        pickle.dumps(Target(plan=target.plan, scratch=target.scratch, data_uri=str(folder), shard_bytes=1500))
    )
    for function, calls, writers in (("gather", 0, 1), ("gather", 7, 1), ("print", 1, 2), ("gather", 13, 1)):
        command = [sys.executable, "-c", DYING, str(told), function, str(calls), str(writers)]
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert process.wait(60) == -signal.SIGKILL
        whole = {path.name: storage.sha256_file(str(path)) for path in folder.glob("shard-*.arrow")}
        assert whole.items() <= wanted.items()
        assert len(whole) < len(wanted) or writers == 2
        wait_until_gone(process.pid)
    assert written(target, str(folder)) == wanted
    assert sorted(os.listdir(folder)) == sorted(wanted)


def wait_until_gone(group: int) -> None:
    """No process of a group outlives its first one."""
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("processes are left of a task that was killed")


def test_shards_in_s3_are_compressed_and_hold_the_same_records_as_local_ones(
    target: Target, tmp_path: Path, bucket: str
) -> None:
    opened = {}
    for name, uri in {"local": str(tmp_path / "data"), "s3": f"{bucket}/data"}.items():
        stores = target.open_stores()
        to = Target(plan=target.plan, scratch=target.scratch, data_uri=uri)
        files, entries = write_shards(to, stores)
        for store in stores:
            store.close()
        manifest = ShardsManifest(
            data_uri=uri,
            files=tuple(entries),
            num_steps=target.plan.num_steps,
            pools=("customer", "chat"),
            shards=tuple(files),
        )
        write_artifact(str(tmp_path / name), manifest)
        opened[name] = open_shards(str(tmp_path / name), tmp_path / "fetched")
    assert is_compressed(opened["s3"])
    assert not is_compressed(opened["local"])
    for step in range(target.plan.num_steps):
        assert opened["local"].batch(step).equals(opened["s3"].batch(step))


def is_compressed(shards: Shards) -> bool:
    """Whether the first shard's buffers are in zstd frames, by their magic number."""
    return b"\x28\xb5\x2f\xfd" in (shards.folder / shards.manifest.shards[0].file).read_bytes()
