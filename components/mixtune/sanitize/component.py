"""The component `sanitize`."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def sanitize(
    sources: list,
    pools: Output[Dataset],
    report: Output[HTML],
    summary: Output[Markdown],
    against: Input[Dataset] = None,
    benchmarks: dict = {},
    base_model: str = "",
    dedup: dict = {},
    splits: dict = {},
    text: dict = {},
    personal_data: dict = {},
    consent: dict = {},
    options: dict = {},
    work_uri: str = "",
    seed: int = 42,
    storage: dict = {},
):
    """Turn raw files into clean pools of records; everything dropped or changed is counted and listed.

    Reads the files of docs/data.md; plain JSONL and Parquet by several processes at once. Rewrites reserved text
    markers to a fixed point, normalises text, replaces personal data, drops duplicates, near duplicates and whatever
    stands in a benchmark or another pool, and holds records back. With a base model, every record is rendered and
    tokenized to prove that it holds no control token but the template's, and the turns to learn as the model is asked
    for them; what fails is dropped. Rows read are rows kept plus rows dropped, always.

    Args:
        sources: List of {"name": pool, "uri": file, folder or pattern such as part-*.csv, "columns": mapping,
            "split": "train" or "test"}. A mapping names the columns of prompt and completion (or messages), system,
            reasoning, label, group, consent, weight, tools; a value may be a template: {"prompt": "{title} {body}"}.
        pools: The clean records, by pool and split.
        report: Counts by pool, reason and rule.
        summary: The same in short.
        against: Pools whose records no training record may repeat, exactly or nearly; nor may it hold half of the
            13-grams of a text that they hold back (test, validation, holdout). What they train on is compared exactly
            and nearly, not by 13-grams: to quote it is no leak. The training record is dropped.
        benchmarks: {name: {"uri": ...}} whose questions or prompts no training record may hold in these three ways.
        base_model: Model whose control tokens the proof is about: a folder, an s3:// prefix, or org/name@revision.
        dedup: `DedupSettings` in docs/settings.md. What stands in over 20 records is a template, without which
            questions have to be alike, too.
        splits: `test_ratio` (0.1 where no source gives a test split; 0: none), `validation_ratio` (0.0) and
            `holdout_records` (0; at most a tenth of the pool). A question that quotes another is in its split.
        text: `TextSettings` in docs/settings.md.
        personal_data: {kind: policy}; kinds are email, phone, card, iban, ssn, national_id, ip, secret, medical_record
            and default; policies are `redact` (the default), `pseudonym` (key from a mounted secret), `drop`, `report`
            and `keep`. `name` and `address` are looked for only where they have a policy: a language model reads every
            text then, at some 10 kB a second and core.
        consent: `required`, `values` (what the consent column says where consent was given), `list_uri` (who gave it).
        options: `dedup`, `splits`, `text`, `personal_data`, `consent`, as a pipeline hands them on; a parameter of its
            own wins. Also `work_uri`, in which each of several tasks takes the folder named like its pools, and `chat`:
            `mix_shard`'s `chat_template_uri`, `thinking`, `on_lost` and `max_refused_ratio`, for the proof.
        work_uri: Folder for finished parts, so that a killed task goes on where it was, or takes up what pods of an
            Indexed Job made (`mixtune.sanitize.indexed_job`); empty: a temporary one.
        seed: Of the splits.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        ConfigError: A source, mapping or option is not as it should be.
        DataError: A file cannot be used, a split would be empty, or the chat template refuses too many records.
    """
    from mixtune import storage as files
    from mixtune.report.outputs import Outputs
    from mixtune.sanitize.run import read_parameters, run

    files.configure_storage(storage)
    parameters = {
        "sources": sources, "against_path": getattr(against, "path", ""), "benchmarks": benchmarks,
        "base_model": base_model, "dedup": dedup, "splits": splits, "text": text, "personal_data": personal_data,
        "consent": consent, "work_uri": work_uri, "options": options, "seed": seed,
    }  # fmt: skip
    outputs = Outputs(
        json_path=pools.path, data_uri=files.data_uri(pools.uri, "pools"), html_path=report.path,
        markdown_path=summary.path,
    )  # fmt: skip
    run(*read_parameters(parameters), outputs)
