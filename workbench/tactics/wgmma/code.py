"""The kernel: one warp copies tiles ahead, two warpgroups multiply and finish them.

Blocks stay and take one tile after the other. The copy engine (TMA) fills stages of shared memory,
swizzled as ``wgmma`` reads them; barriers in shared memory say which are full and which are free.
Of two warpgroups with tiles of their own one multiplies while the other finishes its sums, which
then costs the matrix units nothing.
Source: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions", "cp.async.bulk.tensor" and
"mbarrier"; the roles are those of CUTLASS's warp-specialized kernels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from workbench.datatypes import DataType
from workbench.tactics.nvrtc.scalars import PRELUDE, STORAGE
from workbench.tactics.nvrtc.small_types import prelude
from workbench.tactics.wgmma.epilogue import HELPERS, Finish, finish
from workbench.tactics.wgmma.matrices import GROUP, OWN, Matrices
from workbench.tactics.wgmma.tiles import LINE, WARPGROUP_ROWS, Tile

THREADS = 384
"""Of a block: a warpgroup that copies, two that multiply."""
HELD_REGISTERS = 48
"""For what is read beside the sums ahead of its use: bytes on their way hide how long they take."""
_TYPES = {DataType.HALF: "f16", DataType.BF16: "bf16", DataType.INT8: "s8", DataType.FP8: "e4m3"}

_PRELUDE = r"""
struct alignas(64) Map { u64 words[16]; };
INLINE unsigned shared_of(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
INLINE void barrier_init(unsigned b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(b), "r"(arrivals)); }
INLINE void expect(unsigned b, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :: "r"(b), "r"(bytes) : "memory"); }
INLINE void arrive(unsigned b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(b) : "memory"); }
INLINE void wait_for(unsigned b, unsigned phase) {
  asm volatile("{\n.reg .pred done;\nagain:\n"
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
               "@!done bra again;\n}" :: "r"(b), "r"(phase) : "memory"); }
INLINE void copy_windows(unsigned to, const Map* map, int c, int x, int y, int image,
                         int right, int down, unsigned b) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col"
               ".mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};"
               :: "r"(to), "l"(map), "r"(b), "r"(c), "r"(x), "r"(y), "r"(image),
                  "h"((u16)right), "h"((u16)down) : "memory"); }
INLINE void copy(unsigned to, const Map* map, int x, int y, unsigned b) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4}], [%2];"
               :: "r"(to), "l"(map), "r"(b), "r"(x), "r"(y) : "memory"); }
"""


@dataclass(frozen=True)
class ProductText:
    """CUDA C++ of a kernel ``run``.

    Its arguments: the tensor maps of both factors, the addresses of ``operands`` (Body inputs and
    outputs) in order, and whether the next kernel may start. tiles: of the whole output; no more
    blocks are launched.
    """

    code: str
    operands: tuple[str, ...]
    tiles: int


def product_text(matrices: Matrices, tile: Tile) -> ProductText:
    """The kernel of a product with a tile. Raises Untranslatable."""
    body = matrices.body
    after = finish(matrices)
    lines = "\n".join([*after.before, *after.columns, *after.row])
    read = [k for k in range(len(body.inputs)) if re.search(rf"\bin{k}\b", lines)]
    used = sorted({*read, *after.beside})
    conversions, _ = prelude(t.dtype for t in body.types.values())
    largest = max(prod(t.shape) for t in body.types.values())
    parameters = ["const __grid_constant__ Map rows_map", "const __grid_constant__ Map columns_map"]
    parameters += [_parameter(matrices, k) for k in used]
    parameters += [f"{STORAGE[t.dtype]}* out{k}" for k, t in enumerate(body.output_types)]
    parameters.append("u64 lets_next_start")
    down, across = -(-matrices.rows // tile.height), -(-matrices.columns // tile.columns)
    index = "int" if largest < 2**30 else "long long"
    code = (
        f"{PRELUDE}{conversions}typedef {index} idx;\n{_PRELUDE}{HELPERS}"
        + "".join(f"{t}\n" for t in after.tables)
        + _multiply(matrices.product.kind, tile.columns)
        + f'extern "C" __global__ void __launch_bounds__({THREADS}, 1) run('
        + f"{', '.join(parameters)}) {{\n{_body(matrices, tile, after)}}}\n"
    )
    operands = (*(body.inputs[k].name for k in used), *body.outputs)
    return ProductText(code, operands, down * across)


def _parameter(matrices: Matrices, k: int) -> str:
    """Constants alone are restricted: what an earlier kernel writes is not read ahead of it."""
    i = matrices.body.inputs[k]
    return f"const {STORAGE[i.type.dtype]}* {'__restrict__ ' if i.constant else ''}in{k}"


def _sum_type(kind: DataType) -> str:
    return "int" if kind is DataType.INT8 else "float"


def _multiply(kind: DataType, columns: int) -> str:
    """The function ``multiply``: 64 rows by so many columns by 32 bytes of each."""
    sums, name = columns // 2, _TYPES[kind]
    exact, wide = kind is DataType.INT8, kind.itemsize == 2
    shape = f"m{WARPGROUP_ROWS}n{columns}k{32 // kind.itemsize}"
    flags = "add;" if exact else "add, 1, 1, 0, 0;" if wide else "add, 1, 1;"
    places = ", ".join(f"%{i}" for i in range(sums))
    results = ", ".join(f'"+{"r" if exact else "f"}"(d[{i}])' for i in range(sums))
    return f"""
INLINE void multiply({_sum_type(kind)} (&d)[{sums}], u64 a, u64 b, int more) {{
  asm volatile("{{\\n.reg .pred add;\\nsetp.ne.b32 add, %{sums + 2}, 0;\\n"
    "wgmma.mma_async.sync.aligned.{shape}.{"s32" if exact else "f32"}.{name}.{name} "
    "{{{places}}}, %{sums}, %{sums + 1}, {flags}\\n}}"
    : {results} : "l"(a), "l"(b), "r"(more)); }}
"""


def _body(matrices: Matrices, tile: Tile, after: Finish) -> str:
    kind, steps = matrices.product.kind, matrices.steps
    down, across = -(-matrices.rows // tile.height), -(-matrices.columns // tile.columns)
    count, blocks = down * across, tile.rows // WARPGROUP_ROWS
    sums, letter = tile.columns // 2, "r" if kind is DataType.INT8 else "f"
    first = f"who * {tile.rows * LINE}" if tile.together else "0"
    apart = "" if tile.together else "who * gridDim.x"
    top = f"g / {across} * {tile.height}" + (f" + who * {tile.rows}" if tile.together else "")
    stride = "gridDim.x" if tile.together else "2 * gridDim.x"
    # The compiler must not move sums across the asynchronous products that change them.
    pinned = f"""
#pragma unroll
      for (int m = 0; m < {blocks}; ++m)
#pragma unroll
        for (int i = 0; i < {sums}; ++i) asm volatile("" : "+{letter}"(sum[m][i]) :: "memory");"""
    turns = [
        'if (who == 1) asm volatile("bar.arrive 1, 256;" ::: "memory");',
        'asm volatile("bar.sync %0, 256;" :: "r"(1 + who) : "memory");',
        'asm volatile("bar.arrive %0, 256;" :: "r"(2 - who) : "memory");',
    ]
    begin, own_turn, others_turn = ("", "", "") if tile.together else turns
    ragged = f"if (col >= {matrices.columns}) continue;" if matrices.columns % tile.columns else ""
    inside = f"if (row < {matrices.rows})" if matrices.rows % tile.height else ""
    finished = _unrolled(after.row)
    each = 2 * blocks
    place, copy_rows, column_at = _copies(matrices)
    held, fetch, fetch_first, fetch_next = _ahead(matrices, tile, after)
    return f"""
  extern __shared__ unsigned char dynamic[];
  __shared__ alignas(8) u64 barriers[{2 * tile.stages}];
  const unsigned start = (shared_of(dynamic) + 1023) & ~1023u;
  const unsigned full = shared_of(barriers), empty = full + {8 * tile.stages};
  const int part = threadIdx.x / 128;
  if (threadIdx.x == 0) {{
    for (int i = 0; i < {tile.stages}; ++i) {{
      barrier_init(full + 8 * i, 1); barrier_init(empty + 8 * i, {8 if tile.together else 4}); }}
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }}
  __syncthreads();
  if (part == 0) {{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) {{
      // Weights are nobody's result: they are fetched while the kernel before this one ends.
      for (int k = 0; k < {min(tile.stages, steps)}; ++k) {{
        expect(full + 8 * k, {tile.stage_bytes});
        copy(start + k * {tile.stage_bytes} + {tile.height * LINE}, &columns_map, {column_at},
             blockIdx.x % {across} * {tile.columns}, full + 8 * k); }}
      WAIT_FOR_EARLIER LET_NEXT_START
      int slot = 0, ahead = {min(tile.stages, steps)};
      unsigned phase = 1;
      for (int g = blockIdx.x; g < {count}; g += gridDim.x) {{
        const int top = g / {across} * {tile.height};
        {place}
        for (int k = 0; k < {steps}; ++k) {{
          const unsigned to = start + slot * {tile.stage_bytes}, b = full + 8 * slot;
          if (ahead > 0) --ahead;
          else {{
            wait_for(empty + 8 * slot, phase);
            expect(b, {tile.stage_bytes});
            copy(to + {tile.height * LINE}, &columns_map, {column_at},
                 g % {across} * {tile.columns}, b);
          }}
          {copy_rows}
          if (++slot == {tile.stages}) {{ slot = 0; phase ^= 1; }}
        }}
      }}
    }}
  }} else {{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int who = part - 1, lane = threadIdx.x % 32;
    WAIT_FOR_EARLIER
    {" ".join(after.before)}
    {begin}
    unsigned step = {"0" if tile.together else f"who * {steps}"};
    for (int g = blockIdx.x{f" + {apart}" if apart else ""}; g < {count}; g += {stride}) {{
      {_sum_type(kind)} sum[{blocks}][{sums}];
{held}      int slot = step % {tile.stages}, before = -1;
      unsigned phase = step / {tile.stages} & 1;
      {own_turn}
      for (int k = 0; k < {steps}; ++k) {{
        wait_for(full + 8 * slot, phase);
        const unsigned at = start + slot * {tile.stage_bytes};
        const u64 swizzled = (u64)0x40000040 << 32 | 1 << 16;
        const u64 a = swizzled | (at + {first}) >> 4;
        const u64 b = swizzled | (at + {tile.height * LINE}) >> 4;{pinned}
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int q = 0; q < 4; ++q)
#pragma unroll
          for (int m = 0; m < {blocks}; ++m)
            multiply(sum[m], a + q * 2 + m * {WARPGROUP_ROWS * LINE >> 4}, b + q * 2, k | q);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        if (before >= 0) {{
          asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
          if (lane == 0) arrive(empty + 8 * before);
        }}
        before = slot;
        if (++slot == {tile.stages}) {{ slot = 0; phase ^= 1; }}
      }}
      {others_turn}
      const int top = {top} + threadIdx.x / 32 % 4 * 16 + lane / 4;
      const int left = g % {across} * {tile.columns} + lane % 4 * {OWN};
#define ROW(r) (top + (r) / 2 * {WARPGROUP_ROWS} + (r) % 2 * 8)
#define SUM(t) sum[r / 2][(q * 4 + t / 2) * 4 + r % 2 * 2 + t % 2]
{fetch}{fetch_first}
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");{pinned}
      if (lane == 0) arrive(empty + 8 * before);
      step += {steps if tile.together else 2 * steps};
#pragma unroll
      for (int q = 0; q < {tile.columns // GROUP}; ++q) {{
        const idx col = left + q * {GROUP};
        {ragged}
{_unrolled(after.columns)}
#pragma unroll
        for (int r = 0; r < {each}; ++r) {{
          const idx row = ROW(r);
          {inside} {{
{finished}
          }}
          {fetch_next}
        }}
      }}
    }}
  }}
"""


def _unrolled(lines: Sequence[str]) -> str:
    """Lines whose loops over columns are unrolled: registers have no indices."""
    return "\n".join(lines).replace("for (int t", "#pragma unroll\nfor (int t")


def _copies(matrices: Matrices) -> tuple[str, str, str]:
    """Where a tile's rows begin, the copy of a step's rows, and where a step's weights lie."""
    laid, blocks = matrices.windows, matrices.blocks
    if laid is None:
        return "", f"copy(to, &rows_map, k * {LINE}, top, b);", f"k * {LINE}"
    (high, wide), (stride_y, stride_x) = laid.out, laid.strides
    place = (
        f"const int x = top % {wide} * {stride_x} - {laid.begin[1]}, image = top / {high * wide}, "
        f"y = top / {wide} % {high} * {stride_y} - {laid.begin[0]};"
    )
    tap = f"k / {blocks}"
    right, down = (
        f"{tap} % {laid.kernel[1]} * {laid.dilations[1]}",
        f"{tap} / {laid.kernel[1]} * {laid.dilations[0]}",
    )
    within = f"k % {blocks} * {LINE}"
    copied = f"copy_windows(to, &rows_map, {within}, x, y, image, {right}, {down}, b);"
    return place, copied, f"{tap} * {matrices.depth * matrices.product.kind.itemsize} + {within}"


def _ahead(matrices: Matrices, tile: Tile, after: Finish) -> tuple[str, str, str, str]:
    """Declarations, a macro, and where it is used: what is read beside the sums, ahead of its use.

    Stores might write where it lies, for all that the compiler knows: it would move no load up.
    """
    if not after.beside:
        return "", "", "", ""
    rows = 2 * tile.rows // WARPGROUP_ROWS
    count = rows * tile.columns // GROUP
    kinds = {k: matrices.body.inputs[k].type.dtype for k in after.beside}
    width = sum(OWN * kind.itemsize // 4 for kind in kinds.values())
    window = max(2, min(count, HELD_REGISTERS // width))
    held = "".join(f"      {pack} h{k}[{window}];\n" for k, pack in after.beside.items())
    loads = " ".join(
        f"h{k}[(s) % {window}] = *reinterpret_cast<const {pack}*>(in{k} + at_);"
        for k, pack in after.beside.items()
    )
    inside = f"(s) < {count} && ROW((s) % {rows}) < {matrices.rows}"
    if matrices.columns % tile.columns:
        inside += f" && left + (s) / {rows} * {GROUP} < {matrices.columns}"
    place = f"(idx)ROW((s) % {rows}) * {matrices.columns} + left + (s) / {rows} * {GROUP}"
    macros = (
        f"#define HELD ((q * {rows} + r) % {window})\n"
        f"#define FETCH(s) if ({inside}) {{ const idx at_ = {place}; {loads} }}\n"
    )
    first = f"#pragma unroll\n      for (int s = 0; s < {window}; ++s) FETCH(s)"
    return held, macros, first, f"FETCH(q * {rows} + r + {window})"
