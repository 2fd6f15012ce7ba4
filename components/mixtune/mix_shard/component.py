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
    """Write the whole training order as tokenized shards, with a mix receipt.

    Every global batch holds the customer's share and the categories' shares of the rest: after any record, the count
    of every pool is within one record of its target; over several stages within two, if each has a share in all.

    Args:
        customer: The customer pool, from `sanitize`.
        general: The general pools, from `sanitize`.
        base_model: Folder, `s3://` prefix or `org/name@revision` whose tokenizer and chat template are used.
        weights: Percent of the general share for each general pool; they sum to 100.
        customer_data_percent: Customer share of every global batch, 0 to 100.
        customer_epochs: Passes over the customer pool, where `max_steps` is 0.
        max_steps: Number of steps; 0: by `customer_epochs`.
        seed: Seed of every order.
        options: Further settings by name, such as `global_batch_size` (32), `max_length` (8192), `too_long`,
            `train_on`, `chat_template_uri`, `thinking`, `on_lost`, `unit`, `temperature` and `stages`: those of
            `MixSettings` and `TokenSettings` in docs/settings.md.
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
