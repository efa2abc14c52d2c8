"""What a packed network computes is what its graph says: every instruction set, any batch and number of threads."""

import copy
import os
import pickle
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from prunery import native, runtime
from prunery.engine.file import read, write
from prunery.engine.graph import ACTIVATIONS, Graph, Op, Tensor
from prunery.engine.interpret import interpret
from prunery.runtime import Broken, Packed

sys.path.insert(0, str(Path(__file__).parent))
from nets import NETS

if not native.available():
    pytest.skip("the compiled library is missing", allow_module_level=True)

BATCHES = (1, 3, 16, 17, 37)


def same(making, isa=None, batches=BATCHES, threads=(1, 2)):
    """Equal to the interpreter, whatever the batch and the threads."""
    packed = Packed(write(making.graph, {}), "test", isa=isa)
    x = making.images(max(batches))
    wanted = np.asarray(interpret(making.graph, x))
    for n in batches:
        for t in threads:
            found = packed(x[:n], threads=t)
            want = wanted[:n].reshape(found.shape)
            np.testing.assert_allclose(found, want, rtol=0, atol=2e-5 * max(1.0, float(np.abs(want).max())))


def convolution(**more):
    def build(make, rows, columns):
        m = make(5, rows, columns)
        x = m.conv(0, 6, 3)
        m.conv(x, 7, **{"density": 0.3, "activation": "relu", **more})
        return m

    return build


def residual(make, rows, columns):
    m = make(3, rows, columns)
    x = m.conv(0, 8, 3, activation="relu")
    y = m.conv(x, 8, 3, density=0.2, activation="relu")
    m.conv(y, 8, 3, density=0.2, residual=[x], activation="relu")
    return m


def two_strides(make, rows, columns):
    m = make(3, rows, columns)
    x = m.conv(0, 8, 3, stride=2, activation="relu")
    short = m.conv(x, 9, 1, stride=2)
    y = m.conv(x, 9, 3, stride=2, density=0.2)
    z = m.op("add", [y, short], m.shape(y), activation="relu")
    g = m.op("global_pool", [z], (9, 1, 1))
    m.linear(g, 5)
    return m


def squeezed(make, rows, columns):
    m = make(3, rows, columns)
    x = m.conv(0, 8, 1, activation="silu")
    x = m.conv(x, 8, 5, groups=8, activation="silu")
    g = m.op("global_pool", [x], (8, 1, 1))
    g = m.linear(g, 3, activation="silu")
    g = m.linear(g, 8, activation="sigmoid")
    y = m.op("mul", [x, g], m.shape(x))
    m.conv(y, 4, 1)
    return m


def dense_block(make, rows, columns):
    m = make(4, rows, columns)
    x = m.conv(0, 6, 3)
    n = m.op("affine", [x], m.shape(x), weight=m.weight(6, 1), bias=m.weight(6, 1)[:, 0], activation="relu")
    y = m.conv(n, 5, 3, density=0.5)
    c = m.op("concat", [x, y], (11, *m.shape(x)[1:]))
    m.op("gather", [c], (4, *m.shape(x)[1:]), index=np.array([10, 0, 3, 3], np.uint32))
    return m


def pools(kind, **more):
    def build(make, rows, columns):
        m = make(3, rows, columns)
        x = m.conv(0, 5, 3)
        m.conv(m.pool(kind, x, **more), 4, 3)
        return m

    return build


def flat(make, rows, columns):
    m = make(2, rows, columns)
    x = m.pool("max_pool", m.conv(0, 5, 3, activation="relu"))
    c, h, w = m.shape(x)
    f = m.op("flatten", [x], (c * h * w, 1, 1))
    y = m.linear(f, 40, density=0.1, activation="relu")
    m.op("softmax", [m.linear(y, 6)], (6, 1, 1))
    return m


GRAPHS = {
    "3x3": convolution(kernel=3),
    "1x1": convolution(kernel=1),
    "5x5": convolution(kernel=5),
    "7x7 stride 2": convolution(kernel=7, stride=2),
    "valid": convolution(kernel=3, padding=0),
    "stride 3": convolution(kernel=3, stride=3),
    "2x2 stride 2": convolution(kernel=2, stride=2, padding=0),
    "uneven padding": convolution(kernel=(3, 5), padding=(0, 1, 2, 3)),
    "dilated": convolution(kernel=3, dilation=2),
    "dense": convolution(kernel=3, density=1.0),
    "empty": convolution(kernel=3, density=0.0),
    "residual": residual,
    "two strides": two_strides,
    "squeeze and excitation": squeezed,
    "dense block": dense_block,
    "max pool": pools("max_pool"),
    "max pool 3": pools("max_pool", kernel=3, stride=2, padding=1),
    "max pool 3 ceil": pools("max_pool", kernel=3, stride=2, ceil=True),
    "average pool": pools("avg_pool"),
    "average pool 3": pools("avg_pool", kernel=3, stride=2, padding=1),
    "average pool counted": pools("avg_pool", kernel=3, stride=1, padding=1, count_padding=True),
    "average pool ceil": pools("avg_pool", kernel=3, stride=2, padding=1, ceil=True, count_padding=True),
    "flat": flat,
}


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (13, 9), (32, 32), (5, 28)], ids=str)
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))
def test_pictures(make, graph, size):
    same(graph(make, *size))


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))
def test_instruction_sets(make, graph, isa):
    same(graph(make, 14, 11), isa, (1, 18), (1,))


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_operation(name, isa):
    """The graphs that the reader's tests and the fuzzer begin with."""
    make, values = NETS[name]
    data = write(make(), {}, values)
    graph = read(data)[0]
    packed, rng, given = Packed(data, name, isa=isa), np.random.default_rng(1), graph.tensors[graph.input]
    x = rng.standard_normal((35, *given.shape)).astype(np.float32)
    if given.type == "u8":
        x = rng.integers(0, 256, x.shape).astype(np.uint8)
    wanted = interpret(graph, x).numpy().astype(np.float32)
    for n in (1, 3, 35):
        found = packed(x[:n], threads=1 + n % 2).reshape(n, -1).astype(np.float32)
        want = wanted[:n].reshape(n, -1)
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-4 * float(np.abs(want).max()))


def flattened_for(kind):
    """The input as a vector, before one reader."""

    def build(make, rows, columns):
        m = make(3, rows, columns)
        n = 3 * rows * columns
        x = m.op("flatten", [0], (n, 1, 1))
        if kind == "linear":
            m.linear(x, 7, residual=[m.linear(x, 7, density=0.2)])
        elif kind == "conv":
            m.conv(x, 6, 3, padding=2)
        elif kind == "gate":
            m.linear(m.op("mul", [x, m.linear(x, n, activation="sigmoid")], (n, 1, 1)), 5)
        elif kind == "gather":
            m.op("gather", [x], (4, 1, 1), index=np.array([n - 1, 0, 1, n // 2], np.uint32))
        elif kind == "affine":
            m.op("affine", [x], (n, 1, 1), weight=m.weight(n, 1), bias=m.weight(n, 1)[:, 0])
        elif kind != "output":
            m.op(kind, [x], (n, 1, 1))
        return m

    return build


READERS = ("output", "linear", "conv", "gate", "gather", "affine", "softmax", "global_pool", "max_pool", "flatten")


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 64), (20, 12)], ids=str)
@pytest.mark.parametrize("kind", READERS)
def test_the_flattened_input(make, kind, size):
    same(flattened_for(kind)(make, *size), batches=(1, 3, 17))


def test_linear_layers_read_the_flattened_input_where_it_is(make):
    """LeNet-300-100 would pay for a copy of its pictures."""
    told = Packed(write(flattened_for("linear")(make, 28, 28).graph, {}), "test").explain()
    assert [layer.name for layer in told] == ["layer1", "layer2"]
    told = Packed(write(flattened_for("softmax")(make, 28, 28).graph, {}), "test").explain()
    assert [layer.kernel for layer in told] == ["relayout", "softmax"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(make, activation):
    m = make(3, 9, 9)
    x = m.conv(0, 5, 3, activation=activation, slope=0.1 if activation in ("leaky_relu", "elu") else 0.0)
    m.op("activate", [x], m.shape(x), activation=activation, slope=0.1 if activation in ("leaky_relu", "elu") else 0.0)
    same(m)


@pytest.mark.parametrize("density", [0, 0.02, 0.1, 0.5, 1])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 300, 5), (784, 300, 100, 10), (20, 17), (64, 5000)], ids=str)
def test_vectors(make, sizes, density):
    m = make(sizes[0])
    x = 0
    for n in sizes[1:]:
        x = m.linear(x, n, density=density, activation="relu")
    m.linear(x, 4, residual=[m.linear(x, 4)])
    same(m)


def test_a_long_way_home(make):
    """Memory is given out by who lives when: a tensor that is read again at the end is still itself."""
    m = make(3, 16, 16)
    first = m.conv(0, 6, 3)
    x = first
    for _ in range(6):
        x = m.conv(x, 6, 3, density=0.3, activation="relu")
    m.op("add", [x, first], m.shape(x))
    same(m)


def test_many_callers_at_once(make):
    """The first calls, too, which make the plan of many images."""
    m = residual(make, 16, 16)
    data, x, sizes = write(m.graph, {}), m.images(20), (1, 20, 5)
    alone, packed = Packed(data, "test"), Packed(data, "test")
    wanted = {n: alone(x[:n], threads=1) for n in sizes}

    def call(_):
        return [np.array_equal(packed(x[:n], threads=2), wanted[n]) for _ in range(5) for n in sizes]

    with ThreadPoolExecutor(8) as callers:
        assert all(all(equal) for equal in callers.map(call, range(8)))


SHORT_OF_MEMORY = """
import os, resource, sys
import numpy as np
from prunery import runtime

x = np.load(sys.argv[2])
wanted = runtime.load(sys.argv[1])(x, threads=3)
packed = runtime.load(sys.argv[1])
whole = resource.getrlimit(resource.RLIMIT_AS)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (6 << 20), whole[1]))
for images, threads in ((4, 2), (1, 3), (1, 1)):
    try:
        packed(x[:images], threads=threads)
        print("ran")
    except runtime.Broken as broken:
        print(broken)
resource.setrlimit(resource.RLIMIT_AS, whole)
before = len(os.listdir("/proc/self/task"))
print(np.array_equal(packed(x, threads=3), wanted), np.array_equal(packed(x[0], threads=5), wanted[0]))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory a process has")
def test_where_memory_is_short_a_call_is_refused_and_the_next_is_as_ever(make, tmp_path):
    """With threads that each want memory, with some that share it, alone; workers are free again behind it."""
    m = make(2, 768, 768)
    m.op("global_pool", [m.conv(0, 3, 3)], (3, 1, 1))
    (tmp_path / "a.prunery").write_bytes(write(m.graph, {}))
    np.save(tmp_path / "x.npy", m.images(4))
    command = [sys.executable, "-c", SHORT_OF_MEMORY, tmp_path / "a.prunery", tmp_path / "x.npy"]
    alone = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "OPENBLAS_NUM_THREADS": "1",
    }  # memory comes from the system
    done = subprocess.run(command, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all("there is not enough memory" in line for line in lines[:3])
    assert lines[3:] == ["True True", "2"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory a process has")
def test_a_plan_that_batches_do_not_take_holds_no_weights(make):
    """Of 16 such pictures a run would need 128 MB; layers of 38 MB would lie in memory twice."""
    m = make(1, 1024, 1024)
    x = m.linear(m.op("global_pool", [0], (1, 1, 1)), 3072)
    m.linear(x, 3072)
    packed, x = Packed(write(m.graph, {}), "test"), np.ones((9, 1, 1024, 1024), np.float32)

    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    alone, before = packed(x[0]), held()
    assert np.array_equal(packed(x, threads=1)[8], alone)
    assert held() - before < 16 << 20
    assert packed.memory(batch=True)["weights"] > 32 << 20


def test_a_small_file_cannot_demand_absurd_memory(make):
    """Blocks of a picture overlap by as much as a kernel reaches, for every channel that is computed."""
    m = make(1, 64771, 1)
    m.conv(0, 16384, (255, 1), dilation=(255, 1), padding=0, density=1e-4)
    with pytest.raises(Broken, match=r"test: one run needs \d{11} bytes of memory; expected at most 2\^33$"):
        Packed(write(m.graph, {}), "test")


def test_the_number_of_threads_changes_nothing(make):
    m = squeezed(make, 30, 30)
    packed, x = Packed(write(m.graph, {}), "test"), m.images(2)
    assert all(np.array_equal(packed(x, threads=1), packed(x, threads=t)) for t in (2, 3, 5))


def test_one_image_and_types(make):
    packed, x = Packed(write(residual(make, 8, 8).graph, {}), "test"), make(3, 8, 8).images(2)
    assert np.array_equal(packed(x[0]), packed(x[:1])[0])
    assert np.array_equal(packed(x.astype(np.float64)), packed(x))
    assert packed(x[:0]).shape == (0, 8, 8, 8)
    assert packed(np.asfortranarray(x)).shape == (2, 8, 8, 8)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((1, 3, 8, 9), np.float32), r"\[1, 3, 8, 9\]; expected \[batch, 3, 8, 8\]"),
        (np.zeros(5, np.float32), r"\[5\]; expected"),
        (np.zeros((1, 3, 8, 8), complex), "complex128; expected float32"),
        (np.array(["a"]), "holds text; expected float32"),
        ("abc", "holds text"),
        (None, "holds objects"),
        (object(), "holds objects"),
        (1j, "complex128"),
        ([[1, 2], [3]], "a list that is no array .* all rows of one length"),
        (np.zeros((1, 3, 8, 8), "M8[s]"), "datetime64"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "device meta, which has no values; expected a tensor on the CPU"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), "sparse_coo; expected a dense tensor"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "complex64; expected float32"),
    ],
    ids=range(13),
)
def test_inputs_that_do_not_fit(make, x, words):
    with pytest.raises(Broken, match=words) as broken:
        Packed(write(residual(make, 8, 8).graph, {}), "test")(x)
    assert "\n" not in str(broken.value)


def test_tensors_of_any_kind(make):
    packed = Packed(write(residual(make, 8, 8).graph, {}), "test")
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = packed(x)
    assert (type(wanted), wanted.dtype, wanted.requires_grad) == (torch.Tensor, torch.float32, False)
    for given in (
        x.clone().requires_grad_(),
        torch.nn.Parameter(x.clone()),
        x.double(),
        torch.complex(x, -x).conj().imag,
    ):
        assert torch.equal(packed(given), wanted)
    for kind in (torch.bfloat16, torch.float16, torch.int8, torch.bool):
        assert torch.equal(packed(x.to(kind)), packed(x.to(kind).float()))
    assert packed(x * torch.nan).isnan().any()


class Odd:
    def __array__(self, *_, **__):
        raise KeyError("no array\nat all")


def test_objects_that_fail_at_being_arrays(make):
    with pytest.raises(Broken, match=r"the input is a Odd that is no array .'no array.*at all'"):
        Packed(write(residual(make, 8, 8).graph, {}), "test")(Odd())


THREADS = [0, -1, 1000, "2", 1.5, True, np.True_, [2], torch.zeros(2, 2)]


@pytest.mark.parametrize("threads", THREADS, ids=range(len(THREADS)))
def test_threads_are_a_whole_number(make, threads, tmp_path):
    packed, x = Packed(write(residual(make, 8, 8).graph, {}), "test"), np.zeros((1, 3, 8, 8), np.float32)
    packed.save(tmp_path / "a.prunery")

    def put():
        packed.threads = threads

    calls = (
        lambda: packed(x, threads=threads), lambda: runtime.loads(packed.data, threads), put,
        lambda: runtime.load(tmp_path / "a.prunery", threads=threads),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(Broken, match=r"threads = .* expected a whole number from 1 to \d+; leave it out") as broken:
            call()
        assert "\n" not in str(broken.value)


def test_threads_by_default_are_all_cores(make):
    data, x = write(residual(make, 8, 8).graph, {}), np.zeros((1, 3, 8, 8), np.float32)
    assert runtime.loads(data).threads == runtime.loads(data, None).threads == runtime.cores()
    for threads in (1, 8, np.int64(3), 4 * runtime.cores()):
        packed = runtime.loads(data, threads)
        assert packed.threads == threads
        assert packed(x, threads=threads).shape == (1, 8, 8, 8)


def test_bytes_are_taken_as_bytes():
    graph = Graph([Tensor(3, 1, 1, "u8", 1.0, 0), Tensor(3, 1, 1)], input=0, output=1)
    graph.ops.append(Op("dequantize", "first", [0], 1))
    packed = runtime.loads(write(graph, {}))
    assert packed(np.array([[0, 7, 255]], np.uint8)).tolist() == [[0, 7, 255]]
    for x in (np.zeros((1, 3), np.float32), np.zeros((1, 3), np.int64)):
        with pytest.raises(Broken, match="expected uint8"):
            packed(x)


def test_copies_are_networks_of_their_own(make):
    packed, x = Packed(write(residual(make, 8, 8).graph, {}), "test", 2), make(3, 8, 8).images(2)
    wanted = packed(x)
    for made in (copy.copy(packed), copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert made._handle != packed._handle
        assert made.threads == 2
        assert np.array_equal(made(x), wanted)
    del made
    assert np.array_equal(packed(x), wanted)


def test_steps_that_could_not_be_timed_have_no_times(make, monkeypatch):
    packed = Packed(write(residual(make, 8, 8).graph, {}), "test")

    class Failing:
        def __getattr__(self, name):
            return (lambda *_: 1) if name == "prunery_engine_time" else getattr(library, name)

    library = packed._library
    monkeypatch.setattr(packed, "_library", Failing())
    assert packed.explain()
    with pytest.raises(Broken, match="the steps cannot be timed"):
        packed.explain(repeats=1)


def test_repeats_are_a_whole_number(make):
    packed = Packed(write(residual(make, 8, 8).graph, {}), "test")
    for wrong in (-1, "2", 1.5, True):
        with pytest.raises(Broken, match=r"repeats = .* expected a whole number"):
            packed.explain(repeats=wrong)


NAMES = [
    (None, "None is no file's name"), ("", "'' is no file's name"), ("a\0b", "is no file's name"),
    (".", r"^\. is a folder; expected a file's name, such as network\.prunery"),
    ("{tmp}", r"{tmp} is a folder; expected a file's name, such as {tmp}/network\.prunery"),
    ("x" * 256, "is 256 bytes long; expected a file's name of at most 255"),
    ("{tmp}/none/a", "{tmp}/none/a cannot be written: {tmp}/none is no folder; make it"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words"), NAMES, ids=range(len(NAMES)))
def test_names_that_no_file_can_have(make, name, words, tmp_path):
    packed = Packed(write(residual(make, 8, 8).graph, {}), "test")
    with pytest.raises(Broken, match=words.format(tmp=tmp_path)):
        packed.save(name and name.format(tmp=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_is_a_name(make, tmp_path):
    packed = Packed(write(residual(make, 8, 8).graph, {}), "test")
    for name in ("x" * 255, "ä" * 127):
        packed.save(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x" * 255, "ä" * 127]


def test_other_files_are_told_by_what_they_are(make, tmp_path):
    from safetensors.torch import save_file

    state = {"w": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "text").write_text("text, and no network at all, however long one may look at it, and further on")
    wrong = {
        "a.pt": r"PyTorch file .*prunery\.pack\(network, example\)", "old.pth": "PyTorch file",
        "a.safetensors": r"is a checkpoint .*prunery pack .*a\.safetensors", ".": "is a folder",
        "text": "does not begin like a packed network",
    }  # fmt: skip
    for name, words in wrong.items():
        with pytest.raises(Broken, match=words):
            runtime.load(tmp_path / name)
    for name in (None, 5, b"a", ""):
        with pytest.raises(Broken, match="is no file's name; expected one such as"):
            runtime.load(name)
    for data in (None, "text", 5):
        with pytest.raises(Broken, match="is no packed network; expected the bytes of a file"):
            runtime.loads(data)
    data = write(residual(make, 8, 8).graph, {})
    assert runtime.loads(bytearray(data)).data == runtime.loads(memoryview(data)).data == data


def test_files(make, tmp_path):
    m = residual(make, 8, 8)
    (tmp_path / "a.prunery").write_bytes(write(m.graph, {"classes": 8}))
    packed, x = runtime.load(tmp_path / "a.prunery"), m.images(1)
    assert packed.about["classes"] == 8
    packed.save(tmp_path / "b.prunery")
    assert (tmp_path / "a.prunery").read_bytes() == (tmp_path / "b.prunery").read_bytes()
    assert np.array_equal(runtime.load(tmp_path / "b.prunery")(x), packed(x))
    with pytest.raises(Broken, match=r"nothing\.prunery cannot be read: No such file"):
        runtime.load(tmp_path / "nothing.prunery")
    (tmp_path / "empty.prunery").touch()
    with pytest.raises(Broken, match=r"empty\.prunery"):
        runtime.load(tmp_path / "empty.prunery")


@pytest.mark.parametrize("damage", [lambda file, size: file.write(bytes(size)), lambda file, size: file.truncate(10)])
def test_a_file_may_change_once_it_is_loaded(make, damage, tmp_path):
    """Copied over, as `cp` does it; the plan of many images is made from what was read."""
    m = residual(make, 8, 8)
    data, x = write(m.graph, {"classes": 8}), m.images(33)
    (tmp_path / "a.prunery").write_bytes(data)
    packed, wanted = runtime.load(tmp_path / "a.prunery"), runtime.loads(data)(x)
    with open(tmp_path / "a.prunery", "r+b") as file:
        damage(file, len(data))
    assert np.array_equal(packed(x), wanted)
    assert (packed.data, packed.about) == (data, {"classes": 8})


def test_files_beyond_memory(monkeypatch, tmp_path):
    def full(path):
        raise MemoryError

    monkeypatch.setattr(runtime, "_read", full)
    with pytest.raises(Broken, match=r"a\.prunery cannot be read: it is larger than there is memory for"):
        runtime.load(tmp_path / "a.prunery")


@pytest.mark.parametrize("raw", ["", "3", "[]", "{", "nan", "[" * 60000])
def test_what_a_file_says_of_itself_is_a_table(make, raw, monkeypatch):
    monkeypatch.setattr("prunery.engine.file._json", lambda about: raw.encode())
    with pytest.raises(Broken, match=r"^the packed bytes: what it says about itself is .*; expected (JSON|a table)$"):
        runtime.loads(write(residual(make, 8, 8).graph, {}))


@pytest.mark.parametrize("shape", [[8, 64], [512], [2, 1, 4, 1, 64], [1] * 13 + [8, 8, 8]])
def test_results_have_the_shape_that_the_file_says(make, shape):
    m = residual(make, 8, 8)
    plain, packed, x = (
        runtime.loads(write(m.graph, {})),
        runtime.loads(write(m.graph, {"result_shape": shape})),
        m.images(3),
    )
    assert packed.output_shape == tuple(shape)
    assert np.array_equal(packed(x), plain(x).reshape(3, *shape))
    assert packed(x[0]).shape == tuple(shape)
    assert packed(x[:0]).shape == (0, *shape)
    assert copy.copy(packed)(x).shape == (3, *shape)


def test_a_result_may_be_one_number(make):
    m = make(3)
    m.linear(0, 1)
    packed, x = runtime.loads(write(m.graph, {"result_shape": []})), m.images(20)[:, :, 0, 0]
    assert (packed.output_shape, packed(x).shape, packed(x[0]).shape) == ((), (20,), ())
    assert np.array_equal(packed(x), runtime.loads(write(m.graph, {}))(x)[:, 0])
    assert torch.equal(packed(torch.tensor(x[0])), torch.tensor(packed(x[:1])[0]))


WRONG = [[8], [8, 8, 9], [-8, -8, 8], [0], [8.0, 64], [True, 512], ["512"], 512, None, "512", {}, [1] * 16 + [512]]


@pytest.mark.parametrize("shape", WRONG, ids=range(len(WRONG)))
def test_shapes_that_results_cannot_have(make, shape):
    words = r"result_shape = .* is no shape of its results; expected at most 16 whole numbers .* product is 512$"
    with pytest.raises(Broken, match=words):
        runtime.loads(write(residual(make, 8, 8).graph, {"result_shape": shape}))


def test_explain_tells_every_step(make):
    m = residual(make, 16, 16)
    packed = Packed(write(m.graph, {}), "test")
    for batch in (False, True):
        told = packed.explain(batch, repeats=2)
        convs = [layer for layer in told if layer.multiply_adds]
        assert [layer.name for layer in convs] == ["layer0", "layer1", "layer2"]
        assert all(layer.measured_us > 0 and layer.predicted_us > 0 and layer.why for layer in convs)
        assert convs[1].density == pytest.approx(np.mean(m.graph.ops[1].weight != 0))


def test_the_run_time_needs_no_torch(make, tmp_path):
    m = residual(make, 8, 8)
    (tmp_path / "a.prunery").write_bytes(write(m.graph, {}))
    np.save(tmp_path / "x.npy", m.images(2))
    code = f"""
import sys
for name in ("torch", "torchvision", "timm", "typer", "safetensors"):
    sys.modules[name] = None
import numpy, prunery.runtime
print(prunery.runtime.load({str(tmp_path / "a.prunery")!r})(numpy.load({str(tmp_path / "x.npy")!r})).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(2, 8, 8, 8)", done.stderr
