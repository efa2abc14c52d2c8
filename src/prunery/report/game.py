"""What others have published of the score game: entries with at least 90 %, and low-bit networks in its formula.

Scores are those of the current edition (2.8e8, multiply-adds), corrected where the shares of an entry's pruned weights
summed to more than one. No entry is ours.
"""

from dataclasses import dataclass

LEAST = 0.8
"""of the accuracies that the figure shows"""


@dataclass(frozen=True)
class Entry:
    """A published network."""

    name: str
    score: float
    accuracy: float


ENTRIES = (
    Entry("ResNet-20 FP8 (2026)", 0.0401, 0.9041),
    Entry("ResNet-20 FP8, unpruned channels (2026)", 0.0422, 0.9189),
    Entry("ResNet-20 fp16, corrected (2026)", 0.049, 0.9022),
    Entry("mini DenseNet (2024)", 0.050, 0.905),
    Entry("ResNet-18/4 (2021)", 0.054, 0.9006),
    Entry("depthwise ResNet-18, corrected (2026)", 0.060, 0.9056),
    Entry("DenseNet, growth 8 (2026)", 0.063, 0.9067),
    Entry("MobileNetV2-0.5 (2026)", 0.064, 0.9001),
    Entry("ResNet-20 fp16, search (2026)", 0.0677, 0.9133),
    Entry("the same, another of its rows (2026)", 0.0695, 0.9031),
    Entry("MobileNetV2-0.5, wider (2026)", 0.0722, 0.9028),
    Entry("grouped ResNet-18 (2025)", 0.104, 0.9064),
    Entry("depthwise ResNet-18 (2025)", 0.1109, 0.9009),
    Entry("several networks together (2025)", 0.597, 0.9347),
    Entry("ResNet-18 fp16 (2026)", 1.16, 0.9145),
    Entry("ResNet-20 APoT 4/4", 0.0241, 0.9245),
    Entry("ResNet-20 APoT 3/3", 0.0181, 0.9249),
    Entry("ResNet-20 APoT 2/2", 0.0121, 0.9096),
    Entry("ResNet-20 AdaBin 1/1", 0.0060, 0.881),
    Entry("ResNet-20 ternary, 8-bit inputs", 0.039, 0.927),
    Entry("CondenseNet-50 fp16", 0.0707, 0.9378),
    Entry("Tiniest fp16", 0.087, 0.945),
    Entry("VGG-small AdaBin 1/1", 0.094, 0.923),
    Entry("ResNet-18 IR-Net 1/1", 0.124, 0.915),
)
