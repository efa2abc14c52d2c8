"""The ways, and why each gains what it gains: one sentence, whose figures are filled in with what was measured.

{x1} and {x60} are how many times as fast as plain PyTorch a way is with one image and with sixty, {p1} and {p60} what
its products take of the core's measured peak of float32 multiply-adds, {idle1} and {idle60} the share of the engine's
time in steps without products, {made1} and {made60} millions of products really made for an image. {less} is how many
times fewer products a network has than the dense one, {ratio1} and {ratio60} how many times as fast it is as the dense
one in the same run time; {relu1}, {pool1}, ... are shares of PyTorch's time, channels last.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """A network in a run time."""

    network: str
    run_time: str
    why: str

    @property
    def name(self) -> str:
        return f"{self.network} in {self.run_time}"


BASE = "dense in torch"
LANES = {2: "two products of bfloat16 in a lane", 4: "four products of bytes in a lane (VNNI)"}
WIDE = "{what}: {{p1:.0%}} and {{p60:.0%}} of the float32 peak, where {most} % would be all"
PAIRS, FOURS = (WIDE.format(what=what, most=100 * n) for n, what in LANES.items())
DENSE = {
    "torch": "the measure: {conv1:.0%} and {conv60:.0%} of the time are convolutions, before and after which oneDNN "
    "copies all images from planes into its own order and back; {p1:.0%} and {p60:.0%} of the peak",
    "torch, channels last": "images lie as oneDNN computes them and are copied no more, weights still are at every "
    "call; {p1:.0%} and {p60:.0%} of the peak",
    "torch, TorchScript": "frozen and optimised for inference, weights are laid out once and images stay in oneDNN's "
    "blocks from layer to layer; ReLU stays a pass of its own; {p1:.0%} and {p60:.0%} of the peak",
    "torch, ReLU fused": "Conv-6 has no normalisation to fold, and oneDNN adds biases anyway: left to fuse is ReLU, "
    "{relu1:.1%} and {relu60:.1%} of the time; what else is gained are weights laid out once",
    "torch.compile": "the same operators with ReLU inside, and the pools compiled ({pool1:.1%} and {pool60:.1%} of the "
    "time): {ratio1:.2f} and {ratio60:.2f} times as fast as those operators called by hand",
    "torch, bfloat16": PAIRS,
    "torch.compile, bfloat16": PAIRS,
    "ONNX Runtime": "channels in blocks of a vector from end to end, bias and ReLU inside: {p1:.0%} and {p60:.0%} of "
    "the peak, so at most {room60:.1f} times more is to be had without fewer or smaller products",
    "OpenVINO": "oneDNN's convolutions compiled for these sizes, weights laid out once, ReLU inside: {p1:.0%} and "
    "{p60:.0%} of the peak",
    "OpenVINO, bfloat16": PAIRS,
    "engine": "no zeros to leave out: direct convolutions at {p1:.0%} and {p60:.0%} of the peak; {idle1:.0%} and "
    "{idle60:.0%} of the time has no products",
    "ONNX Runtime, int8": FOURS,
    "OpenVINO, int8": FOURS,
    "engine, int8": FOURS,
}
CONTROL = (
    "the control, no way at all: the dense network trained on for as long as the pruned ones, {ratio1:.2f} and "
    "{ratio60:.2f} times as fast as before"
)
THIN = (
    "{less:.1f} times fewer products than dense, in thinner layers: {p1:.0%} and {p60:.0%} of the peak where dense has "
    "{dense1:.0%} and {dense60:.0%}, so {ratio1:.1f} and {ratio60:.1f} times as fast as dense there"
)
BYTES = (
    "{less:.1f} times fewer products than dense, four in a lane: {ratio1:.1f} and {ratio60:.1f} times as fast as dense "
    "in bytes there"
)
FACTORS = (
    "three thin layers for one: {less:.1f} times fewer products, but three times as many passes over the images; "
    "{p1:.0%} and {p60:.0%} of the peak where dense has {dense1:.0%} and {dense60:.0%}"
)
STUDENT = (
    "another network that learned from this one: {less:.1f} times fewer products in layers of 16 to 64 channels, its "
    "normalisations folded away; {p1:.0%} and {p60:.0%} of the peak"
)
NOTHING = "a dense run time multiplies by zeros: {ratio1:.2f} and {ratio60:.2f} times as fast as without them"
ZEROS = (
    "zeros are neither stored nor multiplied: {made1:.1f} of {adds:.0f} million products, at {p1:.0%} and {p60:.0%} of "
    "the peak; {idle1:.0%} and {idle60:.0%} of the time has no products (halos, pools, layouts)"
)
ZEROS_INT8 = (
    "zeros lie anywhere but bytes come in fours, and a four counts when one of it is left: {made1:.1f} of {adds:.0f} "
    "million products are made; {p1:.0%} and {p60:.0%} of the float32 peak"
)
BLOCKS = (
    "fours are zero or whole: {made1:.1f} of {adds:.0f} million products, four in a lane; {p1:.0%} and {p60:.0%} of "
    "the float32 peak, {idle1:.0%} and {idle60:.0%} of the time without products"
)
BOTH = (
    "{less:.1f} times fewer products by channels, then a fifth of the weights of what is left: {made1:.1f} million "
    "products, at {p1:.0%} and {p60:.0%} of the peak; {idle1:.0%} and {idle60:.0%} of the time has none"
)
FLOATS = ("ONNX Runtime", "OpenVINO", "engine")
INT8 = ("ONNX Runtime, int8", "OpenVINO, int8", "engine, int8")
WAYS = [
    *(Way("dense", run_time, why) for run_time, why in DENSE.items()),
    Way("dense_longer", "ONNX Runtime", CONTROL),
    *(Way("channels", run_time, THIN) for run_time in ("torch, channels last", *FLOATS)),
    *(Way("channels", run_time, BYTES) for run_time in INT8),
    *(Way("low_rank", run_time, FACTORS) for run_time in ("torch, channels last", *FLOATS)),
    *(Way("student", run_time, STUDENT) for run_time in FLOATS),
    *(Way("student", run_time, BYTES) for run_time in INT8),
    Way("sparse", "ONNX Runtime", NOTHING),
    Way("sparse", "ONNX Runtime, int8", NOTHING),
    Way("sparse", "DeepSparse", "zeros are left out there too; the product was withdrawn in 2025"),
    Way("sparse", "engine", ZEROS),
    Way("sparse", "engine, int8", ZEROS_INT8),
    Way("blocks", "engine", ZEROS),
    Way("blocks", "engine, int8", BLOCKS),
    Way("channels_sparse", "engine", BOTH),
    Way("channels_sparse", "engine, int8", ZEROS_INT8),
]  # fmt: skip
QUICK = ("torch", "torch, channels last", "engine", "engine, int8")
