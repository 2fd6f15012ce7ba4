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
    customer_epochs: float = 1.0,
    max_steps: int = 0,
    seed: int = 42,
    options: dict = {},
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
        customer_epochs: Passes over the customer pool, where `max_steps` is 0.
        max_steps: Number of steps; 0: by `customer_epochs`.
        seed: Seed of every order.
        options: Further settings by name, each with a default: `global_batch_size` (records of one optimizer step over
            all GPUs, 32), `max_length` (longest record in tokens, 8192), `too_long` (what becomes of longer ones:
            "drop", "truncate": cut so that an answer stays whole, or "error"), `train_on` (roles whose turns are
            learned: a list of "assistant", "user", "system", "tool"), `chat_template_uri` (file with a Jinja chat
            template instead of the model's own; ask the tuned model by it too), `thinking` (how a hybrid model is
            asked: "record": with thoughts where the answer has one, without where it has none; "on": always with, an
            answer without learns an empty one; "off": never, and thoughts are left out), `on_lost` (what becomes of
            a record of which the template leaves a part out, by part: {"system", "reasoning", "tool_calls",
            "tool_results", "tools"} each "refuse", "drop_field" or "keep"), `max_refused_ratio` (share of a pool's
            records that may be refused for the template, 0.05), `unit` (what shares count: "records",
            in every batch, or "tokens" or "loss_tokens", cumulated over batches), `granularity` ("record"; or
            "batch": a coin makes every batch the customer's or general, only the mean is right), `temperature` (not
            0: general weights are in proportion of pool size ** (1 / temperature), `weights` left empty), `stages`
            (first stages of the run, as {"steps", "customer_data_percent", "weights"}; then the mix itself),
            `max_epochs_per_pool` (how often a record may come, on the mean; 0: no limit) and `when_exhausted` (a pool
            at that limit: "refuse" the run, "warn", or "redistribute" its share over general pools).
        storage: Options of the storage: `kms_key_id`, `endpoint_url`, `region`.
        shards: The tokenized records in training order.
        receipt: Planned and realized share of every pool.
        summary: The receipt in short.
    """
    from mixtune import storage as files
    from mixtune.mix_shard.run import Inputs, run
    from mixtune.report.outputs import Outputs
    from mixtune.settings.mix import read_mix_settings

    files.configure_storage(storage)
    share = {"customer_data_percent": customer_data_percent, "weights": weights}
    parameters = {**share, "customer_epochs": customer_epochs, "max_steps": max_steps, "seed": seed}
    inputs = Inputs(base_model=base_model, customer_path=customer.path, general_path=general.path)
    outputs = Outputs(
        json_path=shards.path,
        data_uri=files.data_uri(shards.uri, "shards"),
        html_path=receipt.path,
        markdown_path=summary.path,
    )
    run(read_mix_settings(parameters, options), inputs, outputs)
