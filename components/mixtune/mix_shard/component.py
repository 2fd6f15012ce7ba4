"""The `mix_shard` component."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def mix_shard(
    customer: Input[Dataset],
    general: Input[Dataset],
    base_model: str,
    weights: dict,
    customer_data_percent: float,
    shards: Output[Dataset],
    receipt: Output[HTML],
    summary: Output[Markdown],
    global_batch_size: int = 32,
    customer_epochs: float = 1.0,
    max_steps: int = 0,
    max_length: int = 8192,
    too_long: str = "drop",
    train_on: list = ["assistant"],
    chat_template_uri: str = "",
    seed: int = 42,
    unit: str = "records",
    granularity: str = "record",
    temperature: float = 0.0,
    stages: list = [],
    max_epochs_per_pool: float = 0.0,
    when_exhausted: str = "refuse",
    storage: dict = {},
) -> None:
    """Decide the whole training order, tokenize it, and write it as shards with a mix receipt.

    Every global batch holds the customer's share and the categories' shares of the rest: after any record, the count
    of every pool is within one record of its target.

    Args:
        customer: The customer pool, from `sanitize`.
        general: The general pools, from `sanitize`.
        base_model: Folder, `s3://` prefix or `org/name@revision` whose tokenizer and chat template are used.
        weights: Percent of the general share for each general pool; they sum to 100.
        customer_data_percent: Customer share of every global batch, 0 to 100.
        global_batch_size: Records of one optimizer step, over all GPUs.
        customer_epochs: Passes over the customer pool, where `max_steps` is 0.
        max_steps: Number of steps; 0: by `customer_epochs`.
        max_length: Longest record in tokens; longer ones are treated by `too_long` and counted.
        too_long: "drop"; "truncate": cut so that an answer stays whole; or "error".
        train_on: Roles whose turns are learned: "assistant", "user", "system", "tool".
        chat_template_uri: File with a Jinja chat template, instead of the model's own; ask the tuned model by it too.
        seed: Seed of every order.
        unit: What shares count: "records" (every batch holds them), "tokens" or "loss_tokens" (cumulated over batches).
        granularity: "record"; or "batch": a coin makes every batch the customer's or general, only the mean is right.
        temperature: Not 0: general weights in proportion of pool size ** (1 / temperature), `weights` left empty.
        stages: First stages of the run, as {"steps", "customer_data_percent", "weights"}; then the mix itself.
        max_epochs_per_pool: How often a record of a pool may come, on the mean; 0: as often as it takes.
        when_exhausted: A pool at that limit: "refuse" the run, "warn", or "redistribute" its share over general pools.
        storage: Options of the storage: `kms_key_id`, `endpoint_url`, `region`.
        shards: The tokenized records in training order.
        receipt: Planned and realized share of every pool.
        summary: The receipt in short.
    """
    from mixtune import storage as files
    from mixtune.mix_shard.exposure import Mix
    from mixtune.mix_shard.run import Places, mix_shard, read_template
    from mixtune.mix_shard.tokenize.tokenizer import TokenConfig

    files.use(storage)
    mix = Mix(
        customer_data_percent=customer_data_percent,
        weights=weights,
        global_batch_size=int(global_batch_size),
        customer_epochs=customer_epochs,
        max_steps=int(max_steps),
        seed=int(seed),
        unit=unit,
        granularity=granularity,
        temperature=temperature,
        stages=stages,
        max_epochs_per_pool=max_epochs_per_pool,
        when_exhausted=when_exhausted,
    )
    places = Places(
        customer_path=customer.path,
        general_path=general.path,
        manifest_path=shards.path,
        data_uri=files.data_uri(shards.uri, "shards"),
        html_path=receipt.path,
        markdown_path=summary.path,
    )
    config = TokenConfig(
        chat_template=read_template(chat_template_uri),
        train_on=tuple(train_on),
        max_length=int(max_length),
        too_long=too_long,
    )
    mix_shard(base_model, mix, places, config)
