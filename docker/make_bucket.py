#!/usr/bin/env python3
"""Makes the bucket of the store ``minio`` in DataJoint's settings, and MinIO's accounts for it; what exists is kept.

The settings of this service have the key of MinIO's root account, which no other service sees. The keys of the two
accounts are in files, ``worker_access_key`` and so on, in ``/run/secrets``: workers read and write and delete nothing
but checkpoints; the admin's account does what `december store clean` needs, too. On a server that is no MinIO, or
without these files, only the bucket is made. The same keys again change nothing; a new secret key takes effect.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

PAUSE = 2.0  # seconds
LIMIT = 120.0  # seconds
ROLES = ("worker", "admin")
CHECKPOINTS = "december_checkpoints"  # the folder of the store in which workers may delete
MARK = "december-store.txt"  # by which december knows the store


def policy(role: str, bucket: str, location: str) -> dict[str, Any]:
    """Return what an account may do: in the store's part of the bucket, and nowhere else.

    Parameters
    ----------
    role
        ``worker`` or ``admin``.
    bucket, location
        Of the store.
    """
    whole = f"arn:aws:s3:::{bucket}"
    store = f"{whole}/{location.strip('/')}".rstrip("/")

    def rule(actions: list[str], resource: str, effect: str = "Allow") -> dict[str, Any]:
        return {"Effect": effect, "Action": [f"s3:{action}" for action in actions], "Resource": [resource]}

    rules = [
        rule(["GetBucketLocation", "ListBucket", "ListBucketMultipartUploads"], whole),
        rule(["GetObject", "PutObject", "AbortMultipartUpload", "ListMultipartUploadParts"], f"{store}/*"),
    ]
    if role == "admin":
        rules.append(rule(["DeleteObject"], f"{store}/*"))
    else:
        rules.append(rule(["DeleteObject"], f"{store}/{CHECKPOINTS}/*"))
        rules.append(rule(["PutObject"], f"{store}/{MARK}", "Deny"))
    return {"Version": "2012-10-17", "Statement": rules}


def keys_of_accounts(folder: Path) -> dict[str, tuple[str, str]]:
    """Return access key and secret key of each account, by role; those without files are left out."""
    found = {}
    for role in ROLES:
        paths = [folder / f"{role}_{kind}_key" for kind in ("access", "secret")]
        if all(path.exists() for path in paths):
            access_key, secret_key = (path.read_text(encoding="utf-8").strip() for path in paths)
            found[role] = access_key, secret_key
    return found


def make_accounts(store: dict[str, Any], accounts: dict[str, tuple[str, str]], http_client: Any) -> None:
    """Make MinIO's accounts, each with its policy.

    Parameters
    ----------
    store
        DataJoint's settings of the store, with the key of MinIO's root account.
    accounts
        Access key and secret key by role.
    http_client
        Sends the requests.

    Raises
    ------
    ValueError
        An account has the key of the root account.
    """
    from minio.credentials import StaticProvider
    from minio.minioadmin import MinioAdmin

    if store["access_key"] in [access_key for access_key, _ in accounts.values()]:
        raise ValueError("an account has the access key of MinIO's root account: give it another one")
    admin = MinioAdmin(
        endpoint=store["endpoint"],
        credentials=StaticProvider(store["access_key"], store["secret_key"]),
        secure=store["secure"],
        http_client=http_client,
    )
    for role, (access_key, secret_key) in accounts.items():
        name = f"december-{role}"
        admin.policy_add(name, policy=policy(role, store["bucket"], store["location"]))
        admin.user_add(access_key, secret_key)
        admin.policy_set(name, user=access_key)
        print(f"The account of the {role} has the policy {name}.")


def main() -> int:
    """Make the bucket and the accounts; return the exit code."""
    import minio
    import urllib3

    path = Path.home() / ".datajoint_config.json"
    store = json.loads(path.read_text(encoding="utf-8"))["stores"]["minio"]
    if store["protocol"] != "s3":
        print(f"The models are kept in the folder {store['location']}: no bucket is needed.")
        return 0
    patient = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=30), retries=False)
    client = minio.Minio(
        store["endpoint"],
        access_key=store["access_key"],
        secret_key=store["secret_key"],
        secure=store["secure"],
        http_client=patient,
    )
    accounts = keys_of_accounts(Path(os.environ.get("DECEMBER_SECRETS_FOLDER") or "/run/secrets"))
    place, end = f"{store['bucket']} at {store['endpoint']}", time.monotonic() + LIMIT
    while True:
        try:
            if client.bucket_exists(store["bucket"]):
                print(f"The bucket {place} exists.")
            else:
                client.make_bucket(store["bucket"])
                print(f"Made the bucket {place}.")
            make_accounts(store, accounts, patient)
            return 0
        except minio.error.MinioAdminException as error:
            print(f"error: the accounts of the store at {store['endpoint']} cannot be made ({error}).", file=sys.stderr)
            return 1
        except (minio.error.S3Error, ValueError) as error:  # an answer, and no
            reason = f"{error.code}: {error.message}" if isinstance(error, minio.error.S3Error) else str(error)
            print(f"error: the bucket {place} cannot be made ({reason}).", file=sys.stderr)
            return 1
        except (urllib3.exceptions.HTTPError, minio.error.MinioException) as error:
            if time.monotonic() > end:
                print(f"error: {store['endpoint']} does not answer ({error}).", file=sys.stderr)
                return 1
        time.sleep(PAUSE)


if __name__ == "__main__":
    sys.exit(main())
