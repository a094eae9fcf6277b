"""A real S3 server on this machine, moto's, for tests of studies in buckets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

BUCKET = "studies"


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address, which this process's environment names while the block lasts; there is one bucket. Tests are skipped
    where moto or s3fs is not installed."""
    server_module = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        named = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with patch.dict(os.environ, named):
            store().mkdir(BUCKET)
            yield endpoint
    finally:
        server.stop()


def store():  # type: ignore[no-untyped-def]
    """The store as fsspec has it."""
    import fsspec

    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
