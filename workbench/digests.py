"""SHA-256 without OpenSSL where little is digested.

``hashlib`` loads OpenSSL's library: 3.5 MB of memory, of a process that runs a small model.
"""

from __future__ import annotations

import importlib
from typing import Any

WORTH_OPENSSL = 1 << 20
"""Bytes from which OpenSSL's speed, 4 to 8 times Python's own, is worth its memory."""


def _own() -> Any:
    # Python's random does the same: "hashlib is pretty heavy to load, try lean internal module".
    for name in ("_sha2", "_sha256"):  # since Python 3.12, and before
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module("hashlib")


_OWN = _own()


def sha256(data: bytes) -> bytes:
    """The digest, 32 bytes."""
    module = importlib.import_module("hashlib") if len(data) >= WORTH_OPENSSL else _OWN
    return module.sha256(data).digest()


def sha256_hex(data: bytes) -> str:
    """The digest in hexadecimal, 64 digits."""
    return sha256(data).hex()
