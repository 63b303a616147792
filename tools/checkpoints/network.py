"""The family: what a model file's header says about a network, and the tensors that follow from it."""
import math
from dataclasses import dataclass, replace

from .facts import EPSILON

BASIC, BOTTLENECK = 1, 2
STEM_7X7, STEM_DEEP, STEM_TIERED, STEM_3X3 = range(4)
SHORTCUT_CONV, SHORTCUT_POOL, SHORTCUT_PADDED = range(3)
HEAD_SOFTMAX, HEAD_SIGMOID, HEAD_NONE = range(3)
STRIDE_3X3, STRIDE_1X1 = range(2)
PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Network:
    """The header's fields, by the names and with the values of models/FORMAT.md."""
    block: int
    blocks: tuple  # in each stage
    base_width: int = 64
    groups: int = 1
    width_per_group: int = 64
    stem: int = STEM_7X7
    shortcut: int = SHORTCUT_CONV
    attention: int = 0  # 1: squeeze-and-excitation
    attention_width: int = 0
    stride_at: int = STRIDE_3X3
    output_stride: int = 0
    head: int = HEAD_SOFTMAX
    in_channels: int = 3
    classes: int = 1000  # 0 without a head
    bn_epsilon: float = EPSILON

    def structure(self):
        return (self.block, self.blocks, self.base_width, self.groups, self.width_per_group, self.stem, self.shortcut,
                self.attention)

    @property
    def architecture(self):
        return next((name for name, known in PRESETS.items() if known.structure() == self.structure()), "resnet")

    @property
    def channels(self):
        """Of the last stage's output."""
        return (self.base_width << (len(self.blocks) - 1)) * (1 if self.block == BASIC else 4)

    def inner_width(self, stage):
        """Channels of a bottleneck's 3x3."""
        return (self.base_width << stage) * self.width_per_group // 64 * self.groups

    def __str__(self):
        kind = "basic" if self.block == BASIC else "bottleneck"
        parts = [f"{kind} blocks {'-'.join(map(str, self.blocks))}", f"width {self.base_width}"]
        if self.groups > 1 or self.width_per_group != 64:
            parts.append(f"{self.groups} groups of width {self.width_per_group}" if self.groups > 1 else
                         f"width per group {self.width_per_group}")
        parts += [("", "deep stem", "tiered stem", "3x3 stem without a pool")[self.stem],
                  ("", "average-pool shortcut", "zero-padded shortcut")[self.shortcut],
                  f"squeeze-and-excitation, {self.attention_width} at least" * self.attention,
                  "stride in the first 1x1" * self.stride_at,
                  f"output stride {self.output_stride}" * bool(self.output_stride),
                  ("", "sigmoid head", "no head")[self.head]]
        return f"{self.architecture} ({', '.join(filter(None, parts))})"


@dataclass(frozen=True)
class Layer:
    """A convolution and its batch normalisation."""
    name: str
    norm: str
    shape: tuple  # out, in / groups, kernel, kernel
    stride: int = 1
    dilation: int = 1
    groups: int = 1


def stem_layers(network):
    width, inputs = network.base_width, network.in_channels
    if network.stem in (STEM_7X7, STEM_3X3):
        side, stride = (7, 2) if network.stem == STEM_7X7 else (3, 1)
        yield Layer("conv1", "bn1", (width, inputs, side, side), stride)
        return
    first = 3 * width // 8 if network.stem == STEM_TIERED else width // 2
    yield Layer("conv1.0", "conv1.1", (first, inputs, 3, 3), 2)
    yield Layer("conv1.3", "conv1.4", (width // 2, first, 3, 3))
    yield Layer("conv1.6", "bn1", (width, width // 2, 3, 3))


def block_layers(network, stage, inputs, step):
    """The branch of a block; `step` is its stride and dilation."""
    planes, (stride, dilation) = network.base_width << stage, step
    if network.block == BASIC:
        yield Layer("conv1", "bn1", (planes, inputs, 3, 3), stride)
        yield Layer("conv2", "bn2", (planes, planes, 3, 3))
        return
    inner, at_1x1 = network.inner_width(stage), network.stride_at == STRIDE_1X1
    yield Layer("conv1", "bn1", (inner, inputs, 1, 1), stride if at_1x1 else 1)
    yield Layer("conv2", "bn2", (inner, inner // network.groups, 3, 3), 1 if at_1x1 else stride, dilation,
                network.groups)
    yield Layer("conv3", "bn3", (4 * planes, inner, 1, 1))


def blocks(network):
    """(name, layers of the branch, layer of the shortcut or None) of each block."""
    channels, dilation = network.base_width, 1
    for stage, count in enumerate(network.blocks):
        stride, first_dilation = (1 if stage == 0 else 2), dilation
        if stage >= {8: 2, 16: 3}.get(network.output_stride, 4):
            stride, dilation = 1, 2 * dilation
        for block in range(count):
            step = (stride, first_dilation) if block == 0 else (1, dilation)
            branch = list(block_layers(network, stage, channels, step))
            outputs, shortcut = branch[-1].shape[0], None
            if (step[0] != 1 or channels != outputs) and network.shortcut != SHORTCUT_PADDED:
                shortcut = Layer("downsample.0", "downsample.1", (outputs, channels, 1, 1),
                                 1 if network.shortcut == SHORTCUT_POOL else step[0])
            yield f"layer{stage + 1}.{block}", branch, shortcut
            channels = outputs


def convolutions(network):
    """The Layers in the order of the model file, under their whole names."""
    yield from stem_layers(network)
    for at, branch, shortcut in blocks(network):
        for layer in [shortcut] * bool(shortcut) + branch:
            yield replace(layer, name=f"{at}.{layer.name}", norm=f"{at}.{layer.norm}")


def layer_tensors(layer, prefix=""):
    yield f"{prefix}{layer.name}.weight", layer.shape
    for part in PARTS:
        yield f"{prefix}{layer.norm}.{part}", layer.shape[:1]


def attention_tensors(network, channels, at):
    squeezed = max(network.attention_width, channels // 16)
    for name, shape in (("fc1", (squeezed, channels)), ("fc2", (channels, squeezed))):
        yield f"{at}.se.{name}.weight", shape
        yield f"{at}.se.{name}.bias", shape[:1]


def expected_tensors(network):
    """(name, shape) of every tensor in the order of the model file."""
    for layer in stem_layers(network):
        yield from layer_tensors(layer)
    for at, branch, shortcut in blocks(network):
        for layer in [shortcut] * bool(shortcut) + branch:
            yield from layer_tensors(layer, f"{at}.")
        if network.attention:
            yield from attention_tensors(network, branch[-1].shape[0], at)
    if network.head != HEAD_NONE:
        yield "fc.weight", (network.classes, network.channels)
        yield "fc.bias", (network.classes,)


def parameter_count(network):
    return sum(math.prod(shape) for name, shape in expected_tensors(network) if ".running_" not in name)


def presets():
    depths = {"18": (BASIC, (2, 2, 2, 2)), "34": (BASIC, (3, 4, 6, 3)), "50": (BOTTLENECK, (3, 4, 6, 3)),
              "101": (BOTTLENECK, (3, 4, 23, 3)), "152": (BOTTLENECK, (3, 8, 36, 3))}
    yield from ((f"resnet{depth}", Network(*known)) for depth, known in depths.items())
    for name, depth, groups, width in (("resnext50_32x4d", "50", 32, 4), ("resnext101_32x8d", "101", 32, 8),
                                       ("resnext101_64x4d", "101", 64, 4), ("wide_resnet50_2", "50", 1, 128),
                                       ("wide_resnet101_2", "101", 1, 128)):
        yield name, Network(*depths[depth], groups=groups, width_per_group=width)
    for depth, known in depths.items():
        yield f"resnet{depth}d", Network(*known, stem=STEM_DEEP, shortcut=SHORTCUT_POOL)
    for depth, known in depths.items():
        yield f"seresnet{depth}", Network(*known, attention=1, attention_width=8)
    for depth in (20, 32, 44, 56, 110, 1202):
        yield f"resnet{depth}", Network(BASIC, ((depth - 2) // 6,) * 3, base_width=16, stem=STEM_3X3,
                                        shortcut=SHORTCUT_PADDED)


PRESETS = dict(presets())
