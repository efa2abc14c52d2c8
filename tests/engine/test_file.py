"""The packed file: byte for byte as docs/format.md says, exact both ways, refused in one line where it is wrong.

Two readers know the format, the engine's in C++ and the tools' in Python. They must agree on every file.
"""

import ctypes
import sys
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from prunery import native
from prunery.engine.file import HEADER, OP, TENSOR, read, save, write
from prunery.engine.graph import Graph, Op, Tensor
from prunery.spec import Refused

sys.path.insert(0, str(Path(__file__).parent))
from nets import NETS, Net, tiny

ABOUT = {"made": "by hand"}


def by_python(data):
    """The refusal, or nothing."""
    try:
        read(data)
    except Refused as refusal:
        return str(refusal)
    return ""


def by_engine(data):
    """The refusal of the reader that the kernels trust, or nothing."""
    check = native.library().prunery_engine_check
    check.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int]
    message = ctypes.create_string_buffer(1000)
    return message.value.decode() if check(data, len(data), message, len(message)) else ""


READERS = {"python": by_python, "engine": by_engine}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.fixture(scope="module")
def files():
    """The bytes of every small net."""
    return {name: write(make(), ABOUT, values) for name, (make, values) in NETS.items()}


# ---- what is written

TINY = """
93 50 52 55 4e 45 52 59  01 00 00 00  a5 2a 18 be  48 02 00 00 00 00 00 00   # magic, version, CRC-32, size 584
02 00 00 00  01 00 00 00  01 00 00 00  07 00 00 00  12 00 00 00              # tensors, operations, inputs, names, about
00 00 00 00  01 00 00 00  00 00 00 00 00 00 00 00 00 00 00 00                # the input, the output
03 00 00 00 01 00 00 00 01 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00
02 00 00 00 01 00 00 00 01 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00
02 00 00 00  00 00 00 00  00 00 00 00  01 00 00 00                           # linear, no activation, writes tensor 1
00 00 00 00 01 00 00 00  00 00 00 00 07 00 00 00                             # one input, a name of seven bytes
01 00 00 00 01 00 00 00  01 00 00 00 01 00 00 00  01 00 00 00 01 00 00 00    # kernel, stride, dilation
01 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00    # groups, padding
02 00 00 00 03 00 00 00  02 00 00 00  00 00 00 00  10 00 00 00  00 00 00 00  # 2 x 3, sparse, f32, 16 bits
02 00 00 00 00 00 00 00  80 01 00 00 00 00 00 00  c0 01 00 00 00 00 00 00    # two values; start at 384, index at 448
00 02 00 00 00 00 00 00  00 00 00 00 00 00 00 00  40 02 00 00 00 00 00 00    # values at 512, no scales, bias at 576
00 00 00 00 00 00 00 00                                                      # no index of channels
00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
00 00 00 00                                                                  # the only input: tensor 0
6c 69 6e 65 61 72 30  7b 22 6d 61 64 65 22 3a 22 62 79 20 68 61 6e 64 22 7d  # linear0{"made":"by hand"}
"""
ARRAYS = {384: "00000000 01000000 02000000", 448: "0000 0200", 512: "0000803f 00000040", 576: "0000003f 000000bf"}


def test_a_tiny_file_is_as_the_page_says_byte_for_byte():
    tables = bytes.fromhex("".join(line.partition("#")[0] for line in TINY.splitlines()))
    wanted = bytearray(584)
    wanted[: len(tables)] = tables
    for place, text in ARRAYS.items():
        wanted[place : place + len(bytes.fromhex(text))] = bytes.fromhex(text)
    assert write(tiny(), ABOUT) == bytes(wanted)


def same(a, b):
    """Two operations or tensors, field by field, bit by bit."""
    for name in (f.name for f in fields(a)):
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray):
            assert y.dtype == x.dtype, name
            assert np.array_equal(x, y), name
        else:
            assert x == y, name


@pytest.mark.parametrize("name", NETS)
def test_what_is_read_is_what_was_written(name, files):
    graph, (read_back, about) = NETS[name][0](), read(files[name])
    if NETS[name][1] == "f16":
        for op in graph.ops:
            if op.weight is not None:
                op.weight = op.weight.astype(np.float16).astype(np.float32)
    assert about == ABOUT
    assert (graph.input, graph.output) == (read_back.input, read_back.output)
    for a, b in zip(graph.tensors + graph.ops, read_back.tensors + read_back.ops, strict=True):
        same(a, b)


@pytest.mark.parametrize("name", NETS)
def test_the_engine_reads_what_was_written(name, files):
    assert by_engine(files[name]) == ""


def records(data):
    """The header, and the tensors and operations of a file, as arrays."""
    head = np.frombuffer(data, HEADER, 1)
    tensors = np.frombuffer(data, TENSOR, head["tensors"][0], 64)
    return head, tensors, np.frombuffer(data, OP, head["ops"][0], 64 + tensors.nbytes)


def stored(weight, **options):
    """Encoding, values and bits of a linear layer's matrix."""
    net = Net(weight.shape[1])
    if weight.dtype == np.int8:
        x = net.add("quantize", [0], net.shape(0), ("u8", 1.0, 0))
        scales = np.ones(len(weight), np.float32)
        net.add("linear", [x], (len(weight),), weight=weight, scales=scales)
    else:
        net.add("linear", [0], (len(weight),), weight=weight)
    op = records(write(net.graph, {}, **options))[2][-1]
    return int(op["encoding"]), int(op["values"]), int(op["bits"])


@pytest.mark.parametrize(
    ("kept", "columns", "dtype", "wanted"),
    [
        (400, 400, "f4", (1, 0, 0)), (300, 400, "f4", (1, 0, 0)), (299, 400, "f4", (2, 0, 16)),
        (1, 65536, "f4", (2, 0, 16)), (1, 65537, "f4", (2, 0, 32)), (0, 400, "f4", (2, 0, 16)),
        (400, 400, "i1", (1, 2, 0)), (299, 400, "i1", (2, 2, 16)), (100, 400, "i1", (2, 2, 16)),
    ],
)  # fmt: skip
def test_a_matrix_is_sparse_below_three_quarters(kept, columns, dtype, wanted):
    assert stored((np.arange(columns) < kept).astype(dtype)[None]) == wanted


def test_what_half_precision_cannot_hold_stays_as_it_is():
    assert stored(np.full((1, 4), 65504.0, np.float32), values="f16") == (1, 1, 0)
    assert stored(np.full((1, 4), 1e6, np.float32), values="f16") == (1, 0, 0)


def test_places_of_what_half_precision_rounds_to_zero_are_not_kept():
    net = Net(4)
    net.add("linear", [0], (1,), weight=np.array([[1e-9, 1, 0, 2]], np.float32))
    assert records(write(net.graph, {}, "f16"))[2][0]["kept"] == 2


def test_a_file_is_saved_whole(tmp_path, files):
    save(tmp_path / "x.prunery", files["plain"])
    save(tmp_path / "x.prunery", files["tiny"])
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.prunery", files["tiny"])]
    with pytest.raises(Refused, match="cannot be written"):
        save(tmp_path / "x.prunery" / "y.prunery", files["tiny"])


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 1000, 4097])
def test_the_checksum_is_that_of_zlib(size):
    crc32 = native.library().prunery_engine_crc32
    crc32.argtypes, crc32.restype = [ctypes.c_char_p, ctypes.c_uint64], ctypes.c_uint32
    data = np.random.default_rng(size).bytes(size)
    assert crc32(data, size) == zlib.crc32(data)


# ---- what is refused, by both readers in the same words


def sealed(data):
    """With the size and the checksum that belong to it."""
    data = bytearray(data)
    if len(data) >= 64:
        data[16:24] = len(data).to_bytes(8, "little")
        data[12:16] = zlib.crc32(data[16:]).to_bytes(4, "little")
    return bytes(data)


class Opened:
    """A file's bytes, to be changed field by field."""

    def __init__(self, data):
        self.data = bytearray(data)
        self.head, self.tensors, self.ops = records(self.data)
        (self.head,) = self.head
        self.inputs = 64 + self.tensors.nbytes + self.ops.nbytes
        self.names = self.inputs + 4 * int(self.head["inputs"])
        self.about = self.names + int(self.head["names"])

    def op(self, name):
        """The record of the operation of this name."""
        for op in self.ops:
            first, length = (int(n) for n in op["name"])
            if self.data[self.names + first :][:length].decode() == name:
                return op
        raise KeyError(name)

    def put(self, place, dtype, *values):
        array = np.array(values, dtype)
        self.data[int(place) : int(place) + array.nbytes] = array.tobytes()


def head(**values):
    return lambda f: [f.head.__setitem__(k, v) for k, v in values.items()]


def tensor(number, **values):
    return lambda f: [f.tensors[number].__setitem__(k, v) for k, v in values.items()]


def op(name, /, **values):
    return lambda f: [f.op(name).__setitem__(k, v) for k, v in values.items()]


def array(name, field, dtype, *values, at=0):
    """Numbers in the array that a field of an operation points to."""
    return lambda f: f.put(f.op(name)[field] + at * np.dtype(dtype).itemsize, dtype, *values)


def text(where, raw, at=0):
    return lambda f: f.put(getattr(f, where) + at, "u1", *raw)


def listed(place, value):
    return lambda f: f.put(f.inputs + 4 * place, "<u4", value)


HUGE = 2**63 + 64  # a multiple of 64 that becomes small when it is doubled

REFUSED = [
    # the header
    ("tiny", head(magic=b"\x89PRUNERY"), "the file does not begin like a packed network; expected"),
    ("tiny", head(version=2), "the file has version 2; expected 1"),
    ("tiny", head(reserved=[0] * 11 + [1]), "reserved bytes of the header are not zero"),
    ("tiny", head(tensors=1), "the file has 1 tensors; expected 2 to 8192"),
    ("tiny", head(tensors=8193), "the file has 8193 tensors; expected 2 to 8192"),
    ("tiny", head(tensors=3), "the file has 1 operations; expected 2, one for each tensor but the input"),
    ("tiny", head(ops=2), "the file has 2 operations; expected 1,"),
    ("tiny", head(input=2), "the input is tensor 2; expected less than 2"),
    ("tiny", head(output=2), "the output is tensor 2; expected less than 2"),
    ("tiny", head(about=2**32 - 1), "the tables need 4294967680 bytes; expected at most the 584 of the file"),
    ("tiny", head(inputs=2**32 - 1), "the tables need 17179869568 bytes; expected at most the 584"),
    ("tiny", lambda f: f.put(f.about + 18, "u1", 1), "the bytes between tables and arrays are not zero"),
    ("tiny", text("about", b"{\n}"), "what it says about itself is damaged; expected UTF-8 without control characters"),
    # tensors
    ("tiny", tensor(0, shape=(0, 1, 1)), "tensor 0: 0 x 1 x 1; expected 1 to 2^20 each, and at most 2^28 numbers"),
    ("tiny", tensor(1, shape=(1, 2**20 + 1, 1)), "tensor 1: 1 x 1048577 x 1; expected 1 to 2"),
    ("tiny", tensor(1, shape=(2**20, 2**20, 2**20)), "tensor 1: 1048576 x 1048576 x 1048576; expected"),
    ("tiny", tensor(0, type=2), "tensor 0: type 2; expected 0 or 1"),
    ("tiny", tensor(0, scale=1), "tensor 0: scale 1, zero 0; expected 0 and 0 for float32"),
    ("tiny", tensor(0, scale=-0.0), "tensor 0: scale -0, zero 0; expected 0 and 0"),
    ("tiny", tensor(0, zero=3), "tensor 0: scale 0, zero 3; expected 0 and 0"),
    ("tiny", tensor(0, reserved=[1] * 8), "tensor 0: reserved bytes are not zero"),
    ("integers", tensor(1, scale=0), "tensor 1: scale 0; expected 2^-40 to 2^24 for bytes"),
    ("integers", tensor(1, scale=-1), "tensor 1: scale -1; expected"),
    ("integers", tensor(1, scale=np.nan), "tensor 1: scale nan; expected"),
    ("integers", tensor(1, scale=2.0**25), "tensor 1: scale 3.35544e+07; expected"),
    ("integers", tensor(1, zero=256), "tensor 1: zero 256; expected 0 to 255"),
    # operations: what and where
    ("tiny", op("linear0", kind=0), "operation 0: kind 0; expected 1 to 15"),
    ("tiny", op("linear0", kind=16), "operation 0: kind 16; expected 1 to 15"),
    ("plain", op("conv1", name=(4, 5)), "operation 1: its name begins at 4; expected 5, where the one before ends"),
    ("plain", op("linear5", name=(29, 8)), "operation 5: its name begins at 29; expected 32"),
    ("tiny", op("linear0", name=(0, 8)), "operation 0: its name ends at 8; expected at most 7, the bytes of names"),
    ("tiny", op("linear0", name=(0, 6)), "there are 7 bytes of names; expected 6, as operations need"),
    ("tiny", text("names", b"\x1b[2J"), "operation 0: its name is damaged; expected UTF-8 without control"),
    ("tiny", text("names", b"\x7f"), "operation 0: its name is damaged"),
    ("tiny", text("names", "\u0085".encode()), "operation 0: its name is damaged"),
    ("tiny", text("names", "\u2028".encode()), "operation 0: its name is damaged"),
    ("tiny", text("names", b"\xff"), "operation 0: its name is damaged"),
    ("tiny", text("names", b"\xc0\xaf"), "operation 0: its name is damaged"),
    ("tiny", text("names", b"\xe0\x9f\xbf"), "operation 0: its name is damaged"),
    ("tiny", text("names", b"\xed\xa0\x80"), "operation 0: its name is damaged"),
    ("tiny", text("names", b"\xf4\x90\x80\x80"), "operation 0: its name is damaged"),
    ("tiny", text("names", b"\xe2\x82", at=5), "operation 0: its name is damaged"),
    ("tiny", op("linear0", reserved=1), "operation 0 linear0 (linear): reserved bytes are not zero"),
    ("tiny", op("linear0", also_reserved=[0] * 31 + [1]), "operation 0 linear0 (linear): reserved bytes are not zero"),
    ("plain", op("conv1", inputs=(0, 2)), "(conv): its inputs begin at 0; expected 1, where those before end"),
    ("plain", op("linear5", inputs=(6, 2)), "(linear): its inputs end at 8; expected at most 7, the length of their"),
    ("plain", op("conv1", inputs=(1, 1)), "(max_pool): its inputs begin at 3; expected 2"),
    ("tiny", listed(0, 1), "(linear): it reads tensor 1; expected one that is written before"),
    ("tiny", listed(0, 2**32 - 1), "(linear): it reads tensor 4294967295; expected one that is written before"),
    ("tiny", op("linear0", output=0), "(linear): it writes tensor 0; expected one that is not written yet"),
    ("tiny", op("linear0", output=2), "(linear): it writes tensor 2; expected one that is not written yet"),
    ("plain", op("conv1", output=1), "(conv): it writes tensor 1; expected one that is not written yet"),
    ("plain", head(output=5), "tensor 6 is never read; expected every tensor but the output to be read"),
    ("integers", op("add17", kind=8, inputs=(22, 1)), "the list of inputs has 24; expected 23, as operations read"),
    # settings
    ("tiny", op("linear0", activation=11), "(linear): activation 11; expected 0 to 10"),
    ("plain", op("max_pool2", activation=11), "(max_pool): activation 11; expected 0"),
    ("tiny", op("linear0", slope=1), "(linear): slope 1; expected 0"),
    ("tiny", op("linear0", slope=-0.0), "(linear): slope -0; expected 0"),
    ("activations", op("activate18", slope=np.inf), "(activate): slope inf; expected a finite number"),
    ("plain", op("conv0", kernel=(0, 3)), "(conv): kernel 0 x 3; expected 1 to 255"),
    ("plain", op("conv0", kernel=(3, 256)), "(conv): kernel 3 x 256; expected 1 to 255"),
    ("plain", op("conv0", stride=(1, 0)), "(conv): stride 1 x 0; expected 1 to 255"),
    ("plain", op("conv0", dilation=(256, 1)), "(conv): dilation 256 x 1; expected 1 to 255"),
    ("plain", op("flatten4", kernel=(1, 2)), "(flatten): kernel 1 x 2; expected 1 x 1"),
    ("windows", op("avg_pool4", dilation=(1, 2)), "(avg_pool): dilation 1 x 2; expected 1 x 1"),
    ("plain", op("conv0", padding=(1, 1, 3, 1)), "(conv): padding 3; expected less than the window's extent, 3"),
    ("plain", op("flatten4", padding=(0, 0, 0, 1)), "(flatten): padding 1; expected less than the window's extent, 1"),
    ("plain", op("conv0", groups=0), "(conv): 0 groups; expected 1 to 2^20"),
    ("plain", op("conv0", groups=2**20 + 1), "(conv): 1048577 groups; expected 1 to 2^20"),
    ("tiny", op("linear0", groups=2), "(linear): 2 groups; expected 1"),
    ("plain", op("conv0", count_padding=1), "(conv): counting of padding is 1; expected 0"),
    ("windows", op("avg_pool4", count_padding=2), "(avg_pool): counting of padding is 2; expected 0 or 1"),
    # the matrix
    ("tiny", op("linear0", matrix=(0, 3)), "(linear): a matrix of 0 x 3; expected at least 1 x 1"),
    ("tiny", op("linear0", matrix=(2**15, 2**15 + 1)), "(linear): a matrix of 32768 x 32769; expected at most 2^30 pl"),
    ("tiny", op("linear0", matrix=(2**32 - 1, 2**32 - 1)), "expected at most 2^30 places in all matrices"),
    ("tiny", op("linear0", encoding=0), "(linear): encoding 0; expected 1 or 2"),
    ("tiny", op("linear0", encoding=3), "(linear): encoding 3; expected 1 or 2"),
    ("branches", op("affine0", encoding=2), "(affine): encoding 2; expected 1"),
    ("tiny", op("linear0", values=3), "(linear): values 3; expected 0, 1 or 2"),
    ("branches", op("affine0", values=1), "(affine): values 1; expected 0"),
    ("plain", op("conv0", kept=215), "(conv): 215 values; expected 216, the places of the matrix"),
    ("tiny", op("linear0", kept=7), "(linear): 7 values; expected at most 6, the places of the matrix"),
    ("tiny", op("linear0", kept=2**62), "(linear): 4611686018427387904 values; expected at most 6"),
    ("plain", op("conv0", bits=16), "(conv): 16 bits of an index; expected 0"),
    ("tiny", op("linear0", bits=8), "(linear): 8 bits of an index; expected 16 or 32"),
    ("wide", op("linear0", bits=16), "(linear): 16 bits of an index; expected 32"),
    ("plain", op("conv0", start_at=64), "(conv): start of rows: 64; expected 0, since there is none"),
    ("plain", op("conv0", index_at=64), "(conv): index: 64; expected 0, since there is none"),
    ("plain", op("conv0", scales_at=64), "(conv): scales: 64; expected 0, since there is none"),
    ("plain", op("flatten4", values=1), "(flatten): matrix: 1; expected 0, since there is none"),
    ("plain", op("flatten4", values_at=64), "(flatten): matrix: 64; expected 0, since there is none"),
    ("plain", op("flatten4", bias_at=64), "(flatten): bias: 64; expected 0, since there is none"),
    ("tiny", op("linear0", gather_at=64), "(linear): index of channels: 64; expected 0"),
    # arrays
    ("tiny", op("linear0", values_at=516), "(linear): values at 516; expected a multiple of 64"),
    ("tiny", op("linear0", values_at=0), "(linear): values at 0 with 8 bytes; expected a place between 384 and 584"),
    ("tiny", op("linear0", values_at=320), "(linear): values at 320 with 8 bytes; expected a place between"),
    ("tiny", op("linear0", values_at=640), "(linear): values at 640 with 8 bytes; expected a place between"),
    ("tiny", op("linear0", values_at=2**64 - 64), "(linear): values at 18446744073709551552 with 8 bytes; expected"),
    ("tiny", op("linear0", start_at=HUGE), "(linear): start of rows at 9223372036854775872 with 12 bytes; expected"),
    ("tiny", op("linear0", start_at=576), "(linear): start of rows at 576 with 12 bytes; expected a place between"),
    ("wide", op("linear0", index_at=2**40), "(linear): index at 1099511627776 with 5668 bytes; expected a place"),
    ("integers", op("conv1", scales_at=0), "(conv): scales at 0 with 32 bytes; expected a place between"),
    ("tiny", op("linear0", bias_at=577), "(linear): bias at 577; expected a multiple of 64"),
    ("branches", op("affine0", bias_at=0), "(affine): no bias; expected one"),
    ("branches", op("gather1", gather_at=0), "(gather): index of channels at 0 with 12 bytes; expected a place"),
    # what is in them
    ("tiny", array("linear0", "values_at", "<f4", np.nan), "a weight is infinite or not a number; expected finite num"),
    ("plain", array("conv0", "values_at", "<f4", -np.inf, at=215), "a weight is infinite or not a number"),
    ("halves", array("conv0", "values_at", "<f2", np.inf, at=215), "a weight is infinite or not a number"),
    ("sparse halves", array("conv1", "values_at", "<f2", np.nan), "a weight is infinite or not a number"),
    ("tiny", array("linear0", "bias_at", "<f4", 0, np.nan), "a bias is infinite or not a number; expected finite"),
    ("integers", array("conv1", "scales_at", "<f4", 0, at=7), "the scale of row 7 is 0; expected 2^-40 to 2^24"),
    ("integers", array("conv1", "scales_at", "<f4", np.nan, at=2), "the scale of row 2 is nan; expected"),
    ("tiny", array("linear0", "start_at", "<u4", 1), "the first row starts at 1; expected 0"),
    ("tiny", array("linear0", "start_at", "<u4", 0, 3), "row 1 ends at 2; expected at least 3, its start"),
    ("tiny", array("linear0", "start_at", "<u4", 0, 2**32 - 1), "row 1 ends at 2; expected at least 4294967295"),
    ("tiny", array("linear0", "start_at", "<u4", 0, 1, 1), "the last row ends at 1; expected 2, the number of values"),
    ("tiny", op("linear0", kept=3), "the last row ends at 2; expected 3, the number of values"),
    ("tiny", array("linear0", "index_at", "<u2", 0, 3), "row 1 has a weight at 3; expected less than 3"),
    ("wide", array("linear0", "index_at", "<u4", 2**31), "the index of row 0 does not rise; expected places in"),
    ("sparse", array("conv0", "index_at", "<u2", 0, 0), "the index of row 0 does not rise; expected places in rising"),
    ("branches", array("gather1", "gather_at", "<u4", 6), "the index of channels goes beyond the input; expected less"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), REFUSED, ids=range(len(REFUSED)))
def test_a_file_that_contradicts_itself_is_refused(name, change, words, files, reader):
    opened = Opened(files[name])
    change(opened)
    refusal = reader(sealed(opened.data))
    assert words in refusal
    assert "\n" not in refusal


def test_a_file_of_another_length_is_refused(files, reader):
    whole = files["tiny"]
    for length in range(len(whole)):
        assert ("expected at least 64" if length < 64 else "expected 584, as its header says") in reader(whole[:length])
        assert reader(sealed(whole[:length]))
    assert "the file has 585 bytes; expected 584" in reader(whole + b"\0")
    assert reader(sealed(whole + b"\0")) == ""


def test_a_bit_that_turned_is_noticed(files, reader):
    whole = files["tiny"]
    for place in range(12, len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        assert reader(bytes(data))


def test_numbers_must_lie_where_the_processor_reads_them(files):
    check = native.library().prunery_engine_check
    check.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int]
    room, message = np.zeros(600, np.uint8), ctypes.create_string_buffer(1000)
    room[2:586] = np.frombuffer(files["tiny"], np.uint8)
    assert check(room.ctypes.data + 2, 584, message, 1000)
    assert message.value == b"the file lies at an odd address in memory; expected a multiple of 4"


@pytest.mark.parametrize("raw", ["", "3", "[]", "{", "nan", "[" * 60000])
def test_what_a_file_says_of_itself_is_a_table(raw, monkeypatch):
    """The run time looks into it, so the engine lets it be."""
    monkeypatch.setattr("prunery.engine.file._json", lambda about: raw.encode())
    data = write(tiny(), {})
    assert "what it says about itself is" in by_python(data)
    assert by_engine(data) == ""


# ---- unsound graphs: refused when they are written, and by both readers should somebody else have written them


def graph_tensor(number, **values):
    return lambda g: [setattr(g.tensors[number], k, v) for k, v in values.items()]


def graph_op(number, **values):
    return lambda g: [setattr(g.ops[number], k, v) for k, v in values.items()]


def both(*changes):
    return lambda g: [change(g) for change in changes]


def bytes_at(*numbers, scale=1.0, zero=0):
    return both(*[graph_tensor(n, type="u8", scale=scale, zero=zero) for n in numbers])


def floats_at(*numbers):
    return both(*[graph_tensor(n, type="f32", scale=0.0, zero=0) for n in numbers])


def large():
    """Five tensors of 2^28 numbers."""
    net = Net(16, 4096, 4096)
    for x in range(4):
        net.like("activate", x)
    return net.graph


def pooled():
    """Three tensors of 2^28 numbers, two of which are read by a window."""
    net = Net(16, 4096, 4096)
    for x in range(2):
        net.pool("max_pool", x, (4096, 4096))
    return net.graph


def strided():
    """A picture of one pixel, of which blocks as large as the stride would be made."""
    net = Net(4096)
    net.pool("max_pool", 0, (1, 1), stride=(255, 255))
    return net.graph


def padded(extent=1, padding=64770, stride=255):
    """One channel, and the largest window that there is."""
    net = Net(1, extent, extent)
    window = {"padding": (padding,) * 4, "stride": (stride, stride), "dilation": (255, 255) if stride > 1 else (1, 1)}
    net.conv(0, 1, (255, 255), density=0.0, **window)
    return net.graph


def heavy():
    """A row of bytes that 32 bits cannot sum up."""
    net = Net(40000)
    x = net.add("quantize", [0], (40000,), ("u8", 1.0, 0))
    weight = np.concatenate([np.zeros((1, 40000)), np.full((1, 40000), -128)]).astype(np.int8)
    net.add("linear", [x], (2,), weight=weight, scales=np.ones(2, np.float32))
    return net.graph


def broad():
    """A mean of more bytes than 31 bits can sum up."""
    net = Net(1, 4096, 4096)
    net.add("global_pool", [net.add("quantize", [0], net.shape(0), ("u8", 1.0, 0))], (1,))
    return net.graph


def near(seed=8):
    """A dilated window that could step over a small picture."""
    net = Net(2, 3, 3, seed=seed)
    net.pool("max_pool", 0, (2, 3), kernel=(2, 2), dilation=(2, 2), padding=(1, 1, 0, 1), stride=(1, 1))
    return net.graph


ONES = np.ones((2, 3), np.float32)
INTEGERS = {"weight": ONES.astype(np.int8), "scales": np.ones(2, np.float32)}
FLOATS = {"weight": np.ones((8, 36), np.float32), "scales": None}
MAX_POOL = {"kind": "max_pool", "count_padding": False}

UNSOUND = [
    ("branches", graph_op(3, inputs=[3]), "(concat): 1 inputs; expected 2 or more"),
    ("branches", graph_op(8, inputs=[8]), "(add): 1 inputs; expected 2"),
    ("branches", graph_op(0, inputs=[]), "(affine): 0 inputs; expected 1"),
    ("plain", graph_op(1, inputs=[1, 1, 1]), "(conv): 3 inputs; expected 1 or 2"),
    # types
    ("integers", floats_at(1), "(quantize): an output of float32; expected bytes"),
    ("integers", bytes_at(0), "(quantize): an input of bytes; expected float32"),
    ("integers", bytes_at(16), "(dequantize): an output of bytes; expected float32"),
    ("integers", graph_op(15, inputs=[14]), "(dequantize): an input of float32; expected bytes"),
    ("integers", floats_at(3), "(conv): a residual of bytes; expected none where the output is float32"),
    ("integers", floats_at(6), "(max_pool): an output of float32; expected bytes"),
    ("integers", floats_at(5), "(add): an output of float32; expected bytes"),
    ("integers", floats_at(9), "(concat): an output of float32; expected bytes"),
    ("integers", bytes_at(15), "(linear): activation 6; expected 0, 1 or 2 for bytes"),
    ("integers", floats_at(13), "(linear): a residual of bytes; expected none where the output is float32"),
    ("integers", graph_op(1, **FLOATS), "(conv): weights of floats for an input of bytes; expected i8"),
    ("tiny", graph_op(0, **INTEGERS), "(linear): weights of i8 for an input of float32; expected f32 or f16"),
    ("integers", graph_op(16, inputs=[15, 13]), "(add): inputs of float32 and bytes; expected one type"),
    ("branches", bytes_at(0), "(affine): an input of bytes; expected float32"),
    ("branches", bytes_at(2), "(gather): an output of bytes; expected float32"),
    ("integers", graph_tensor(6, scale=0.5), "(max_pool): scale and zero 0.1 and 100 become 0.5 and 100; expected the"),
    ("integers", graph_tensor(8, zero=99), "(gather): scale and zero 0.1 and 100 become 0.1 and 99; expected the same"),
    ("integers", graph_tensor(9, zero=99), "(concat): scale and zero 0.1 and 100 become 0.1 and 99; expected the same"),
    ("integers", graph_tensor(11, zero=9), "(flatten): scale and zero 0.1 and 100 become 0.1 and 9; expected the same"),
    # shapes
    ("plain", graph_tensor(1, rows=8), "(conv): the output is 8 x 8 x 7; expected 8 x 9 x 7"),
    ("plain", graph_op(0, groups=2), "(conv): 2 groups of 3 channels and 8 outputs; expected a divisor of both"),
    ("windows", graph_op(1, groups=3), "(conv): 3 groups of 6 channels and 4 outputs; expected a divisor of both"),
    ("plain", graph_op(0, kernel=(3, 2)), "(conv): weights for 27 inputs; expected 18"),
    ("plain", graph_op(0, dilation=(6, 1)), "(conv): a window of 13 x 3 over 3 x 9 x 7; expected one that fits into"),
    ("tiny", graph_tensor(0, rows=2), "(linear): the input is 3 x 2 x 1; expected 3 x 1 x 1"),
    ("tiny", graph_tensor(1, channels=3), "(linear): the output is 3 x 1 x 1; expected 2 x 1 x 1"),
    ("tiny", graph_tensor(0, channels=4), "(linear): weights for 3 inputs; expected 4"),
    ("plain", graph_op(1, inputs=[1, 0]), "(conv): the residual is 3 x 9 x 7; expected 8 x 9 x 7"),
    ("plain", graph_tensor(3, channels=7), "(max_pool): the output is 7 x 5 x 4; expected 8 channels"),
    ("plain", graph_tensor(3, rows=6), "(max_pool): the output has 6 rows; expected 4 or 5"),
    ("plain", graph_tensor(3, columns=2), "(max_pool): the output has 2 columns; expected 3 or 4"),
    ("plain", both(graph_op(2, padding=(1, 0, 1, 0)), graph_tensor(3, rows=6)), "the output has 6 rows; expected 5"),
    ("windows", graph_tensor(5, columns=7), "(avg_pool): the output has 7 columns; expected 11"),
    ("windows", graph_op(4, padding=(0, 0, 0, 0)), "(avg_pool): the output has 5 rows; expected 3"),
    ("windows", graph_op(4, kernel=(6, 3), padding=(0, 0, 0, 0)), "a window of 6 over 5 rows; expected one that fits"),
    (near, graph_tensor(0, rows=1), "(max_pool): dilation 2 x 2 over 2 x 1 x 3; expected at most its rows and columns"),
    ("windows", graph_tensor(8, channels=6), "(global_pool): the output is 6 x 1 x 1; expected 5 x 1 x 1"),
    ("branches", graph_tensor(9, rows=4), "(add): the output is 9 x 4 x 4; expected 9 x 5 x 4"),
    ("branches", graph_op(8, inputs=[8, 1]), "(add): the second input is 6 x 5 x 4; expected 9 x 5 x 4"),
    ("branches", graph_op(6, inputs=[4, 1]), "(mul): the second input is 6 x 5 x 4; expected 9 x 5 x 4"),
    ("branches", graph_tensor(7, rows=4), "(mul): the output is 9 x 4 x 4; expected 9 x 5 x 4"),
    ("branches", graph_tensor(1, rows=4), "(affine): the output is 6 x 4 x 4; expected 6 x 5 x 4"),
    ("branches", graph_tensor(0, channels=5), "(affine): weights for 6 channels; expected 5"),
    ("branches", graph_op(0, weight=np.ones((6, 2), np.float32)), "(affine): weights for 2 inputs; expected 1"),
    ("branches", graph_tensor(2, rows=4), "(gather): the output is 3 x 4 x 4; expected 3 x 5 x 4"),
    ("branches", graph_tensor(4, channels=8), "(concat): the output is 8 x 5 x 4; expected 9 x 5 x 4"),
    ("plain", graph_op(4, kind="concat", inputs=[4, 1]), "(concat): the next input is 8 x 9 x 7; expected 8 x 3 x 4"),
    ("plain", graph_tensor(5, channels=143), "(flatten): the output is 143 x 1 x 1; expected 144 x 1 x 1"),
    ("activations", graph_op(0, kind="softmax"), "(softmax): the input is 3 x 4 x 4; expected 3 x 1 x 1"),
    ("branches", graph_tensor(13, channels=8), "(softmax): the output is 8 x 1 x 1; expected 7 x 1 x 1"),
    ("activations", graph_tensor(1, rows=5), "(activate): the output is 3 x 5 x 4; expected 3 x 4 x 4"),
    ("integers", graph_tensor(1, rows=8), "(quantize): the output is 4 x 8 x 8; expected 4 x 9 x 8"),
    ("integers", graph_tensor(16, channels=8), "(dequantize): the output is 8 x 1 x 1; expected 12 x 1 x 1"),
    ("tiny", graph_op(0, name="é" * 31, groups=2), f"operation 0 {'é' * 28}... (linear): 2 groups; expected 1"),
    # limits
    ("tiny", graph_tensor(1, channels=2**20, rows=2**9), "tensor 1: 1048576 x 512 x 1; expected 1 to 2^20 each, and a"),
    (large, both(), "tensor 4: too many numbers; expected at most 2^30 in all tensors and inputs of windows"),
    (pooled, both(), "operation 1 max_pool1 (max_pool): too many numbers; expected at most 2^30 in all tensors and"),
    (strided, both(), "the input with room for windows is 4096 x 1017 x 1017; expected at most 2^28 numbers"),
    (padded, both(), "(conv): the input with room for windows is 1 x 259081 x 259081; expected at most 2^28"),
    (lambda: padded(15000, 127, 1), both(), "(conv): too much to compute; expected at most 2^42 multiply-adds"),
    (heavy, both(), "(linear): the weights of row 1 add up to 5120000; expected at most 4210752, for 32 bits"),
    (broad, both(), "(global_pool): a mean of 4096 x 4096 bytes; expected at most 2^23"),
]  # fmt: skip


@pytest.fixture
def unchecked(monkeypatch):
    """A writer that believes everything."""
    monkeypatch.setattr("prunery.engine.file.check", lambda graph: None)


def changed(base, change):
    graph = NETS[base][0]() if isinstance(base, str) else base()
    change(graph)
    return graph


@pytest.mark.parametrize(("base", "change", "words"), UNSOUND, ids=range(len(UNSOUND)))
def test_an_unsound_graph_is_not_written(base, change, words):
    with pytest.raises(Refused) as refusal:
        write(changed(base, change), {})
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("base", "change", "words"), UNSOUND, ids=range(len(UNSOUND)))
def test_an_unsound_graph_is_not_read(base, change, words, unchecked, monkeypatch):
    data = write(changed(base, change), {})
    monkeypatch.undo()
    assert words in by_engine(data)
    assert words in by_python(data)


UNWRITABLE = [
    (graph_tensor(0, type="i4"), "tensor 0: type i4; expected f32 or u8"),
    (graph_op(0, kind="fold"), "(fold): kind fold; expected one of conv, linear,"),
    (graph_op(0, activation="mish"), "(linear): activation mish; expected one of none, relu,"),
    (graph_op(0, name="a\nb"), "operation 0: its name is damaged; expected UTF-8 without control characters"),
    (graph_op(0, name="\ud800"), "operation 0: its name is damaged; expected UTF-8 without control characters"),
    (graph_op(0, name="x" * 61, groups=2), f"operation 0 {'x' * 57}... (linear): 2 groups; expected 1"),
    (graph_op(0, inputs=[-1]), "(linear): it reads tensor -1; expected one that is written before"),
    (graph_op(0, output=-1), "(linear): it writes tensor -1; expected one that is not written yet"),
    (lambda g: setattr(g, "output", -1), "the output is tensor -1; expected less than 2"),
    (graph_op(0, padding=(0, 0)), "(linear): 2 sides of padding; expected 4"),
    (graph_op(0, padding=(0, 0, -1, 0)), "(linear): padding -1; expected less than the window's extent, 1"),
    (graph_op(0, weight=None), "(linear): the weights are NoneType; expected an array"),
    (graph_op(0, weight=ONES.astype(float)), "weights of float64 in 2 dimensions; expected float32 or int8 in 2"),
    (graph_op(0, weight=ONES[0]), "(linear): weights of float32 in 1 dimensions; expected float32 or int8 in 2"),
    (graph_op(0, weight=ONES[:0]), "(linear): a matrix of 0 x 3; expected at least 1 x 1"),
    (graph_op(0, weight=ONES * np.nan), "(linear): a weight is infinite or not a number; expected finite numbers"),
    (graph_op(0, weight=ONES.astype(np.int8)), "(linear): the scales are NoneType; expected an array"),
    (graph_op(0, scales=np.ones(2, np.float32)), "(linear): scales for weights of floats; expected none"),
    (graph_op(0, **INTEGERS | {"scales": np.float32([1, 0])}), "(linear): the scale of row 1 is 0; expected 2^-40"),
    (graph_op(0, bias=np.zeros(3, np.float32)), "(linear): bias of 3 numbers; expected 2, one for each output"),
    (graph_op(0, bias=np.zeros(2)), "(linear): bias of float64 in 1 dimensions; expected float32 in 1"),
    (graph_op(0, bias=np.float32([0, np.inf])), "(linear): a bias is infinite or not a number; expected finite"),
    (graph_op(0, index=np.zeros(2, int)), "(linear): there is an index of channels; expected none"),
    (graph_op(0, kind="activate"), "(activate): there are matrix; expected none"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), UNWRITABLE, ids=range(len(UNWRITABLE)))
def test_what_no_file_could_hold_is_not_written(change, words):
    with pytest.raises(Refused) as refusal:
        write(changed("tiny", change), {})
    assert words in str(refusal.value)


@pytest.mark.parametrize("about", [[], {"a": np.nan}, {"a": object()}, {"a": {1, 2}}])
def test_about_is_a_table_of_json(about):
    with pytest.raises(Refused, match="about is"):
        write(tiny(), about)


def test_text_of_any_kind_may_be_said_in_about():
    about = {"名": ["\x1b[2J\x7f\u2028", 1.5, None, {"nested": True}]}
    data = write(tiny(), about)
    assert read(data)[1] == about
    assert by_engine(data) == ""


def test_values_are_stored_as_f32_or_f16():
    with pytest.raises(Refused, match='values = "f8"; expected f32 or f16'):
        write(tiny(), {}, "f8")


# ---- the two readers agree


def spoilt(data, rng):
    """A few random changes, most of them in the tables."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        end = len(data) if rng.random() < 0.3 else min(len(data), 64 + 32 * 8 + 192 * 7)
        place = int(rng.integers(16, end)) // 4 * 4
        if rng.random() < 0.5:
            value = int(rng.choice([0, 1, 2, 3, 5, 16, 32, 64, 255, 65535, 2**31, 2**32 - 1]))
            data[place : place + 4] = value.to_bytes(4, "little")
        else:
            data[place + int(rng.integers(4))] ^= 1 << int(rng.integers(8))
    return sealed(data)


@pytest.mark.parametrize("name", NETS)
def test_the_readers_agree_on_spoilt_files(name, files):
    """But for what a file says of itself: the engine does not look into it."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(150):
        data = spoilt(files[name], rng)
        ours, engine = by_python(data), by_engine(data)
        assert bool(ours) == bool(engine) or "what it says about itself" in ours, (ours, engine)


def test_a_file_with_sound_limits_is_read(reader):
    """Windows that cut, begin in the padding or step far are no error."""
    assert reader(write(near(), {})) == ""
    net = Net(1, 2, 2)
    net.pool("max_pool", 0, (1, 1), kernel=(3, 3), stride=(2, 2))  # no window fits, one sticks out
    assert reader(write(net.graph, {})) == ""


def test_a_graph_needs_something_to_do(reader, unchecked):
    assert "the file has 1 tensors; expected 2 to 8192" in reader(write(Graph([Tensor(1)], [], 0, 0), {}))
    with pytest.raises(AssertionError):
        same(Op("add", "a", [0], 1), Op("add", "b", [0], 1))
