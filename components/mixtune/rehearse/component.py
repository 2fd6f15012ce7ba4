"""The component `rehearse`."""

from kfp import dsl
from kfp.dsl import Dataset, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def rehearse(
    base_model: str,
    pool: Output[Dataset],
    summary: Output[Markdown],
    num_records: int = 2000,
    prompts_uri: str = "",
    out_uri: str = "",
    options: dict = {},
    storage: dict = {},
) -> str:
    """Make a general pool out of the base model alone, where no other data may be used: it asks itself, and answers.

    Users' turns are drawn from what the model's chat template writes before them, without any seed text, then answered.
    What is empty, cut at a limit, caught in a loop, broken, asked before, or holds a control token is dropped and
    counted. A conversation depends on its number and the seed, not on its batch; a task that was killed goes on.

    Args:
        base_model: Folder, `s3://` prefix or `org/name@revision`, possibly with `#digest`.
        pool: Manifest: counts by reason, digests of model and template, seed, options.
        summary: The counts and the first records.
        num_records: Records wanted; with `prompts_uri`, at most.
        prompts_uri: File or folder (JSONL, JSON, CSV or Parquet) with a column `prompt`, for a model that cannot ask;
            the answers are the model's in any case. Empty: the model asks itself.
        out_uri: Folder for `records.jsonl` and `manifest.json`, local or `s3://`; empty: beside the artifact.
        options: Further settings by name, each with a default: `temperature` (above 0; 1 is the model's own), `top_p`,
            `max_prompt_tokens` (512) and `max_new_tokens` (1024), beyond which a question or an answer is dropped,
            `seed`, `chat_template_uri`, and `dtype`, `engine`, `gpus_per_model` as for `evaluate`.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        URI of the records, canonical chat JSONL: the `uri` of a general pool, or of a source of `sanitize`.

    Raises:
        ModelError: The model cannot be loaded, its chat template has no place for a user's turn, or too little of what
            it says can be used.
        DataError: A row of `prompts_uri` has no prompt.
    """
    from mixtune import storage as files
    from mixtune.rehearse.conversations import RehearseSettings
    from mixtune.rehearse.run import Inputs, run
    from mixtune.report.outputs import Outputs
    from mixtune.settings.from_dict import from_dict

    files.configure_storage(storage)
    inputs = Inputs(base_model=base_model, num_records=int(num_records), prompts_uri=prompts_uri)
    folder = out_uri or files.data_uri(pool.uri, "pool")
    outputs = Outputs(data_uri=folder, json_path=pool.path, markdown_path=summary.path)
    return run(from_dict(RehearseSettings, options, "options"), inputs, outputs)
