"""The plan's file format: safetensors, written deterministically, with digests.

Layout: 8-byte little-endian header length; a compact JSON header, sorted, padded with spaces so
that the data start at a multiple of 64; then the sections. Tensors named ``pad/N`` make each
section start at a multiple of 64 bytes. ``records`` is JSON in a uint8 tensor; ``code/KEY`` is
machine code, always verified; ``weights/NAME`` are the execution weights, ``packed/STEP/KEY``
copies of some as kernels of the building machine read them. A type that safetensors has no name
for (INT4, FP4, complex) is stored as its bytes, four-bit numbers two per byte; strings as JSON.
The header's ``__metadata__`` says which type that is, and holds digests; that of the weights is a
tree's, so that processors share it (``host_threads.digest``). Any safetensors reader opens it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import Array
from workbench.datatypes import DataType
from workbench.digests import sha256_hex
from workbench.errors import PlanError
from workbench.host_threads import digest

FORMAT = "inference-workbench-plan"
FORMAT_VERSION = 5
ANY_FILE = "plan file"
"""The place named in an error while the path is not known."""
_ALIGN = 64
LARGE_BYTES = 1 << 16
"""Bytes from which a tensor lies behind all smaller ones."""
_LARGEST_HEADER = 100_000_000  # the safetensors format's own limit

_TYPES: dict[DataType, str] = {
    DataType.FLOAT: "F32",
    DataType.HALF: "F16",
    DataType.BF16: "BF16",
    DataType.DOUBLE: "F64",
    DataType.FP8: "F8_E4M3",
    DataType.FP8E5M2: "F8_E5M2",
    DataType.INT8: "I8",
    DataType.UINT8: "U8",
    DataType.INT16: "I16",
    DataType.UINT16: "U16",
    DataType.INT32: "I32",
    DataType.UINT32: "U32",
    DataType.INT64: "I64",
    DataType.UINT64: "U64",
    DataType.BOOL: "BOOL",
}
_NAMES = {v: k for k, v in _TYPES.items()}
_HALF_BYTES = (DataType.INT4, DataType.UINT4, DataType.FP4)
"""Stored two per byte, the first in the low half, as ONNX stores them."""


def _place(section: tuple[str, str, tuple[int, ...], bytes]) -> int:
    """Where a tensor lies in the file: what every run reads first, side by side.

    Systems map a file by up to 2 MB at a time, so that a scale beside a large weight that only a
    packed copy replaces would bring that weight into memory.
    """
    name, _, _, raw = section
    if len(raw) < LARGE_BYTES:
        return 0
    return 1 if name.startswith("packed/") else 2


def write_file(
    records: Mapping[str, Any],
    weights: Mapping[str, Array],
    code: Mapping[str, bytes] = MappingProxyType({}),
    packed: Mapping[str, Array] = MappingProxyType({}),
) -> bytes:
    """The bytes of a plan file."""
    text = json.dumps(records, sort_keys=True, separators=(",", ":"), allow_nan=True).encode()
    sections: list[tuple[str, str, tuple[int, ...], bytes]] = [
        ("records", "U8", (len(text),), text)
    ]
    sections.extend((f"code/{k}", "U8", (len(c),), c) for k, c in sorted(code.items()))
    unnamed: dict[str, str] = {}
    halved: dict[str, list[int]] = {}
    for name, array in sorted(weights.items()):
        kind = DataType.of(array)
        shape, raw = array.shape, _texts(array) if kind is DataType.STRING else _raw(array)
        if kind in _HALF_BYTES:
            halved[name], raw = list(shape), _two_per_byte(raw)
            shape = (len(raw),)
        if kind is DataType.STRING:
            unnamed[name], shape = kind.value, (len(raw),)
        elif kind not in _TYPES:
            unnamed[name] = kind.value
            shape = (*shape, kind.itemsize) if kind.itemsize > 1 else shape
        sections.append((f"weights/{name}", _TYPES.get(kind, "U8"), shape, raw))
    sections.extend((f"packed/{k}", "U8", (a.nbytes,), _raw(a)) for k, a in sorted(packed.items()))
    header: dict[str, Any] = {}
    chunks: list[bytes] = []
    end = 0
    leading = len(code) + 1
    for index, (name, kind, shape, raw) in enumerate(
        (*sections[:leading], *sorted(sections[leading:], key=_place))
    ):
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + len(raw)]}
        chunks.append(raw)
        end += len(raw)
        if pad := -end % _ALIGN:
            header[f"pad/{index}"] = {
                "dtype": "U8",
                "shape": [pad],
                "data_offsets": [end, end + pad],
            }
            chunks.append(bytes(pad))
            end += pad
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "weights_sha256": digest(raw for _, _, _, raw in sections[1 + len(code) :]),
        "code_sha256": sha256_hex(b"".join(c for _, c in sorted(code.items()))),
    }
    if unnamed:
        metadata["weight_types"] = _encode(unnamed).decode()
    if halved:
        metadata["packed_shapes"] = _encode(halved).decode()
    metadata["sha256"] = _header_digest(header, metadata, text)
    encoded = _encode({**header, "__metadata__": metadata})
    encoded += b" " * (-(len(encoded) + 8) % _ALIGN)
    return struct.pack("<Q", len(encoded)) + encoded + b"".join(chunks)


def read_file(
    data: bytes | memoryview | mmap.mmap, *, verify: str = "full"
) -> tuple[dict[str, Any], dict[str, Array], dict[str, bytes], dict[str, Array]]:
    """(records, weights, code, packed) of a plan file; arrays are read-only views of ``data``.

    Raises PlanError naming what is damaged. ``verify="lazy"`` leaves the weights unverified.
    """
    if verify not in ("full", "lazy"):
        raise PlanError(f"verify is {verify!r}", remedy="use 'full' or 'lazy'")
    view = memoryview(data)
    header, metadata, start = _read_header(view)
    raw = {name: _section(view, name, entry, start) for name, entry in header.items()}
    if "records" not in raw:
        raise _damaged("there is no section 'records'")
    expected = metadata.pop("sha256", "")
    found = _header_digest(header, metadata, bytes(raw["records"]))
    if found != expected:
        raise _damaged(
            f"header and records have SHA-256 {found[:12]}..., the file says {expected[:12]}..."
        )
    names = sorted(n for n in header if n.startswith("weights/"))
    kept = sorted(n for n in header if n.startswith("packed/"))
    code = {n.removeprefix("code/"): bytes(raw[n]) for n in sorted(header) if n.startswith("code/")}
    if sha256_hex(b"".join(code.values())) != metadata.get("code_sha256"):
        raise _damaged("its machine code is not what was written")
    if verify == "full":
        stored = (*names, *kept)
        found, expected = digest(raw[n] for n in stored), metadata.get("weights_sha256", "")
        if found != expected:
            raise _damaged(
                f"weights have SHA-256 {found[:12]}..., the file says {expected[:12]}..."
            )
        for name in header:
            if name.startswith("pad/") and any(raw[name]):
                raise _damaged(f"padding '{name}' is not zero")
    unnamed: dict[str, str] = json.loads(metadata.get("weight_types", "{}"))
    halved: dict[str, list[int]] = json.loads(metadata.get("packed_shapes", "{}"))
    weights = {
        (name := n.removeprefix("weights/")): _array(raw[n], header[n], unnamed.get(name, ""))
        for n in names
        if n.removeprefix("weights/") not in halved
    }
    for name, shape in halved.items():
        kind = DataType(unnamed[name])
        weights[name] = _one_per_byte(raw[f"weights/{name}"], kind, tuple(shape))
    packed = {n.removeprefix("packed/"): _array(raw[n], header[n], "") for n in kept}
    return json.loads(bytes(raw["records"])), weights, code, packed


def map_file(path: Path) -> memoryview:
    """A file's bytes, mapped read-only. Raises PlanError."""
    try:
        with path.open("rb") as f:
            if os.fstat(f.fileno()).st_size < 8:
                raise _damaged("it is shorter than 8 bytes", str(path))
            return memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as e:
        raise PlanError(f"cannot be read: {e.strerror}", place=str(path)) from None


def _read_header(view: memoryview) -> tuple[dict[str, Any], dict[str, str], int]:
    if len(view) < 8:
        raise _damaged(f"it has {len(view)} bytes")
    (length,) = struct.unpack("<Q", view[:8])
    if length > min(len(view) - 8, _LARGEST_HEADER):
        raise _damaged(f"its header would take {length} bytes of {len(view) - 8}")
    try:
        header = json.loads(bytes(view[8 : 8 + length]))
        metadata: dict[str, str] = dict(header.pop("__metadata__"))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise _damaged("its header is not a plan's") from None
    if metadata.get("format") != FORMAT:
        raise PlanError(
            f"its format is {metadata.get('format')!r}, not {FORMAT!r}",
            place=ANY_FILE,
            remedy="give a plan written by this workbench (NVIDIA TensorRT's plans differ)",
        )
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise PlanError(
            f"it has format version {metadata.get('format_version')}, "
            f"this runtime reads {FORMAT_VERSION}",
            place=ANY_FILE,
            remedy="build the plan again with this version",
        )
    if _encode({**header, "__metadata__": metadata}) != bytes(view[8 : 8 + length]).rstrip(b" "):
        raise _damaged("its header is not in the canonical form")
    return header, metadata, 8 + length


def _section(view: memoryview, name: str, entry: Any, start: int) -> memoryview:
    try:
        low, high = (int(x) for x in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(f"section '{name}' does not say where it lies") from None
    if not 0 <= low <= high <= len(view) - start:
        raise _damaged(f"section '{name}' ends at byte {start + high} of {len(view)}")
    return view[start + low : start + high]


def _header_digest(header: Mapping[str, Any], metadata: Mapping[str, str], records: bytes) -> str:
    return sha256_hex(_encode({"header": header, "metadata": metadata}) + records)


def _encode(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _raw(array: Array) -> bytes:
    return np.ascontiguousarray(array).view(np.uint8).tobytes() if array.ndim else array.tobytes()


def _two_per_byte(raw: bytes) -> bytes:
    halves = np.frombuffer(raw + bytes(len(raw) % 2), np.uint8) & 0x0F
    return (halves[0::2] | (halves[1::2] << 4)).tobytes()


def _one_per_byte(raw: memoryview, kind: DataType, shape: tuple[int, ...]) -> Array:
    """Four-bit numbers, each in a byte of its own, read-only; integers with their sign."""
    stored = np.frombuffer(raw, np.uint8)
    halves = np.stack([stored & 0x0F, stored >> 4], axis=1).reshape(-1)
    count = math.prod(shape)
    if halves.size < count:
        raise _damaged(f"{stored.size} bytes hold no {count} numbers of four bits")
    if kind is DataType.INT4:
        halves = ((halves.astype(np.int8) ^ 8) - 8).view(np.uint8)
    array = np.ascontiguousarray(halves[:count]).view(kind.numpy).reshape(shape)
    array.flags.writeable = False
    return array


def _texts(array: Array) -> bytes:
    """Strings with their shape, as JSON."""
    return _encode({"shape": array.shape, "values": [str(v) for v in array.reshape(-1)]})


def _array(raw: memoryview, entry: Mapping[str, Any], unnamed: str) -> Array:
    """A section as a read-only array. unnamed: its type, where safetensors has no name for it."""
    kind = DataType(unnamed) if unnamed else _NAMES[entry["dtype"]]
    if kind is DataType.STRING:
        texts = json.loads(bytes(raw))
        strings = np.array(texts["values"], np.object_).reshape(texts["shape"])
        strings.flags.writeable = False
        return strings
    shape = tuple(entry["shape"])
    if unnamed and kind.itemsize > 1:
        shape = shape[:-1]
    return np.frombuffer(raw, np.uint8).view(kind.numpy).reshape(shape)


def _damaged(what: str, place: str = ANY_FILE) -> PlanError:
    return PlanError(
        f"it is no plan, or damaged: {what}",
        place=place,
        remedy="copy it again, or build it again",
    )
