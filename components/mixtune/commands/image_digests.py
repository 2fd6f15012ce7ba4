"""What `mixtune submit` sends to a cluster: the compiled pipeline, with nothing changed but the images' names.

KFP's cache key holds the image string, so every image is pinned by its digest: changed code is then a cache miss, and a
run's record says exactly what ran.
"""

import re
from collections.abc import Callable, Mapping

from mixtune.errors import ConfigError

_IMAGE = re.compile(r"(?<![\w./:-])([\w./:-]*?)(mixtune-python-\w+):([\w.+-]+)(@sha256:[0-9a-f]{64})?")
_ECR = re.compile(r"^(\d{12})\.dkr\.ecr\.([\w-]+)\.amazonaws\.com(?:\.cn)?/?(.*)$")

Digests = Callable[[str, str], str]
"""Digest (`sha256:...`) of an image, by name without registry, and tag."""


def rewrite_images(text: str, registry: str, digest_of: Digests) -> str:
    """A compiled pipeline with every mixtune image, wherever it is named, in a registry and pinned by digest.

    A registry is such as `123456789012.dkr.ecr.us-east-1.amazonaws.com/team`; empty: names stay as compiled.
    """

    def pinned(match: re.Match[str]) -> str:
        name, tag = match[2], match[3]
        prefix = registry.rstrip("/") + "/" if registry else match[1]
        return f"{prefix}{name}:{tag}@{digest_of(name, tag)}"

    return _IMAGE.sub(pinned, text)


def listed_digests(listed: Mapping[str, str]) -> Digests:
    """Digests from a list that the build wrote: `{"mixtune-python-data": "sha256:..."}`.

    Raises:
        ConfigError: On use, for an image that is not in it.
    """

    def digest_of(name: str, tag: str) -> str:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", listed.get(name, "")):
            raise ConfigError(f"no digest of {name}:{tag} in the list; add it, as sha256:...")
        return listed[name]

    return digest_of


def ecr_digests(registry: str) -> Digests:
    """Digests as an Amazon ECR registry has them, asked with the default AWS credentials.

    Raises:
        ConfigError: The registry is not ECR's; or, on use, the image was not pushed.
    """
    match = _ECR.match(registry)
    if not match:
        raise ConfigError(f"--registry {registry or 'is missing'}: give an Amazon ECR, or another with --digests FILE")
    import boto3
    from botocore.exceptions import ClientError

    account, region, prefix = match[1], match[2], match[3].rstrip("/")
    client = boto3.client("ecr", region_name=region)

    def digest_of(name: str, tag: str) -> str:
        repository = f"{prefix}/{name}" if prefix else name
        try:
            answer = client.describe_images(registryId=account, repositoryName=repository, imageIds=[{"imageTag": tag}])
        except ClientError as error:
            raise ConfigError(
                f"{registry}: no image {name}:{tag} ({error.response['Error']['Code']}); push it"
            ) from error
        return str(answer["imageDetails"][0]["imageDigest"])

    return digest_of
