"""Which errors mean that a store is away, so that a worker waits for it, and which are a job's own."""

from __future__ import annotations

import errno

import pytest
import urllib3
from datajoint.errors import BucketInaccessible, DataJointError, MissingExternalFile
from minio.error import InvalidResponseError, S3Error

from december_plugin.errors import ServerError
from december_plugin.storage.base import StoreUnavailableError, is_store_outage


class Response:
    status = 400

    def __init__(self, status: int):
        self.status = status


def s3_error(code: str, status: int) -> S3Error:
    words = {"message": "words", "resource": None, "request_id": None, "host_id": None}
    return S3Error(code=code, response=Response(status), **words)  # their order differs between versions of minio


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailableError("away"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.ESTALE, "Stale file handle"),
        PermissionError(errno.EACCES, "Permission denied"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        FileNotFoundError("Inaccessible local directory /models"),
        urllib3.exceptions.MaxRetryError(urllib3.HTTPConnectionPool("h"), "/b"),
        urllib3.exceptions.ProtocolError("Connection aborted."),
        urllib3.exceptions.ReadTimeoutError(urllib3.HTTPConnectionPool("h"), "/b", "Read timed out."),
        BucketInaccessible("Inaccessible s3 bucket models"),
        s3_error("SlowDown", 503),
        s3_error("XMinioStorageFull", 507),
        s3_error("InternalError", 500),
        s3_error("AccessDenied", 403),
        s3_error("NoSuchBucket", 404),
        InvalidResponseError(503, "text/html", "<html>"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed: file write failed"),
    ],
)
def test_outages(error: Exception) -> None:
    assert is_store_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        MissingExternalFile("Missing s3 key x"),
        s3_error("NoSuchKey", 404),
        s3_error("InvalidArgument", 400),
        InvalidResponseError(404, "text/html", "<html>"),
        DataJointError("a mistake"),
        RuntimeError("CUDA out of memory"),
        ValueError("no"),
        ServerError("the database"),
    ],
)
def test_no_outages(error: Exception) -> None:
    assert not is_store_outage(error)
