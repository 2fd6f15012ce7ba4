"""KFP's launcher mounts a bucket at /s3; a test gives a folder of its own in its place."""

import os
import sys

STEPS = {"mixtune.step", "mixtune.commands.local.warm_steps"}
if STEPS & set(sys.orig_argv) and "MIXTUNE_TEST_MOUNT" in os.environ:
    os.environ["_KFP_RUNTIME"] = "true"  # before KFP is imported, as the step itself sets it
    from kfp.dsl.types import artifact_types

    artifact_types._S3_LOCAL_MOUNT_PREFIX = os.environ["MIXTUNE_TEST_MOUNT"] + "/"
