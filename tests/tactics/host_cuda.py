"""Runs generated CUDA C++ on the host: one thread after another, compiled by g++.

Kernels whose threads talk to each other, by shuffles and shared memory, run with ``together``: the
threads of a block are then the host's, which takes long.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from workbench.body import Array, Body
from workbench.formats import Format
from workbench.tactics.nvrtc.frame import KernelText
from workbench.tactics.nvrtc.weight_only import packed

SHIM = r"""
#define HOST_SHIM
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(x)
#define __restrict__
#define __shared__ static
#include <cmath>
#include <cstring>
struct Position { unsigned x; };
#ifdef TOGETHER
#include <pthread.h>
#include <thread>
#include <vector>
static Position blockIdx; static thread_local Position threadIdx;
static pthread_barrier_t meeting;
static void __syncthreads() { pthread_barrier_wait(&meeting); }
template <typename T> static T __shfl_xor_sync(unsigned, T v, int other) {
  static unsigned long long shown[1024]; T found;
  memcpy(&shown[threadIdx.x], &v, sizeof(T)); __syncthreads();
  memcpy(&found, &shown[threadIdx.x ^ other], sizeof(T)); __syncthreads();
  return found; }
#else
static Position blockIdx, threadIdx;
static void __syncthreads() {}
template <typename T> static T __shfl_xor_sync(unsigned, T v, int) { return v; }
#endif
static float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
static float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
static void __syncwarp() {}
static int atomicMax(int* p, int v) { int old = *p; *p = old > v ? old : v; return old; }
static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a > b ? a : b; }
static double cospi(double x) { return cos(M_PI * x); }
static double sinpi(double x) { return sin(M_PI * x); }
static float load_HALF(unsigned short h) { _Float16 f; memcpy(&f, &h, 2); return (float)f; }
static unsigned short store_HALF(float v) {
  _Float16 f = (_Float16)v; unsigned short h; memcpy(&h, &f, 2); return h; }
template <int M, int BIAS, int TOP> struct Eight {
  static float load(unsigned char b) {
    int e = (b >> M) & ((1 << (7 - M)) - 1), m = b & ((1 << M) - 1);
    if ((b & 127) == TOP + 1 && TOP < 126) return b & 128 ? -INFINITY : INFINITY;
    if ((b & 127) > TOP) return NAN;
    float v = e ? ldexpf(1 + m / (float)(1 << M), e - BIAS) : ldexpf(m / (float)(1 << M), 1 - BIAS);
    return b & 128 ? -v : v; }
  static unsigned char store(float v) {  // the nearest, even on a tie; saturating
    unsigned char sign = std::signbit(v) ? 128 : 0;
    if (v != v) return 127;
    if (v - v != 0) return sign | (TOP + 1);
    v = fabsf(v);
    int best = 0;
    for (int c = 1; c <= TOP; ++c) {
      float d = fabsf(load(c) - v), old = fabsf(load(best) - v);
      if (d < old || (d == old && c % 2 == 0)) best = c; }
    return sign | best; } };
static float load_FP8(unsigned char b) { return Eight<3, 7, 126>::load(b); }
static unsigned char store_FP8(float v) { return Eight<3, 7, 126>::store(v); }
static float load_FP8E5M2(unsigned char b) { return Eight<2, 15, 123>::load(b); }
static unsigned char store_FP8E5M2(float v) { return Eight<2, 15, 123>::store(v); }
static float larger(float a, float b) { return a != a || a > b ? a : b; }
static unsigned larger_f32(unsigned a, unsigned b) {
  return __float_as_uint(larger(__uint_as_float(a), __uint_as_float(b))); }
template <typename F> static unsigned pairs(unsigned a, unsigned b, F of) {
  return (of(a >> 16, b >> 16) & 0xffffu) << 16 | (of(a & 0xffffu, b & 0xffffu) & 0xffffu); }
static unsigned larger_f16x2(unsigned a, unsigned b) {
  return pairs(a, b, [](unsigned x, unsigned y) -> unsigned {
    return store_HALF(larger(load_HALF(x), load_HALF(y))); }); }
static unsigned larger_bf16x2(unsigned a, unsigned b) {
  return pairs(a, b, [](unsigned x, unsigned y) {
    return larger_f32(x << 16, y << 16) >> 16; }); }
static unsigned __vmaxs2(unsigned a, unsigned b) {
  return pairs(a, b, [](unsigned x, unsigned y) {
    return (short)x > (short)y ? x : y; }); }
static unsigned __vmaxu2(unsigned a, unsigned b) {
  return pairs(a, b, [](unsigned x, unsigned y) { return x > y ? x : y; }); }
static unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
  unsigned long long both = (unsigned long long)b << 32 | a; unsigned r = 0;
  for (int k = 0; k < 4; ++k) r |= (unsigned)(both >> 8 * (s >> 4 * k & 7) & 255) << 8 * k;
  return r; }
"""


ONE_BY_ONE = r"""
extern "C" void launch(int kernel, int grid, int block, void** a) {
  for (int b = 0; b < grid; ++b) for (int t = 0; t < block; ++t) {
    blockIdx.x = b; one(kernel, t, a); } }
"""
BLOCK_TOGETHER = r"""
extern "C" void launch(int kernel, int grid, int block, void** a) {
  pthread_barrier_init(&meeting, nullptr, block);
  for (int b = 0; b < grid; ++b) {
    blockIdx.x = b; std::vector<std::thread> threads;
    for (int t = 0; t < block; ++t) threads.emplace_back(one, kernel, t, a);
    for (auto& t : threads) t.join(); }
  pthread_barrier_destroy(&meeting); }
"""


@cache
def _compiled(code: str, *, together: bool = False) -> Any:
    arguments = re.search(r"run\((.*?)\) \{", code)
    assert arguments is not None
    given = arguments[1].replace("__restrict__", "").split(",")
    kinds = [p.strip().rsplit(maxsplit=1)[0] for p in given if p.strip()]
    casts = ", ".join(f"({k})a[{i}]" for i, k in enumerate(kinds))
    text = "#define TOGETHER\n" * together + SHIM + code
    text += "static void one(int kernel, int t, void** a) { threadIdx.x = t; switch (kernel) {\n"
    names = re.findall(r" (run\d*)\(", code)
    text += "".join(f"case {k}: {name}({casts}); break;\n" for k, name in enumerate(names))
    text += "} }\n" + (BLOCK_TOGETHER if together else ONE_BY_ONE)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        source.write_text(text)
        options = ("-O0", "-w", "-std=c++17", "-shared", "-fPIC", "-pthread")
        command = ["g++", *options, str(source), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return ctypes.CDLL(str(library)).launch  # mapped: it outlives its file


def run_on_host(
    body: Body,
    text: KernelText,
    values: Mapping[str, Array],
    inputs: Mapping[str, Format],
    output: Format,
    *,
    together: bool = False,
) -> dict[str, Array]:
    """Outputs by name. values: every input, linear. inputs, output: layouts of the kernel."""
    given = {i.name: inputs[i.name].pack(values[i.name]) for i in body.inputs}
    results = [
        np.full(output.physical_shape(t.shape), 0xFF, np.uint8)
        .repeat(t.dtype.itemsize)
        .view(t.dtype.numpy)
        if t.shape
        else np.zeros((), t.dtype.numpy)
        for t in body.output_types
    ]
    arrays = [given[i.name] for i in body.dynamic_inputs] + results
    packing = dict(text.packing)
    arrays += [
        packed(packing.get(k, ""), given[i.name]) for k, i in enumerate(body.inputs) if i.constant
    ]
    if text.workspace:
        arrays.append(np.full(text.workspace, 0xFF, np.uint8))
    alone = 0  # no kernel follows that may start
    addresses = (ctypes.c_void_p * (len(arrays) + 1))(*(a.ctypes.data for a in arrays), alone)
    for k, (_, grid, block) in enumerate(text.launches):
        _compiled(text.code, together=together)(k, grid, block, addresses)
    return {
        o: output.unpack(r.reshape(output.physical_shape(t.shape)), t.shape)
        for o, r, t in zip(body.outputs, results, body.output_types, strict=True)
    }
