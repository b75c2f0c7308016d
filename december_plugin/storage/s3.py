"""A store in a bucket of an S3 server (AWS, MinIO, ...), with short timeouts.

DataJoint's own client, MinIO's by default, waits five minutes for an answer and tries again five times. Ours gives up
after :data:`CONNECT_SECONDS` and :data:`ANSWER_SECONDS`: the caller knows better whether to retry.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import certifi
import minio
import urllib3
from minio import error as minio_errors

from december_plugin.importing.datajoint_internals import location_in_bucket, set_bucket
from december_plugin.storage.base import ObjectStore, StoredObject, UnfinishedUpload, checked_path, status_of
from december_plugin.storage.settings import store_settings

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 7.0
_PIECE = 256 * 1024  # bytes
_ONE_PUT = 5 * 1024**3  # S3 takes no more in one request (bytes)
_SECRETS = ("access_key", "secret_key", "proxy_server")


class _InPieces:
    """Sends a request's body in pieces, so that the time limit applies to a stall and not to the whole body."""

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes) or len(data) <= _PIECE:
            super().send(data)  # type: ignore[misc]
            return
        whole = memoryview(data)
        for begin in range(0, len(whole), _PIECE):
            super().send(whole[begin : begin + _PIECE])  # type: ignore[misc]


class _Connection(_InPieces, urllib3.connection.HTTPConnection):
    pass


class _SecureConnection(_InPieces, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _http(proxy: str | None) -> urllib3.PoolManager:
    settings: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        "retries": urllib3.Retry(
            total=2,
            connect=1,
            read=0,
            status=2,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=False,  # a server may ask for minutes
        ),
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": os.environ.get("SSL_CERT_FILE") or certifi.where(),
        "maxsize": 10,
    }
    manager = urllib3.ProxyManager(proxy, **settings) if proxy else urllib3.PoolManager(**settings)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


def quick_client(spec: Mapping[str, Any]) -> minio.Minio:
    """Return a client for the S3 server of a store's settings; nothing is asked yet.

    Raises
    ------
    ValueError
        The endpoint is not a host name with an optional port.
    """
    return minio.Minio(
        spec["endpoint"],
        access_key=spec["access_key"],
        secret_key=spec["secret_key"],
        secure=bool(spec.get("secure", False)),
        http_client=_http(spec.get("proxy_server")),
    )


def use_quick_client(connection: Any, schema: str, store: str) -> None:
    """Make DataJoint use a client like ours for the attachments of a schema in a store; nothing is asked yet.

    Call it before the first attachment. A store in a folder stays as it is.

    Parameters
    ----------
    connection
        The DataJoint connection that has the schema open.
    schema, store
        Their names.

    Raises
    ------
    ServerError
        The store's settings are wrong.
    """
    spec = store_settings(store)
    if spec["protocol"].lower() != "s3":
        return
    from datajoint import s3

    folder = s3.Folder.__new__(s3.Folder)  # its __init__ makes its own client and asks the server
    folder.client = quick_client(spec)
    folder.bucket = spec["bucket"]
    set_bucket(connection.schemas[schema].external[store], folder)


class S3Store(ObjectStore):
    """A bucket, or a part of one."""

    def __init__(self, name: str, spec: Mapping[str, Any]):
        self.name = name
        self.bucket = str(spec["bucket"])
        self.endpoint = str(spec["endpoint"])
        self.prefix = location_in_bucket(spec)
        self._secrets = tuple(str(spec[key]) for key in _SECRETS if spec.get(key))
        try:
            self._client = quick_client(spec)
        except ValueError as error:
            raise self.unavailable(self._describe_error(error)) from None

    @property
    def place(self) -> str:
        """Endpoint, bucket and location."""
        below = f", below {self.prefix.rstrip('/')!r}" if self.prefix else ""
        return f"the bucket {self.bucket!r} at {self.endpoint}{below}"

    def check(self) -> None:
        """Check that the server answers and has the bucket, and that it is the right one."""
        with self._errors(""):
            exists = self._client.bucket_exists(self.bucket)
        if not exists:
            raise self.unavailable("the bucket does not exist")
        self.check_identity()

    def put(self, path: str, payload: bytes) -> None:
        """Write a complete file; if this fails, its earlier content is unchanged."""
        key = self._key(path)
        with self._errors(path):
            # One request where S3 allows it: nothing of it remains if it is cut off.
            part = min(max(len(payload), 5 * 1024**2), _ONE_PUT)
            self._client.put_object(
                self.bucket, key, io.BytesIO(payload), len(payload), part_size=part, num_parallel_uploads=1
            )

    def get(self, path: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if there is none."""
        key = self._key(path)
        with self._errors(path):
            response = self._client.get_object(self.bucket, key)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        key = self._key(path)
        with contextlib.suppress(FileNotFoundError), self._errors(path):
            self._client.remove_object(self.bucket, key)

    def find(self, path: str) -> StoredObject | None:
        """Return size and time of a file, or None if there is none."""
        key = self._key(path)
        try:
            with self._errors(path):
                return self._describe(self._client.stat_object(self.bucket, key))
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files below a folder, in any order; none if there is no such folder."""
        below = f"{self._key(prefix)}/" if prefix else self.prefix
        with self._errors(prefix):
            for found in self._client.list_objects(self.bucket, prefix=below, recursive=True):
                if not found.is_dir:
                    yield self._describe(found)

    def unfinished_uploads(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Yield uploads below a folder that were begun and never completed, and that :meth:`list` does not show."""
        below = f"{self._key(prefix)}/" if prefix else self.prefix
        with self._errors(prefix):
            after: dict[str, Any] = {}
            while True:
                # minio has no public method for unfinished uploads.
                found = self._client._list_multipart_uploads(self.bucket, prefix=below, **after)  # noqa: SLF001
                for upload in found.uploads:
                    path = upload.object_name[len(self.prefix) :]
                    if upload.initiated_time is not None and upload.upload_id is not None:
                        yield UnfinishedUpload(path, upload.initiated_time, upload.upload_id)
                if not found.is_truncated:
                    return
                after = {"key_marker": found.next_key_marker, "upload_id_marker": found.next_upload_id_marker}

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Remove what is left of an upload that was never completed; nothing happens if it is gone."""
        with contextlib.suppress(FileNotFoundError), self._errors(upload.path):
            self._client._abort_multipart_upload(self.bucket, self._key(upload.path), upload.upload_id)  # noqa: SLF001

    def _describe(self, found: Any) -> StoredObject:
        return StoredObject(found.object_name[len(self.prefix) :], found.size or 0, found.last_modified)

    def _key(self, path: str) -> str:
        return f"{self.prefix}{checked_path(path)}"

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except minio_errors.S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject", "NoSuchUpload"):
                raise FileNotFoundError(f"{path} in the store {self.name!r}") from None
            raise self.unavailable(self._describe_error(error)) from None
        except (minio_errors.MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # The cause is left out: requests and answers can hold keys.
            raise self.unavailable(self._describe_error(error)) from None

    def _describe_error(self, error: BaseException) -> str:
        return describe_failure(error, self._secrets)


def describe_failure(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """Describe why an S3 server could not be used, without keys.

    Parameters
    ----------
    error
        What MinIO's client, urllib3 or DataJoint raised.
    secrets
        Texts that must not be in the description.
    """
    reason = getattr(error, "reason", None)
    if isinstance(error, urllib3.exceptions.MaxRetryError) and isinstance(reason, Exception):
        error = reason
    description = _describe(error)
    for secret in sorted(secrets, key=len, reverse=True):
        description = description.replace(secret, "***")
    return description


def _describe(error: BaseException) -> str:
    exceptions = urllib3.exceptions
    if isinstance(error, minio_errors.S3Error):
        return f"{error.code}: {error.message}".rstrip(".")
    if isinstance(error, minio_errors.InvalidResponseError):
        return f"the server answers with status {status_of(error)}"
    if isinstance(error, exceptions.NameResolutionError):
        return "the name of its host cannot be resolved"
    if isinstance(error, exceptions.NewConnectionError):  # before ConnectTimeoutError, its base in old versions
        return f"no connection ({str(error).rpartition('] ')[2]})"
    if isinstance(error, exceptions.ConnectTimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, (exceptions.ReadTimeoutError, TimeoutError)):
        return f"no answer for {ANSWER_SECONDS:g} s"
    if isinstance(error, exceptions.ProtocolError) and isinstance(error.args[-1], TimeoutError):
        return "sending stalled"
    if isinstance(error, exceptions.ProtocolError):
        return "the connection was cut in the middle"
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line[:200]}".rstrip(": .")
