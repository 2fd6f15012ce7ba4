"""Fingerprints: a URI together with the digest of what lies there, so that a cached step sees changed bytes."""

import hashlib
import re

from mixtune.errors import DataError
from mixtune.storage.files import PROVENANCE, file_exists, join, list_files, sha256_file

_DIGEST = re.compile(r"(.*)#([0-9a-f]{32})", re.DOTALL)


def fingerprint(uri: str) -> str:
    """Return `uri#digest`: the URI together with the digest of what is there now.

    A folder's provenance counts too, since what is made of its files repeats it.
    """
    total = hashlib.sha256()
    for entry in list_files(uri):
        total.update(f"{entry.path}\0{entry.num_bytes}\0{entry.sha256}\n".encode())
    if not uri.startswith("hf://") and file_exists(provenance := join(uri, PROVENANCE)):
        total.update(sha256_file(provenance).encode())
    return f"{uri}#{total.hexdigest()[:32]}"


def split_fingerprint(uri: str) -> tuple[str, str]:
    """Return the plain URI and the digest after its last `#`, which is empty where there is none.

    Any other `#` is part of a name.
    """
    match = _DIGEST.fullmatch(uri)
    return (match[1], match[2]) if match else (uri, "")


def plain_uri(uri: str) -> str:
    """Return a URI without its digest."""
    return split_fingerprint(uri)[0]


def check_fingerprint(uri: str) -> str:
    """Return the plain URI, once it is sure that its bytes are still the fingerprinted ones.

    Raises:
        DataError: The bytes changed.
    """
    plain, digest = split_fingerprint(uri)
    if digest and fingerprint(plain) != uri:
        raise DataError(f"{plain}: changed since this run looked at it (digest {digest}); start the run again")
    return plain


def without_digests(text: str) -> str:
    """Return a message with its URIs as the user wrote them."""
    return re.sub(r"#[0-9a-f]{32}\b", "", text)
