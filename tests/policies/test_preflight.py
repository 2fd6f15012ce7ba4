"""Preflight before the policies: a key that the bucket does not take is found before anything is computed."""

import pytest

from mixtune import storage
from mixtune.preflight.places import check_artifacts

from .conftest import Account


def test_our_key_is_named_and_another_one_is_refused(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.act_as("launcher", monkeypatch)
    folder = f"s3://{account.bucket}/kfp/finetune"
    monkeypatch.setenv("MIXTUNE_KMS_KEY_ID", "")
    options = {"kms_key_id": account.key}
    storage.configure_storage(options)
    assert list(check_artifacts(folder, options)) == [
        ("pass", f"{folder} can be written, encrypted by aws:kms {account.key}")
    ]
    other = {"kms_key_id": account.key[:-4] + "beef"}
    storage.configure_storage(other)
    ((outcome, text),) = check_artifacts(folder, other)
    assert outcome == "fail"
    assert text.startswith(
        f"{folder} cannot be written: AccessDenied: no right to do this; the role's policy (policies/iam)"
    )
