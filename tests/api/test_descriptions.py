# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Memory that other libraries describe: used as it is, or refused by the argument's name."""

import array
import contextlib
import ctypes
import itertools
import os
import random

import exporters
import numpy
import pytest
import torch
from exporters import DLPack

import iris_c

ARENA = numpy.arange(4096, dtype=numpy.float32)
BASE = ARENA.ctypes.data
MIDDLE = 2048
FIRST = int(os.environ.get("IRIS_C_FUZZ_FIRST", "0"))
SEEDS = int(os.environ.get("IRIS_C_FUZZ_SEEDS", "1"))


@pytest.fixture(scope="module")
def ctx():
    with iris_c.init(heap_size=1 << 22, backend="cpu", rank=0, world_size=1) as context:
        yield context


@pytest.fixture(scope="module")
def exporter(tmp_path_factory):
    return exporters.buffer_exporter(tmp_path_factory.mktemp("exporter"))


def read(ctx, tensor, shape):
    """What a matrix product reads as A."""
    result = numpy.full(shape, numpy.nan, numpy.float32)
    ctx.ops.matmul_all_reduce(result, tensor, numpy.eye(shape[1], dtype=numpy.float32))
    return result


def refused(ctx, tensor, message="", kind=ValueError):
    with pytest.raises(kind, match=rf"^A: .*{message}"):
        read(ctx, tensor, (2, 3))


# ---- the buffer protocol ----


def test_buffers_without_strides_are_row_major(ctx):
    for kind in (ctypes.c_float * 6, (ctypes.c_float * 3) * 2):
        source, target = kind(), kind()
        view = numpy.frombuffer(source, dtype=numpy.float32)
        view[:] = range(1, 7)
        ctx.ccl.all_reduce(target, source)
        assert list(numpy.frombuffer(target, dtype=numpy.float32)) == [1, 2, 3, 4, 5, 6]
    assert read(ctx, source, (2, 3)).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("code", ["i", "l", "q", "b", "B", "h", "f", "d"])
def test_array_arrays_and_casts_of_memoryviews(ctx, code):
    source, target = array.array(code, [1, 2, 3, 4]), array.array(code, [0] * 4)
    ctx.ccl.all_gather(target, source)
    assert target == source
    cast = memoryview(bytearray(target)).cast("B").cast(code, (2, 2))
    ctx.ccl.all_gather(cast, source)
    assert cast.tolist() == [[1, 2], [3, 4]]


def test_the_item_size_tells_how_long_an_integer_is(ctx, exporter):
    source = numpy.array([5, 6], dtype=numpy.int32)
    standard = exporter(source.ctypes.data, 8, 4, False, 1, "<l", (2,), None, None)
    target = numpy.zeros(2, dtype=numpy.int32)
    ctx.ccl.all_reduce(target, standard)
    assert target.tolist() == [5, 6]


def test_buffers_that_are_refused(ctx):
    released = memoryview(bytearray(24))
    released.release()
    refused(ctx, released, "released memoryview")
    refused(ctx, (ctypes.c_float.__ctype_be__ * 6)(), "format '>f'")
    refused(ctx, array.array("u", "abcdef"), "format")
    refused(ctx, numpy.zeros((2, 3), dtype=">f4"), "format '>f'")
    refused(ctx, numpy.zeros((2, 3), dtype=[("x", "f4")]), "format 'T{")
    refused(ctx, numpy.zeros((2, 3), dtype=object), "format 'O'")
    refused(ctx, numpy.zeros((2, 3), dtype="M8[s]"), "its buffer raised")
    refused(ctx, numpy.zeros((2, 3), dtype="S4"), "format")
    refused(ctx, numpy.zeros((1,) * 9, dtype=numpy.float32), "0 to 8 dimensions, got 9")
    unaligned = numpy.zeros(25, dtype=numpy.uint8)[1:].view(numpy.float32).reshape(2, 3)
    refused(ctx, unaligned, "multiple of 4 bytes")
    for frozen in (b"\0" * 24, memoryview(b"\0" * 24).cast("f"), numpy.broadcast_to(1.0, (2, 3))):
        with pytest.raises(ValueError, match=r"^output: .*read-only"):
            ctx.ccl.all_gather(frozen, numpy.zeros(6, dtype=numpy.float32))


def test_every_field_of_a_buffer_that_may_be_left_out(ctx, exporter):
    full = {"format": "f", "shape": (2, 3), "strides": (12, 4), "suboffsets": (-1, -1)}
    for left_out in itertools.chain.from_iterable(
        itertools.combinations(full, count) for count in range(5)
    ):
        fields = {**full, **dict.fromkeys(left_out)}
        source = exporter(BASE, 24, 4, True, 2, *fields.values())
        if "format" in left_out:
            refused(ctx, source, "format 'B' with 4 bytes")
        elif "shape" in left_out:
            refused(ctx, source, "a shape")
        else:
            assert (read(ctx, source, (2, 3)) == ARENA[:6].reshape(2, 3)).all(), left_out
    flat = exporter(BASE, 24, 4, True, 1, "f", None, None, None)
    target = numpy.zeros(6, dtype=numpy.float32)
    ctx.ccl.all_gather(target, flat)
    assert (target == ARENA[:6]).all()


# ---- DLPack ----


@pytest.mark.parametrize("versioned", [False, True])
def test_dlpack(ctx, versioned):
    def export(*args, **fields):
        return DLPack(BASE, *args, versioned=versioned, **fields)

    expected = ARENA[:6].reshape(2, 3)
    assert (read(ctx, export((2, 3)), (2, 3)) == expected).all()
    assert (read(ctx, export((2, 3), (3, 1)), (2, 3)) == expected).all()
    assert (read(ctx, export((2, 3), (1, 2)), (2, 3)) == ARENA[:6].reshape(3, 2).T).all()
    assert (read(ctx, export((2, 3), (-3, 1), byte_offset=12), (2, 3)) == expected[::-1]).all()
    assert (read(ctx, export((2, 3), (0, 0), byte_offset=8), (2, 3)) == 2).all()
    assert (read(ctx, export((1, 3), (-(2**63), 1)), (1, 3)) == expected[:1]).all()
    refused(ctx, export((2, 3), device_type=exporters.CUDA), "got one on device 0")
    refused(ctx, export((2, 3), device_type=99), "device type 99")
    refused(ctx, export((-2, 3)), "sizes >= 0, got -2 in dimension 0")
    refused(ctx, export((2**62, 2**62)), r"less than 2\*\*56 bytes")
    refused(ctx, export((2**62, 0, 2**62)), r"less than 2\*\*56 bytes")
    refused(ctx, export((2, 3), (2**62, 1)), r"strides within 2\*\*63 bytes")
    refused(ctx, export((2, 3), (-(2**59), 1)), "address space")
    refused(ctx, export((2, 3), byte_offset=2), "multiple of 4 bytes")
    refused(ctx, export((2, 3), byte_offset=2**64 - 4), "byte offset")
    refused(ctx, export(None, ndim=2), "a shape")
    refused(ctx, export((2, 3), ndim=-1), "dimensions, got -1")
    refused(ctx, export((1,) * 9), "dimensions, got 9")
    refused(ctx, export((2, 3), type_lanes=2), "2 lanes")
    refused(ctx, export((2, 3), type_bits=4), "4 bits")
    refused(ctx, export((2, 3), name=b"used_dltensor"), "nobody has consumed")
    refused(ctx, DLPack(None, (2, 3), versioned=versioned), "null pointer")


def test_versions_and_flags_of_dlpack(ctx):
    assert (read(ctx, DLPack(BASE, (2, 3), minor=99), (2, 3)) == ARENA[:6].reshape(2, 3)).all()
    assert read(ctx, DLPack(BASE, (2, 3), flags=exporters.READ_ONLY), (2, 3)).any()
    refused(ctx, DLPack(BASE, (2, 3), major=2), "DLPack version 1, got 2")
    memory = numpy.zeros(6, dtype=numpy.float32)
    for flags, text in ((exporters.READ_ONLY, "read-only"), (exporters.IS_COPIED, "copy")):
        with pytest.raises(ValueError, match=rf"^output: .*{text}"):
            ctx.ccl.all_gather(DLPack(memory.ctypes.data, (6,), flags=flags), ARENA[:6])
    assert not memory.any()


class Failing:
    """Its __dlpack__ is, or does, what the test says."""

    def __init__(self, action):
        self.action = action

    @property
    def __dlpack__(self):
        if isinstance(self.action, Exception):
            raise self.action
        return self.action


def test_exporters_that_fail(ctx):
    def raising(error):
        def dlpack(**_):
            raise error

        return Failing(dlpack)

    refused(ctx, raising(RuntimeError("no\nlonger")), "__dlpack__ raised RuntimeError: no$")
    refused(ctx, raising(BufferError("never")), "__dlpack__ raised BufferError: never")
    refused(ctx, raising(TypeError("what")), "__dlpack__ raised TypeError: what", kind=TypeError)
    refused(ctx, Failing(OSError("gone")), "__dlpack__ raised OSError: gone")
    refused(ctx, Failing(3), "__dlpack__ raised", kind=TypeError)
    refused(ctx, Failing(lambda **_: 3), "a DLPack capsule, got int", kind=TypeError)
    refused(ctx, numpy.ndarray, "a tensor .*, got type", kind=TypeError)
    refused(ctx, [[1.0]], "a tensor .*, got list", kind=TypeError)
    with pytest.raises(MemoryError):
        read(ctx, raising(MemoryError()), (2, 3))
    with pytest.raises(ValueError) as caught:
        read(ctx, raising(RuntimeError("first")), (2, 3))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_array_interfaces_alone_are_not_tensors(ctx):
    class Interface:
        __array_interface__ = ARENA[:6].reshape(2, 3).__array_interface__
        __cuda_array_interface__ = __array_interface__

    refused(ctx, Interface(), "a tensor", kind=TypeError)


# ---- NumPy ----


def test_numpy_layouts(ctx):
    square = ARENA[:36].reshape(6, 6)
    for view in (square[::2, ::-1], square[::-2, 1::2], square.T, square[1:3], square[:1, :0:-1]):
        assert (read(ctx, view, view.shape) == view).all()
    frozen = square.copy()
    frozen.flags.writeable = False
    assert (read(ctx, frozen, (6, 6)) == square).all()
    target = numpy.zeros((), dtype=numpy.float32)
    ctx.ccl.all_reduce(target, numpy.float32(7))
    assert target == 7


# ---- torch ----


def torch_tensors():
    """Tensors that are not what their memory holds, or have none, and what the error says."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.masked import masked_tensor

    ones = torch.ones(2, 3)
    given_back = torch.ones(40)
    view = given_back[16:22].view(2, 3)
    given_back.untyped_storage().resize_(0)
    return {
        "negation": (torch.full((2, 3), 1j).conj().imag, "pending negation"),
        "negation of integers": (torch._neg_view(torch.ones(2, 3)), "pending negation"),
        "sparse": (ones.to_sparse(), "storage"),
        "sparse rows": (ones.to_sparse_csr(), "storage"),
        "meta": (ones.to("meta"), "meta"),
        "quantised": (torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8), "QInt"),
        "mkldnn": (ones.to_mkldnn(), "storage"),
        "nested": (torch.nested.nested_tensor([torch.ones(4), torch.ones(3)]), "sizes"),
        "zero tensor": (torch._efficientzerotensor((2, 3)), "null pointer"),
        "storage given back": (given_back, "null pointer"),
        "a view of it": (view, "storage has none"),
        "fake": (FakeTensorMode().from_tensor(ones), "__torch_dispatch__"),
        "fake view": (FakeTensorMode().from_tensor(torch.ones(9))[3:].view(2, 3), "__torch_disp"),
        "masked": (masked_tensor(ones, ones.bool()), "__torch_dispatch__"),
        "complex half": (torch.ones(2, 3, dtype=torch.complex32), "32 bits"),
        "four bits": (torch.empty(2, 3, dtype=torch.float4_e2m1fn_x2), "4 bits"),
        "unaligned": (torch.frombuffer(bytearray(40), dtype=torch.float32, offset=1, count=6)
                      .view(2, 3), "multiple of 4 bytes"),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_torch_tensors_that_are_not_their_memory(ctx):
    for name, (tensor, message) in torch_tensors().items():
        with pytest.raises((ValueError, TypeError), match=rf"^A: [^\n]*{message}[^\n]*$"):
            read(ctx, tensor, (2, 3))
            pytest.fail(name)
        with pytest.raises((ValueError, TypeError), match=rf"^output: [^\n]*{message}[^\n]*$"):
            ctx.ccl.all_gather(tensor, torch.zeros(6))
            pytest.fail(name)


def test_functorch_wrappers(ctx):
    def refuse(x):
        refused(ctx, x, "storage|null pointer")
        return x.sum()

    torch.vmap(refuse)(torch.ones(4, 2, 3))
    torch.func.grad(refuse)(torch.ones(2, 3))
    torch.func.functionalize(refuse)(torch.ones(2, 3))
    torch.func.jvp(refuse, (torch.ones(2, 3),), (torch.ones(2, 3),))


def test_torch_subclasses_and_views(ctx):
    class Named(torch.Tensor):
        pass

    base = torch.arange(6.0).view(2, 3)
    for tensor in (
        base.as_subclass(Named),
        torch.nn.Parameter(base, False),
        base.t().t(),
        base[:1].expand(2, 3),
        torch.full((2, 3), 2j).conj().imag.resolve_neg(),
    ):
        assert (read(ctx, tensor, (2, 3)) == torch.Tensor(tensor).numpy()).all()
    for output in (torch.zeros(1, 3).expand(2, 3), torch.zeros(8).as_strided((2, 3), (2, 1))):
        with pytest.raises(ValueError, match=r"^C: expected elements that do not share memory"):
            ctx.ops.matmul_all_reduce(output, base, torch.eye(3))
    for output in (torch.zeros(1).expand(6), torch.zeros(9).as_strided((3, 2), (1, 1))):
        with pytest.raises(ValueError, match=r"^output: expected a contiguous tensor"):
            ctx.ccl.all_reduce(output, torch.zeros(6))


def test_copies(ctx):
    """as_symmetric, and a Buffer's copies: from anything that has the values, else by name."""
    values = torch.arange(6.0).view(2, 3)
    for source in (values.numpy()[:, ::2], values.t(), (values * 1j).conj().imag):
        assert torch.equal(ctx.as_symmetric(source), torch.as_tensor(source))
    for wrong, kind, text in (
        ([1.0], TypeError, "got list"),
        (values.to_sparse(), ValueError, "strided"),
        (values.numpy().astype(">f4"), ValueError, "byte order"),
        (torch.Tensor, TypeError, "got"),
    ):
        with pytest.raises(kind, match=rf"^tensor: .*{text}"):
            ctx.as_symmetric(wrong)
    buffer = ctx.allocate((2, 3), "float32")
    for wrong, kind in ((3, TypeError), (b"abc", ValueError), (values.numpy()[:, ::2], ValueError)):
        with pytest.raises(kind, match=r"^source: "):
            buffer.copy_from_host(wrong)
        with pytest.raises(kind, match=r"^target: "):
            buffer.copy_to_host(wrong)


# ---- chance ----


def in_arena(shape, strides, first):
    """Whether all elements lie in ARENA, if the first one is number `first`."""
    reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    low, high = first + sum(r for r in reach if r < 0), first + sum(r for r in reach if r > 0)
    return 0 <= low and high < ARENA.size


def is_in_address_space(shape, strides, address):
    reach = [(size - 1) * stride * 4 for size, stride in zip(shape, strides, strict=True)]
    low = sum(r for r in reach if r < 0)
    high = 4 + sum(r for r in reach if r > 0)
    return (
        address + low >= 0 and address + high < 2**63 and -(2**63) <= low
        and all(abs(r) < 2**63 for r in reach)
    )  # fmt: skip


def random_matrix(chance):
    sizes = [*[1, 2, 3, 5, 8] * 6, 0, -1, 2**31, 2**62, -(2**63)]
    steps = [*[1, 2, 3, 8, 40, 0, -1, -3, -8] * 4, 2**40, -(2**62), 2**63 - 1, -(2**63)]
    ndim = chance.choice([2, 2, 2, 2, 2, 1, 3, 0])
    return (
        tuple(chance.choice(sizes) for _ in range(ndim)),
        None if chance.random() < 0.3 else tuple(chance.choice(steps) for _ in range(ndim)),
    )


def row_major(shape):
    return tuple(int(numpy.prod([int(n) for n in shape[i + 1 :]], dtype=object))
                 for i in range(len(shape)))  # fmt: skip


def random_export(chance, exporter, shape, strides):
    """A producer, the index in ARENA of its first element, and whether a field of it is wrong."""
    fields, first, wrong = {}, MIDDLE, False
    if chance.random() < 0.3:
        offset = chance.choice([4, 8, 64, 1, 3, 2**63])
        fields["byte_offset"] = offset
        first, wrong = MIDDLE + offset // 4, offset % 4 != 0 or offset == 2**63
    for name, value in (("type_lanes", 4), ("type_bits", 31), ("device_type", 77), ("ndim", -3),
                        ("ndim", 40), ("major", 7), ("name", b"dltensor_")):  # fmt: skip
        if chance.random() < 0.02:
            fields[name], wrong = value, True
    versioned = "major" in fields or chance.random() < 0.5
    data = None if chance.random() < 0.05 else BASE + 4 * MIDDLE
    wrong = wrong or data is None
    return DLPack(data, shape, strides, versioned=versioned, **fields), first, wrong


def random_buffer(chance, exporter, shape, strides):
    itemsize, format_, wrong = 4, "f", False
    if chance.random() < 0.1:
        itemsize, format_ = chance.choice([(0, "f"), (8, "f"), (4, "g"), (4, None), (-4, "f"),
                                           (4, ""), (4, "2f"), (4, ">f")])  # fmt: skip
        wrong = True
    length = int(numpy.prod(shape, dtype=object)) * 4
    if abs(length) >= 2**63 or chance.random() < 0.03:
        length, wrong = 23, True
    suboffsets = None
    if shape and chance.random() < 0.05:
        suboffsets, wrong = (0,) * len(shape), True
    in_bytes = None if strides is None else tuple(4 * step for step in strides)
    if in_bytes and any(abs(step) >= 2**63 for step in in_bytes):
        in_bytes, wrong = tuple(1 for _ in in_bytes), True
        wrong = any(size > 0 for size in shape)
    address = 0 if chance.random() < 0.05 else BASE + 4 * MIDDLE
    return (
        exporter(address, length, itemsize, True, len(shape), format_, shape, in_bytes, suboffsets),
        MIDDLE, wrong or address == 0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
@pytest.mark.parametrize("producer", [random_export, random_buffer])
def test_random_descriptions(ctx, exporter, producer, seed):
    """What is right is read rightly, what is wrong is refused by name; nothing else happens."""
    chance = random.Random(f"{producer.__name__} {seed}")
    read_rightly = 0
    for number in range(3000):
        shape, strides = random_matrix(chance)
        source, first, wrong = producer(chance, exporter, shape, strides)
        steps = row_major(shape) if strides is None else strides
        usable = not wrong and len(shape) == 2 and min(shape) >= 0 and shape[0] * shape[1] < 2**54
        text = f"seed {seed}, number {number}: {shape} {strides}"
        if usable and 0 < min(shape) <= max(shape) < 100 and in_arena(shape, steps, first):
            expected = numpy.lib.stride_tricks.as_strided(
                ARENA[first:],
                shape,
                [4 * s if n > 1 else 0 for n, s in zip(shape, steps, strict=True)],
            )
            assert (read(ctx, source, shape) == expected).all(), text
            read_rightly += 1
        elif 0 in shape:  # what is wrong about the address does not matter
            with contextlib.suppress(ValueError):
                read(ctx, source, (2, 3))
        elif usable and is_in_address_space(shape, steps, BASE + 4 * first):
            continue  # too large, or a lie about what is there, which looks like the truth
        else:
            with pytest.raises((ValueError, TypeError), match=r"^A: "):
                read(ctx, source, (2, 3))
                pytest.fail(text)
    assert read_rightly > 300
