"""Names of the container images; the tag is the package's version.

`make compile REGISTRY=...` puts a registry before the names, for upload by hand; `mixtune submit --registry ...`
does the same in the copy that it sends.
"""

import os

from mixtune import __version__

# KFP's local runner warns about images whose name lacks "python"; ours say what they are.
_PREFIX = os.environ.get("MIXTUNE_REGISTRY", "").rstrip("/")


def _name(part: str) -> str:
    image = f"mixtune-python-{part}:{__version__}"
    return f"{_PREFIX}/{image}" if _PREFIX else image


DATA = _name("data")
TRAIN = _name("train")
EVALUATE = _name("evaluate")
