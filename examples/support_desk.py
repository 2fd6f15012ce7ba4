"""A pipeline of one's own: three of mixtune's components, and a step of one's own between them.

    python examples/support_desk.py          writes support_desk.yaml beside it
    mixtune run examples/support_desk.yaml tickets_uri=... general_uri=... base_model=...

The step of one's own keeps only what was closed as solved, before anything is cleaned. It hands on a URI, as every
step of mixtune takes data from outside; the file lies beside its artifact, so that it is there on a cluster too.
"""

from pathlib import Path

from kfp import compiler, dsl

from mixtune import images
from mixtune.mix_shard.component import mix_shard
from mixtune.sanitize.component import sanitize
from mixtune.train.component import train


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def keep_solved(tickets_uri: str, kept: dsl.Output[dsl.Dataset]) -> list:
    """Keep the tickets whose `status` is `solved`.

    Args:
        tickets_uri: JSONL with `question`, `answer`, `status`; local or s3://.
        kept: Where the others are left out, and how many.

    Returns:
        The source for `sanitize`.
    """
    import json

    from mixtune import storage

    with storage.open_read(tickets_uri) as stream:
        tickets = [json.loads(line) for line in stream]
    solved = [ticket for ticket in tickets if ticket["status"] == "solved"]
    uri = storage.join(storage.data_uri(kept.uri, "kept"), "solved.jsonl")
    with storage.open_write(uri) as stream:
        stream.write("".join(json.dumps(ticket) + "\n" for ticket in solved).encode())
    storage.write_json(kept.path, {"kept": len(solved), "left_out": len(tickets) - len(solved)})
    return [{"name": "customer", "uri": uri}]


@dsl.pipeline(name="support-desk", description="Tune an adapter on solved tickets and a general pool, half and half.")
def support_desk(tickets_uri: str, general_uri: str, base_model: str, max_steps: int = 100) -> str:
    """Tune a LoRA adapter on solved tickets, mixed with general records.

    Args:
        tickets_uri: JSONL with `question`, `answer`, `status`.
        general_uri: General records, any format that sanitize reads.
        base_model: A folder, an s3:// prefix, or org/name@revision.
        max_steps: Optimizer steps.

    Returns:
        The adapter's URI.
    """
    solved = keep_solved(tickets_uri=tickets_uri)
    general = sanitize(sources=[{"name": "chat", "uri": general_uri}], splits={"test_ratio": 0.0})
    customer = sanitize(sources=solved.outputs["Output"], against=general.outputs["pools"])
    mixed = mix_shard(
        customer=customer.outputs["pools"],
        general=general.outputs["pools"],
        base_model=base_model,
        weights={"chat": 100},
        customer_data_percent=50.0,
        max_steps=max_steps,
    )
    return train(shards=mixed.outputs["shards"], base_model=base_model).outputs["Output"]


if __name__ == "__main__":
    compiler.Compiler().compile(support_desk, str(Path(__file__).with_suffix(".yaml")))
