"""A gate before a local S3 server: it lets a request through only where the policies do, conditions included.

moto's own enforcement knows actions, resources and signatures but no conditions; the gate knows those.
"""

import io
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, unquote

from .evaluator import Request, allowed, applying

Start = Callable[..., Any]
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>%s</Message></Error>'
ANONYMOUS = Request(principal="arn:aws:iam::0:role/mixtune-nobody", action="s3:GetObject", resource="", context={})
HEADERS = {
    "HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION": "s3:x-amz-server-side-encryption",
    "HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION_AWS_KMS_KEY_ID": "s3:x-amz-server-side-encryption-aws-kms-key-id",
}


class Gate:
    """WSGI middleware; `network` holds what the network tells AWS of a request, and tests change it."""

    def __init__(self, application: Any, documents: dict[str, Any], settings: dict[str, str]) -> None:
        self._application, self._documents, self._settings = application, documents, settings
        self.roles: dict[str, str] = {}
        self.network = {
            "aws:SecureTransport": "true",
            "s3:TlsVersion": "1.3",
            "aws:SourceVpce": settings["S3_VPC_ENDPOINT"],
        }
        self.denials: list[str] = []
        self._uploads: dict[str, dict[str, str]] = {}

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        match = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        name = match[1] if match else ""
        if name == "admin":
            return list(self._application(environ, start))
        requests = self._requests(environ, self.roles[name]) if name in self.roles else [ANONYMOUS]
        for request in requests:
            if not self._permits(request):
                self.denials.append(f"{request.principal.rsplit('/', 1)[-1]} {request.action} {request.resource}")
                start("403 Forbidden", [("Content-Type", "application/xml")])
                return [DENIED % request.action.encode()]
        return self._forward(environ, start)

    def _requests(self, environ: dict[str, Any], role: str) -> list[Request]:
        """What a request asks to be allowed: the operation, and the use of the key."""
        bucket, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        context = {**self.network, "aws:PrincipalAccount": self._settings["ACCOUNT"]}
        context |= {"aws:PrincipalIsAWSService": "false", "aws:PrincipalArn": self._arn(role)}
        context |= {name: environ[header] for header, name in HEADERS.items() if header in environ}
        # A part carries no header of its own: it is encrypted as its upload was begun.
        context |= self._uploads.get(query.get("uploadId", [""])[0], {})
        if "prefix" in query:
            context["s3:prefix"] = query["prefix"][0]
        action = _action(environ["REQUEST_METHOD"], key, query)
        keys = _deleted(environ) if action == "s3:DeleteObject" and not key else [key]
        names = [f"arn:aws:s3:::{bucket}/{name}".rstrip("/") for name in keys]
        found = [Request(principal=self._arn(role), action=action, resource=name, context=context) for name in names]
        use = {"s3:PutObject": "kms:GenerateDataKey", "s3:GetObject": "kms:Decrypt"}.get(action)
        if use:
            through = {"kms:ViaService": f"s3.{self._settings['REGION']}.amazonaws.com"}
            through["kms:CallerAccount"] = self._settings["ACCOUNT"]
            key_arn = self._settings["KMS_KEY_ARN"]
            found.append(Request(principal=self._arn(role), action=use, resource=key_arn, context=through))
        return found

    def _permits(self, request: Request) -> bool:
        identity = self._documents.get(request.principal.rsplit("-", 1)[-1], {})
        if request.action.startswith("kms:"):
            # A key that does not trust IAM for S3's use of it needs both its own policy and the role's.
            key = applying(request, self._documents["key"])
            return allowed(request, identity, {}) and "Allow" in key and "Deny" not in key
        return allowed(request, identity, self._documents["bucket"])

    def _forward(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        body = b"".join(self._application(environ, start))
        begun = re.search(rb"<UploadId>([^<]+)</UploadId>", body)
        if begun and environ["REQUEST_METHOD"] == "POST":
            headers = {name: environ[header] for header, name in HEADERS.items() if header in environ}
            self._uploads[begun[1].decode()] = headers
        return [body]

    def _arn(self, role: str) -> str:
        return f"arn:aws:iam::{self._settings['ACCOUNT']}:role/mixtune-{role}"


def _action(method: str, key: str, query: dict[str, list[str]]) -> str:
    if not key:
        return "s3:DeleteObject" if method == "POST" and "delete" in query else "s3:ListBucket"
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
    return "s3:PutObject" if method in ("PUT", "POST") else "s3:GetObject"


def _deleted(environ: dict[str, Any]) -> list[str]:
    """Keys that a request for many deletions names; its body stays readable."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = io.BytesIO(body)
    return re.findall("<Key>([^<]+)</Key>", body.decode())
