"""The policy documents themselves."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import RENDER, ROOT

OVERLAYS = {"eks-p5": "eks-p5/namespace", "hyperpod-eks": "hyperpod-eks/namespace", "profile": "profile"}


def settings_of(overlay: str) -> dict[str, str]:
    return dict(RENDER["read_settings"](ROOT / f"kustomize/overlays/{overlay}/settings/settings.env"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlays_settings_fill_in_every_policy(overlay: str, tmp_path: Path) -> None:
    written = RENDER["render"](settings_of(overlay), tmp_path)
    assert len(written) >= 15
    for path in written:
        assert "${" not in path.read_text()
        json.loads(path.read_text())


@pytest.mark.parametrize(("overlay", "folder"), OVERLAYS.items())
def test_roles_trust_the_namespace_that_the_overlay_writes_to(overlay: str, folder: str) -> None:
    kustomization = yaml.safe_load((ROOT / f"kustomize/overlays/{folder}/kustomization.yaml").read_text())
    assert settings_of(overlay)["NAMESPACE"] == kustomization["namespace"]


def test_no_role_is_allowed_everything_of_anything(tmp_path: Path) -> None:
    RENDER["render"](settings_of("eks-p5"), tmp_path)
    for path in tmp_path.glob("iam/*.json"):
        for statement in json.loads(path.read_text())["Statement"]:
            if "trust" in path.name:
                assert statement["Condition"]["StringEquals"]
                continue
            assert not [action for action in many(statement["Action"]) if action.endswith(":*") or action == "*"]
            assert "*" not in many(statement["Resource"])


def test_the_renderer_refuses_a_setting_that_is_missing(tmp_path: Path) -> None:
    settings = settings_of("eks-p5")
    del settings["KMS_KEY_ARN"]
    with pytest.raises(KeyError, match="KMS_KEY_ARN"):
        RENDER["render"](settings, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.env", None, "none.env: No such file or directory; give the settings.env of an overlay"),
        ("page.env", b"<html>\n", "page.env: '<html>' is no NAME=value; give the settings.env of an overlay"),
        ("bytes.env", b"\xff\xfe", "bytes.env: 'utf-8' codec can't decode byte 0xff"),
        ("few.env", b"REGION=eu-west-1\n", ", which a policy uses; add "),
    ],
)
def test_the_renderer_names_a_wrong_file_with_the_way_out(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, str(ROOT / "policies" / "render.py"), name, "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def many(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def test_the_administrators_page_makes_every_role_before_the_key_that_names_it(tmp_path: Path) -> None:
    RENDER["render"](settings_of("eks-p5"), tmp_path)
    named = set(re.findall(r"role/(mixtune-\w+)", (tmp_path / "kms/key.json").read_text())) - {"mixtune-admin"}
    before = (ROOT / "docs/cluster.md").read_text().split("aws kms create-key")[0].replace("\\\n", " ")
    loops = re.findall(r"^for role in ([\w ]+); do\n.*create-role --role-name mixtune-\$role", before, re.M)
    roles = {f"mixtune-{role}" for loop in loops for role in loop.split()}
    assert roles | set(re.findall(r"create-role --role-name (mixtune-\w+)", before)) == named
