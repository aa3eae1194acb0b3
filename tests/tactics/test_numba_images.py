"""Images of compiled kernels: the same bits as numba's, refused where they cannot stand alone."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.errors import ExecutionError
from workbench.tactics.numba.cache import KernelCache, KernelText
from workbench.tactics.numba.calls import part
from workbench.tactics.numba.images import SUPPORTED, Image, MappedKernel, kept

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="images are for Linux on x86-64")

SIGNATURE = "void(int64, int64, int64[::1], float32[::1], float32[::1])"
KERNELS = {
    "constants": "        o[i] = a[i] * np.float32(0.1) + np.float32(3.7)\n",
    "a function of the C library": "        o[i] = math.exp(a[i])\n",
    "a row of zeros": "        o[i] = 0\n",
    "slices and a division that may fail": "        o[i:stop][0] = a[i:][0] / g[0]\n",
    "a choice": "        o[i] = a[i] if a[i] > g[0] else -a[i]\n",
}
HEAD = "import math\nimport numpy as np\n\ndef kernel(start, stop, g, a, o):\n"
LOOP = HEAD + "    for i in range(start, stop):\n"
RAISES = HEAD + "    if g[0] == 1:\n        raise ValueError\n"


def results(kernel) -> np.ndarray:
    a = np.linspace(-3, 3, 1001, dtype=np.float32)
    o = np.full_like(a, np.nan)
    part(kernel, 1, 1000, np.array([1]), a, o)()
    return o


@pytest.mark.parametrize("name", KERNELS)
def test_an_image_computes_the_bits_that_numbas_code_does(tmp_path, name):
    text = KernelText(LOOP + KERNELS[name], SIGNATURE)
    first = KernelCache(tmp_path).compile(text)
    again = KernelCache(tmp_path).compile(text)
    assert isinstance(first, MappedKernel)
    assert isinstance(again, MappedKernel)
    expected = results(KernelCache(None).compile(text)).view(np.int32)
    np.testing.assert_array_equal(results(first).view(np.int32), expected)
    np.testing.assert_array_equal(results(again).view(np.int32), expected)


def test_a_damaged_image_is_not_run(tmp_path):
    text = KernelText(LOOP + KERNELS["constants"], SIGNATURE)
    expected = results(KernelCache(tmp_path).compile(text))
    (image,) = tmp_path.glob("*.image")
    for data in (b"", image.read_bytes()[:-1], bytes(4096)):
        image.write_bytes(data)
        assert kept(image) is None
        np.testing.assert_array_equal(results(KernelCache(tmp_path).compile(text)), expected)


def test_an_image_reports_that_its_kernel_failed(tmp_path):
    kernel = KernelCache(tmp_path).compile(KernelText(RAISES, SIGNATURE))
    assert isinstance(kernel, MappedKernel)
    x = np.zeros(1, np.float32)
    part(kernel, 0, 1, np.array([0]), x, x)()
    with pytest.raises(ExecutionError, match="it returned status"):
        part(kernel, 0, 1, np.array([1]), x, x)()


def test_a_kernel_that_returns_a_value_has_no_image(tmp_path):
    text = KernelText("def kernel(x):\n    return x + 1\n", "int64(int64)")
    kernel = KernelCache(tmp_path).compile(text)
    assert not isinstance(kernel, MappedKernel)
    assert kernel(2) == 3
    assert not list(tmp_path.glob("*.image"))


def test_a_function_that_this_system_lacks_leaves_the_image_unmapped():
    assert Image(bytes(128), 64, 0, ("no_such_function",)).mapped() is None
    assert Image(bytes(128), 64, 0, ("memset",)).mapped() is not None
