"""Recognition: which network of the family has these names and shapes, with every one of them checked."""
import re
from dataclasses import replace

from .failure import Misuse, Refused, listed, shown
from .network import (BASIC, BOTTLENECK, HEAD_NONE, HEAD_SIGMOID, HEAD_SOFTMAX, SHORTCUT_CONV, SHORTCUT_PADDED,
                      SHORTCUT_POOL, STEM_3X3, STEM_7X7, STEM_DEEP, STEM_TIERED, STRIDE_1X1, STRIDE_3X3, Network,
                      convolutions, expected_tensors)
from .tensors import FLOATS, Derived, shape_text

LIMITS = (("base_width", 4096), ("groups", 4096), ("width_per_group", 4096), ("in_channels", 16), ("classes", 1 << 20),
          ("attention_width", 4096))
MAX_BLOCKS = 1024
USUAL_ATTENTION_WIDTH = 8  # timm's


def recognise(named, facts):
    """The Network whose tensors these are; biases of convolutions go into the means behind them."""
    tensors = named.tensors
    refuse_relatives(tensors)
    stages = sorted({int(number) for number in matches(tensors, r"layer([1-4])\.[0-9]+\..*")})
    if not stages:
        raise Refused(f"is no ResNet: it has no layer1; it begins with {listed(sorted(tensors))}")
    network = Network(
        block=BOTTLENECK if matches(tensors, r"layer[1-4]\.[0-9]+\.((?:conv|bn)3)\..*") else BASIC,
        blocks=tuple(count_blocks(tensors, stage) for stage in range(1, stages[-1] + 1)),
        **stem(tensors), **head(tensors, facts), bn_epsilon=facts.epsilon)
    network = replace(network, shortcut=shortcut(tensors, network, named.pooled_shortcut or facts.pooled_shortcut))
    if network.block == BOTTLENECK:
        network = with_inner_width(network, tensors)
    if matches(tensors, r"(layer[0-9]+\.[0-9]+\.se\.).*"):
        network = replace(network, attention=1, attention_width=attention_width(tensors))
    network = with_strides(network, facts)
    check_ranges(network)
    fold_biases(network, tensors)
    check_tensors(tensors, network)
    check_geometry(network, facts.geometry)
    return network


def matches(tensors, pattern):
    """What the group of a pattern is in the names that match it entirely."""
    return [found[1] for found in (re.fullmatch(pattern, name, re.ASCII) for name in tensors) if found]


def shape_of(tensors, name):
    return tensors[name].shape if name in tensors else ()


def refuse_relatives(tensors):
    """Name the networks whose tensors have the names of a member of the family, and that are none."""
    if "bn1.weight" in tensors and not any(name.endswith(".running_mean") for name in tensors):
        raise Refused("has group normalisation, or batch normalisation without running statistics (no tensor is called "
                      "running_mean), which is not supported")
    first = shape_of(tensors, "conv1.weight") or shape_of(tensors, "conv1.0.weight")
    if first[2:] == (4, 4) or len(first) == 4 and first[1] >= 48 and first[2:] == (3, 3):
        raise Refused(f"has a space-to-depth stem (its first convolution is {shape_text(first)}), which is not "
                      "supported")
    if "layer1.0.bn1.weight" in tensors and "conv1.weight" in tensors and not matches(tensors, r"(bn1)\..*"):
        raise Refused("has pre-activation blocks (nothing is called bn1 behind conv1), which are not supported")


def known_shape(tensors, name, dimensions):
    """The shape of a tensor that says what the network is."""
    if name not in tensors:
        raise Refused(f"lacks {name}")
    shape = tensors[name].shape
    if len(shape) != dimensions or 0 in shape:
        raise Refused(f"{name} has the shape {shape_text(shape)}, expected {dimensions} dimensions")
    return shape


def stem(tensors):
    """Which stem, how wide, and how many channels go in."""
    if "conv1.0.weight" not in tensors:
        width, channels, *kernel = known_shape(tensors, "conv1.weight", 4)
        return {"stem": STEM_3X3 if kernel == [3, 3] else STEM_7X7, "base_width": width, "in_channels": channels}
    shapes = [known_shape(tensors, f"conv1.{index}.weight", 4) for index in (0, 3, 6)]
    first, second, width = (shape[0] for shape in shapes)
    kind = {(width // 2, width // 2): STEM_DEEP, (3 * width // 8, width // 2): STEM_TIERED}.get((first, second))
    if kind is None:
        raise Refused(f"has a deep stem of {first}, {second} and {width} channels, which is not supported: "
                      f"{width // 2} (or {3 * width // 8}), {width // 2} and {width} are")
    return {"stem": kind, "base_width": width, "in_channels": shapes[0][1]}


def head(tensors, facts):
    if "fc.weight" not in tensors and "fc.bias" not in tensors:
        return {"head": HEAD_NONE, "classes": 0}
    return {"head": HEAD_SIGMOID if facts.head == "sigmoid" else HEAD_SOFTMAX,
            "classes": known_shape(tensors, "fc.weight", 2)[0]}


def shortcut(tensors, network, pooled):
    if pooled:
        return SHORTCUT_POOL
    padded = (network.stem == STEM_3X3 and network.block == BASIC and len(network.blocks) > 1 and
              not matches(tensors, r"(layer[0-9]+\.[0-9]+\.downsample\.).*"))
    return SHORTCUT_PADDED if padded else SHORTCUT_CONV


def count_blocks(tensors, stage):
    """One more than the highest block of a stage; where blocks are missing below it, check_tensors names them."""
    highest = max((int(number) for number in matches(tensors, rf"layer{stage}\.([0-9]{{1,5}})\..*")), default=0)
    if highest >= MAX_BLOCKS:
        raise Refused(f"has a block layer{stage}.{highest}, more than the {MAX_BLOCKS} a stage can have")
    return highest + 1


def with_inner_width(network, tensors):
    """The network with its groups, and with the smallest width_per_group that gives the last stage's inner width, and
    so all of them: they are that one halved, rounded down each time, whatever the width_per_group."""
    stage = len(network.blocks)
    inner, per_group = known_shape(tensors, f"layer{stage}.0.conv2.weight", 4)[:2]
    groups = inner // per_group if inner % per_group == 0 else 1
    planes = network.base_width << (stage - 1)
    network = replace(network, groups=groups, width_per_group=-(-(inner // groups) * 64 // planes))
    for stage in range(len(network.blocks) * (groups > 1)):
        channels = network.inner_width(stage) // groups
        if channels not in (4, 8) and (channels % 16 or not channels):
            raise Refused(f"has 3x3 convolutions in groups of {channels} channels (layer{stage + 1}), which are not "
                          "supported: 4, 8 and multiples of 16 are")
    return network


def attention_width(tensors):
    """The least number of channels that squeeze-and-excitation squeezes to, a sixteenth being usual."""
    sizes = sorted({known_shape(tensors, name, 2) for name in tensors
                    if re.fullmatch(r"layer[0-9]+\.[0-9]+\.se\.fc1\.weight", name, re.ASCII)})
    for least in (USUAL_ATTENTION_WIDTH, *(squeezed for squeezed, _ in sizes)):
        if all(squeezed == max(least, channels // 16) for squeezed, channels in sizes):
            return least
    if all(squeezed == channels // 16 for squeezed, channels in sizes):
        return 1
    raise Refused("has squeeze-and-excitation that squeezes " +
                  listed(f"{channels} channels to {squeezed}" for squeezed, channels in sizes) +
                  ", which is not supported: a sixteenth, or a least number of them, is")


def with_strides(network, facts):
    """The network with what no shape shows."""
    stride_at = STRIDE_1X1 if facts.stride_at == "1x1" else STRIDE_3X3
    if network.block == BASIC:
        stride_at = STRIDE_3X3
    output_stride = facts.output_stride or 0
    if output_stride and (network.block == BASIC or network.shortcut != SHORTCUT_CONV or network.stem == STEM_3X3 or
                          len(network.blocks) < (3 if output_stride == 8 else 4)):
        raise Misuse(f"{network} cannot have an output stride of {output_stride}: bottlenecks in at least "
                     f"{3 if output_stride == 8 else 4} stages with shortcuts of one convolution can")
    return replace(network, stride_at=stride_at, output_stride=output_stride)


def check_ranges(network):
    """The limits of the model file."""
    for name, limit in LIMITS:
        number = getattr(network, name)
        if number > limit:
            raise Refused(f"has {number} {name.replace('_', ' ')}, more than the {limit} that a model file can have")


def fold_biases(network, tensors):
    """Batch normalisation takes a mean away from what a convolution gives, so a bias of that is a lower mean."""
    for layer in convolutions(network):
        mean, bias = tensors.get(f"{layer.norm}.running_mean"), tensors.get(f"{layer.name}.bias")
        if mean and bias and mean.shape == bias.shape and {mean.dtype, bias.dtype} <= set(FLOATS):
            tensors[f"{layer.norm}.running_mean"] = lowered(mean, tensors.pop(f"{layer.name}.bias"))


def lowered(mean, bias):
    return Derived(mean.shape, lambda: mean.values() - bias.values())


def check_tensors(tensors, network):
    """Refuse every tensor that is missing, is not of the network, or has another shape or type than it asks for."""
    expected = dict(expected_tensors(network))
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    wrong = [f"{name} ({tensors[name].dtype} {shape_text(tensors[name].shape)}, expected {shape_text(shape)})"
             for name, shape in expected.items()
             if name in tensors and (tensors[name].shape != shape or tensors[name].dtype not in FLOATS)]
    faults = [f"{len(names)} {what}: {listed(names)}" for what, names in (
        ("missing", missing), ("unexpected", unexpected), ("of a wrong shape or type", wrong)) if names]
    if faults:
        raise Refused(f"is no complete {network}: tensors {'; '.join(faults)}")


def check_geometry(network, geometry):
    """Refuse a graph whose convolutions stride, dilate or group otherwise than the network's."""
    for layer in convolutions(network):
        found, expected = geometry.get(layer.name), (layer.stride, layer.dilation, layer.groups)
        if found is not None and found != expected:
            raise Refused(f"{layer.name} has stride {found[0]}, dilation {found[1]} and {shown(found[2], 20)} groups, "
                          f"where {network} has {expected[0]}, {expected[1]} and {expected[2]}")


def take_rgb(tensors):
    """The tensors of a network that takes BGR, for one that takes RGB."""
    name = "conv1.weight" if "conv1.weight" in tensors else "conv1.0.weight"
    weight = tensors[name]
    return {**tensors, name: Derived(weight.shape, lambda: weight.values()[:, ::-1])}
