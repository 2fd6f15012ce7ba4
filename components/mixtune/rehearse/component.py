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
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_prompt_tokens: int = 512,
    max_new_tokens: int = 1024,
    dtype: str = "auto",
    engine: str = "transformers",
    gpus_per_model: int = 1,
    seed: int = 42,
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
        temperature: Of questions and answers, above 0; 1 is the model's own distribution.
        top_p: Above 0, at most 1: only the most probable tokens, which together have this probability.
        max_prompt_tokens: A question that is longer is dropped.
        max_new_tokens: An answer that is longer is dropped.
        dtype: `float32`, `bfloat16` or `float16`; `auto`: bfloat16 on a GPU, float32 on a CPU.
        engine: `transformers` on any device, or `vllm` on GPUs, in an image that has it.
        gpus_per_model: GPUs that share one model, for a model that one cannot hold.
        seed: Of every conversation.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        URI of the records, canonical chat JSONL: the `uri` of a general pool, or of a source of `sanitize`.

    Raises:
        ModelError: The model cannot be loaded, its chat template has no place for a user's turn, or too little of what
            it says can be used.
        DataError: A row of `prompts_uri` has no prompt.
    """
    from mixtune import storage as files
    from mixtune.inference.loading import ModelSource
    from mixtune.rehearse.conversations import SamplingSettings
    from mixtune.rehearse.run import RehearsalInputs, RehearsalOutputs, run_rehearsal

    files.use(storage)
    drawing = SamplingSettings(
        temperature=temperature,
        top_p=top_p,
        max_prompt_tokens=int(max_prompt_tokens),
        max_new_tokens=int(max_new_tokens),
        seed=int(seed),
    )
    model = ModelSource(base_model=base_model, dtype=dtype, engine=engine, gpus_per_model=int(gpus_per_model))
    inputs = RehearsalInputs(model=model, drawing=drawing, num_records=int(num_records), prompts_uri=prompts_uri)
    folder = out_uri or files.data_uri(pool.uri, "pool")
    outputs = RehearsalOutputs(folder=folder, manifest_path=pool.path, summary_path=summary.path)
    return run_rehearsal(inputs, outputs)
