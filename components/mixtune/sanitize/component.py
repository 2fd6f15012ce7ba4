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

    Reads JSONL, JSON (an array, or an object by id), CSV, TSV, Parquet and Arrow, also compressed (gz, zst, bz2).
    Plain JSONL (by bytes) and Parquet (by row groups) are read by several processes at once; any other file by one,
    since a quoted field of CSV may hold line ends. Rewrites reserved text markers to a fixed point, normalises text,
    replaces personal data, drops duplicates, near duplicates and whatever stands in a benchmark or another pool, and
    holds records back. With a base model, every record is rendered and tokenized to prove that it holds no control
    token but the template's, and the turns to learn as the model is asked for them; what fails is dropped. Rows read
    are rows kept plus rows dropped, always.

    Args:
        sources: List of {"name": pool, "uri": file, folder or pattern such as part-*.csv, "columns": mapping,
            "split": "train" or "test"}. A mapping names the columns of prompt and completion (or messages), system,
            label, group, consent, weight and tools; a value may be a template: {"prompt": "{context} {question}"}.
        pools: The clean records, by pool and split.
        report: Counts by pool, reason and rule.
        summary: The same in short.
        against: Pools whose records no training record may repeat, exactly or nearly; nor may it hold half of the
            13-grams of a text that they hold back (test, validation, holdout). What they train on is compared exactly
            and nearly, not by 13-grams: to quote it is no leak. The training record is dropped.
        benchmarks: {name: {"uri": ...}} whose questions or prompts no training record may hold in these three ways.
        base_model: Model whose control tokens the proof is about: a folder, an s3:// prefix, or org/name@revision.
        dedup: `near_duplicates` (0.9: least Jaccard similarity of five-word shingles at which a record is a near copy;
            0: off. Questions have to be that alike also without what stands in over 20 records, a common instruction;
            one text after two such instructions stays, in one split, and goes where one of them is held back. More
            than 20 near copies of one text stay for the same reason), `near_engine` (what proposes near copies:
            "memory", or "daft" for tens of millions of records; one result), `conflicts` (nearly equal questions with
            different answers: "keep" or "drop") and `label_leaks` (questions that hold the words of their label:
            "keep" or "drop"); both are counted in any case.
        splits: `test_ratio` (0.1: share of a pool held back as `test` where no source gives it one; 0: none),
            `validation_ratio` (0.0: share held back as `validation`) and `holdout_records` (0: records held back as
            `holdout`, at most a tenth of the pool).
        text: `markers` (what becomes of reserved text markers: "space", "strip", "drop", "fail" or "keep"),
            `extra_markers` (a list, removed wherever they stand), `also_normalise` (rules on request, in lines of prose
            alone, never in code, tables or JSON: "quotes" makes typographic quotes straight, "spaces" makes runs of
            spaces one), `max_bad_ratio` (0.05: share of a file's rows that may be unusable; above it the task fails,
            at the file's end, or as soon as it holds for the first 2,000 rows or more of a 64 MiB part),
            `phone_region` ("US": country whose telephone numbers may stand without its code) and `name_model`
            ("en_core_web_sm": spaCy model for names and addresses, in an image built with the extra `names`).
        personal_data: {kind: policy}; kinds are email, phone, card, iban, ssn, national_id, ip, secret, medical_record
            and default; policies are `redact` (the default), `pseudonym` (key from a mounted secret), `drop`, `report`
            and `keep`. `name` and `address` are looked for only where they have a policy: a language model reads every
            text then, at some 10 kB a second and core.
        consent: `required`, `values` (what the consent column says where consent was given), `list_uri` (who gave it).
        options: `dedup`, `splits`, `text`, `personal_data` and `consent` by name, as a pipeline hands them on; where
            both say something, the parameter of its own wins. `work_uri` in it is shared by several tasks: each takes
            the folder in it that is named like its pools (`customer`, `chat+math`). And `chat`, by which the proof
            renders: `mix_shard`'s `chat_template_uri`, `thinking`, `on_lost` and `max_refused_ratio`.
        work_uri: Folder for finished parts, so that a killed task goes on where it was, or takes up what pods of an
            Indexed Job made (`mixtune.sanitize.indexed_job`); empty: a temporary one.
        seed: Of the splits.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        ConfigError: A source, mapping or option is not as it should be.
        DataError: A file cannot be used, a split would be empty, or the chat template refuses too many records.
    """
    from mixtune import storage as files
    from mixtune.sanitize.run import Outputs, read_parameters, run

    files.configure_storage(storage)
    parameters = {
        "sources": sources,
        "against_path": getattr(against, "path", ""),
        "benchmarks": benchmarks,
        "base_model": base_model,
        "dedup": dedup,
        "splits": splits,
        "text": text,
        "personal_data": personal_data,
        "consent": consent,
        "work_uri": work_uri,
        "options": options,
        "seed": seed,
    }
    outputs = Outputs(
        pools_path=pools.path,
        data_uri=files.data_uri(pools.uri, "pools"),
        report_path=report.path,
        summary_path=summary.path,
    )
    run(*read_parameters(parameters), outputs)
