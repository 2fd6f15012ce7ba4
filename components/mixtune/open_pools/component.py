"""The component `import_pool`, which brings `sanitize` an open set with its licence."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def import_pool(
    pool: Output[Dataset],
    name: str = "",
    catalogue_uri: str = "",
    source: str = "",
    revision: str = "",
    files: list = [],
    licence: str = "",
    licence_url: str = "",
    attribution: str = "",
    category: str = "",
    columns: dict = {},
    allowed_licences: list = [],
    mirror_uri: str = "",
    out_uri: str = "",
    storage: dict = {},
) -> str:
    """Bring an open instruction set into a folder as it came, with its licence, for use as a general pool.

    The set is an entry of the catalogue (`name`), or one that you describe (`source`, `files`, `licence`, `category`).
    Data files alone are taken, no scripts and no pickles. The folder's `_provenance.json` names source, revision,
    licence, attribution and the SHA-256 of each file; sanitize's manifest and a registered model's card repeat them.
    Cache this task only where the source is the hub's: what lies in a folder may change under its name.

    Args:
        pool: The provenance as a manifest; the files lie at its data_uri.
        name: Of an entry of the catalogue; `mixtune pools` lists them.
        catalogue_uri: A catalogue of your own, local or s3://; empty: the one that mixtune ships.
        source: A data set of the hub (org/name), or a folder, local or s3://; with a name, the entry's.
        revision: Commit of the hub, 40 hex digits; with a name, the entry's unless given here.
        files: Names relative to the source, such as data/train-*.parquet; `*` stands for no `/`.
        licence: SPDX expression, such as CC-BY-4.0, or LicenseRef-NAME; with a name, the entry's.
        licence_url: Where the licence can be read.
        attribution: Whom to name, and how.
        category: The pool's name in the pipelines.
        columns: Column mapping that sanitize will need; empty: detected.
        allowed_licences: SPDX expressions, of which the licence must be one; empty: all are allowed.
        mirror_uri: A folder with a copy of the source's files, local or s3://, where the hub is out of reach.
        out_uri: Where the files go; empty: beside the artifact.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The `uri` for an entry of general_pools.

    Raises:
        ConfigError: No such entry, no licence or one that is not allowed, a revision that is no commit, a file that
            is no data, or a folder that holds other files.
        DataError: The hub or the mirror does not give the files, or not all of them.
    """
    from dataclasses import replace

    from mixtune import storage as store
    from mixtune.artifacts.typed_json import write_artifact
    from mixtune.open_pools import catalogue, import_files

    store.configure_storage(storage)
    licence_fields = {"source": source, "revision": revision, "licence": licence, "licence_url": licence_url}
    values = {**licence_fields, "attribution": attribution, "category": category, "files": files, "columns": columns}
    source_pool = catalogue.find_pool(name, catalogue_uri, values)
    out = out_uri or store.data_uri(pool.uri, "pool")
    provenance = import_files.import_files(source_pool, out, allowed_licences, mirror_uri)
    write_artifact(pool.path, replace(provenance, data_uri=out))
    return out
