"""KFP's launcher mounts a bucket at /s3; a test gives a folder of its own in its place."""

import os

if os.environ.get("_KFP_RUNTIME") == "true" and "MIXTUNE_TEST_MOUNT" in os.environ:
    from kfp.dsl.types import artifact_types

    artifact_types._S3_LOCAL_MOUNT_PREFIX = os.environ["MIXTUNE_TEST_MOUNT"] + "/"
