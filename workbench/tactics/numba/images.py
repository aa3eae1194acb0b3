"""Compiled kernels as images: machine code that a later process maps without numba.

numba and LLVM take 80 MiB of memory and half a second of a process that only runs kernels. An image
is the kernel's own code and constants, linked to lie together; what it calls (``memset``, ``expf``)
it reaches through slots that are filled where it is mapped. Only for Linux on x86-64.
Source of the formats: System V ABI, AMD64 supplement: ELF64, relocation types.
"""

from __future__ import annotations

import ctypes
import functools
import json
import mmap
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.digests import sha256, sha256_hex
from workbench.errors import WorkbenchError
from workbench.files import write_atomically

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64"
_ALIGN = 64
_SLOT = 16
"""Bytes a called function takes: a jump to the address in its second half."""
_JUMP = b"\xff\x25\x02\0\0\0\0\0"
_ABSOLUTE, _PC32, _PLT32, _GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX = 1, 2, 4, 9, 41, 42
_DESTRUCTOR = "NRT_MemInfo_call_dtor"
"""Called for an owner without users; arrays that we pass have no owner."""
_ALLOCATED, _WITH_BITS, _RELOCATIONS = 2, 1, 4


@dataclass(frozen=True, eq=False)
class MappedKernel:
    """A kernel's machine code in memory. words: arguments that it takes, numba's results apart."""

    address: int
    words: int
    memory: mmap.mmap


@dataclass(frozen=True)
class Image:
    """A linked kernel: where it starts, the functions that its slots stand for, in order.

    fixups: (where, to what) its own addresses are written once it is mapped.
    """

    code: bytes
    entry: int
    words: int
    calls: tuple[str, ...]
    fixups: tuple[tuple[int, int], ...] = ()

    def save(self, path: Path) -> None:
        """Write it with its digest."""
        about = json.dumps([self.entry, self.words, self.calls, self.fixups]).encode()
        data = struct.pack("<Q", len(about)) + about + self.code
        write_atomically(path, sha256(data) + data)

    @classmethod
    def load(cls, path: Path) -> Image | None:
        """What ``save`` wrote; None where there is none, or a damaged one."""
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        if sha256(whole[32:]) != whole[:32]:
            return None
        (size,) = struct.unpack_from("<Q", whole, 32)
        entry, words, calls, fixups = json.loads(whole[40 : 40 + size])
        fixed = tuple((place, target) for place, target in fixups)
        return cls(whole[40 + size :], entry, words, tuple(calls), fixed)

    def mapped(self) -> MappedKernel | None:
        """Executable in this process; None where a function is missing or memory may not run."""
        code = bytearray(self.code)
        for k, name in enumerate(self.calls):
            address = _address(name)
            if address is None:
                return None
            struct.pack_into("<Q", code, k * _SLOT + 8, address)
        memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE)
        start = np.frombuffer(memory, np.uint8).ctypes.data
        for place, target in self.fixups:
            struct.pack_into("<Q", code, place, start + target)
        memory[:] = bytes(code)
        allowed = mmap.PROT_READ | mmap.PROT_EXEC
        if _libc().mprotect(ctypes.c_void_p(start), ctypes.c_size_t(len(code)), allowed):
            return None
        return MappedKernel(start + self.entry, self.words, memory)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@functools.cache
def _address(name: str) -> int | None:
    """Where the C library or its mathematics have a function."""
    if name == _DESTRUCTOR:
        name = "abort"
    for library in (_libc(), ctypes.CDLL("libm.so.6")):
        if hasattr(library, name):
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    return None


@functools.cache
def processor() -> str:
    """A digest of what code generation may depend on: the processor's model and features."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    told = {k.strip(): v for k, _, v in (line.partition(":") for line in lines)}
    text = told.get("model name", "") + told.get("flags", "")
    return sha256_hex(text.encode())[:16]


def image_of(compiled: Any, words: int) -> Image | None:
    """A kernel that numba has just compiled; None where it needs more than an image can hold."""
    import llvmlite.binding as llvm

    if not hasattr(llvm, "create_new_module_pass_manager"):
        return None  # llvmlite before 0.45
    name = compiled.fndesc.llvm_func_name
    module = llvm.parse_assembly(compiled.library.get_llvm_str())
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != name:
            value.linkage = "internal"
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="small",
    )
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    passes.run(module, builder)
    return link(machine.emit_object(module), name, words)


# -- linking ------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int


def link(data: bytes, name: str, words: int) -> Image | None:
    """The function ``name`` of an ELF object with all that it needs; None where that is more."""
    sections = list(_sections(data))
    table = next(s for s in sections if s.kind == 2)
    symbols = [
        struct.unpack_from("<IBBHQQ", data, table.offset + k)
        for k in range(0, table.size, struct.calcsize("<IBBHQQ"))
    ]
    strings = sections[table.link]

    def text(symbol: tuple[int, ...]) -> str:
        start = strings.offset + symbol[0]
        return data[start : data.index(b"\0", start)].decode()

    relocations = [
        (s.info, *struct.unpack_from("<QIIq", data, s.offset + k))
        for s in sections
        if s.kind == _RELOCATIONS and sections[s.info].flags & _ALLOCATED
        for k in range(0, s.size, 24)
        if not _is_unwinding(data, sections, s.info)
    ]
    outside = [symbols[r[3]] for r in relocations if symbols[r[3]][3] == 0]
    calls = tuple(dict.fromkeys(text(s) for s in outside))
    if any(_address(c) is None for c in calls):
        return None
    image = bytearray(b"".join(_JUMP + bytes(8) for _ in calls))
    places: dict[int, int] = {}
    for index, s in enumerate(sections):
        if s.flags & _ALLOCATED and not _is_unwinding(data, sections, index):
            if s.kind != _WITH_BITS:
                return None  # memory that is written, such as a variable
            image += bytes(-len(image) % _ALIGN)
            places[index] = len(image)
            image += data[s.offset : s.offset + s.size]
    fixups: list[tuple[int, int]] = []
    for section, offset, kind, number, addend in relocations:
        symbol = symbols[number]
        if symbol[3]:
            if kind not in (_ABSOLUTE, _PC32, _PLT32) or symbol[3] not in places:
                return None
            target = places[symbol[3]] + symbol[4]
            if kind == _ABSOLUTE:
                fixups.append((places[section] + offset, target + addend))
                continue
        elif kind in (_PLT32, _GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX):
            target = calls.index(text(symbol)) * _SLOT + (0 if kind == _PLT32 else 8)
        else:
            return None
        place = places[section] + offset
        struct.pack_into("<i", image, place, target + addend - place)
    entry = next((s for s in symbols if s[3] in places and text(s) == name), None)
    if entry is None:
        return None  # numba took it from its own cache, without its text
    return Image(bytes(image), places[entry[3]] + entry[4], words, calls, tuple(fixups))


def _sections(data: bytes) -> Iterator[_Section]:
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    for k in range(count):
        _, kind, flags, _, offset, length, linked, info = struct.unpack_from(
            "<IIQQQQII", data, start + k * size
        )
        yield _Section(kind, flags, offset, length, linked, info)


def _is_unwinding(data: bytes, sections: list[_Section], index: int) -> bool:
    """Whether a section is .eh_frame, for exceptions that no kernel throws."""
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, _ = struct.unpack_from("<HH", data, 0x3A)
    (names,) = struct.unpack_from("<H", data, 0x3E)
    (name,) = struct.unpack_from("<I", data, start + index * size)
    begin = sections[names].offset + name
    return data[begin : begin + 9] == b".eh_frame"


def kept(path: Path) -> MappedKernel | None:
    """The kernel whose image lies there, mapped."""
    image = Image.load(path)
    return None if image is None else image.mapped()


def keep(path: Path, compiled: Any, words: int) -> MappedKernel | None:
    """Write the image of a kernel that was just compiled, and map it; None where it has none."""
    image = image_of(compiled, words)
    if image is None:
        return None
    try:
        image.save(path)
    except (OSError, WorkbenchError):
        return None
    return image.mapped()
