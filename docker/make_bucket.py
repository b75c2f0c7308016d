#!/usr/bin/env python3
"""Makes the bucket of the store ``minio`` in DataJoint's settings, once its server answers; one that exists is kept."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

PAUSE = 2.0  # seconds
LIMIT = 120.0  # seconds


def main() -> int:
    """Make the bucket; return the exit code."""
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
    place, end = f"{store['bucket']} at {store['endpoint']}", time.monotonic() + LIMIT
    while True:
        try:
            if client.bucket_exists(store["bucket"]):
                print(f"The bucket {place} exists.")
            else:
                client.make_bucket(store["bucket"])
                print(f"Made the bucket {place}.")
            return 0
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
