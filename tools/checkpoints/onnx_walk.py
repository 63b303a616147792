"""The walk along an ONNX graph, from the input to the classes, that finds the weights of a ResNet by what is computed.

Names mean nothing: exporters fold batch normalisation, rename weights and share those that are equal. What the walk
meets is a stem, blocks of two paths that end in an addition, an average and a classifier; everything else is refused
by the name of its node. The tensors get the names of the model file.
"""
import math
from dataclasses import dataclass

import numpy as np

from .facts import EPSILON, Facts
from .failure import Refused, listed, shown
from .onnx_file import whole_numbers
from .tensors import FLOATS, Derived, Tensor, constant, shape_text

# With it, and one minus it as the variance (both exact in float32), batch normalisation changes nothing at all.
FOLDED_EPSILON = 2.0 ** -17
PARTS = ("weight", "bias", "running_mean", "running_var")
SHAPING = ("Shape", "Gather", "Unsqueeze", "Concat", "Reshape", "Flatten", "Squeeze")  # between average and classifier


@dataclass
class Convolution:
    node: object
    weight: Tensor
    bias: object  # a Tensor, or None
    norm: object  # the four Tensors of a batch normalisation, or None
    epsilon: float  # of it
    stride: int
    dilation: int
    groups: int
    relu: bool = False


@dataclass
class Path:
    """One of the two ways from a block's input to its addition."""
    convolutions: list
    end: object  # the Add
    pooled: bool = False
    attention: tuple = ()  # the two convolutions of squeeze-and-excitation


class Walk:
    """Goes along the graph; `at` is the value reached, `used` holds the ids of the nodes passed."""

    def __init__(self, graph):
        self.graph, self.at, self.used = graph, graph.input, set()

    def following(self, value):
        return self.graph.consumers.get(value, [])

    def next(self):
        """The one node that takes the value reached, or None."""
        nodes = self.following(self.at)
        return nodes[0] if len(nodes) == 1 else None

    def take(self, node):
        """Pass a node with one output of interest."""
        if id(node) in self.used or not node.outputs:
            raise Refused(f"has a node {node} that does not belong where it is in a ResNet")
        self.used.add(id(node))
        self.at = node.outputs[0]
        return node

    def take_if(self, *ops):
        node = self.next()
        return self.take(node) if node and node.op in ops else None

    def convolution(self, node):
        """Pass a Conv that takes the value reached, and what is left of its batch normalisation and ReLU."""
        if node.inputs[0] != self.at:
            raise Refused(f"{node} takes {shown(self.at, 80)} as something other than its input")
        self.take(node)
        weight, bias = self.weights(node, 1, 3)
        stride, dilation, groups = conv_geometry(node, weight)
        norm, epsilon = None, None
        if batch_norm := self.take_if("BatchNormalization"):
            norm = self.weights(batch_norm, 4, 5)[:4]
            epsilon = batch_norm.attributes.get("epsilon", EPSILON)
            if not isinstance(epsilon, float) or not 0 < epsilon <= 1:
                raise Refused(f"{batch_norm} has the epsilon {shown(epsilon, 40)}")
        return Convolution(node, weight, bias, norm, epsilon, stride, dilation, groups, bool(self.take_if("Relu")))

    def weights(self, node, least, most):
        """The inputs behind the first, which must be weights; at least and at most so many, and then None."""
        names = node.inputs[1:]
        found = [self.graph.weights.get(name) for name in names]
        if not least <= len(names) < most or not all(type(tensor) is Tensor for tensor in found):
            raise Refused(f"{node} does not have its weights in the file")
        return found + [None] * (most - 1 - len(found))

    # ---- Blocks ----

    def path(self, node, start):
        """The Path that begins with a node."""
        self.at = start
        path = Path([], None)
        while node.op != "Add":
            if node.op == "AveragePool" and not path.convolutions and not path.pooled:
                check_shortcut_pool(self.take(node))
                path.pooled = True
            elif node.op == "Conv":
                path.convolutions.append(self.convolution(node))
            elif node.op in ("Slice", "Pad"):
                raise Refused(f"has {node} in a block: a zero-padded shortcut is not read from a graph: convert the "
                              ".pth that it was exported from")
            else:
                raise Refused(f"has {node} in a block, which no supported ResNet has")
            if len(self.following(self.at)) == 2 and path.convolutions and not path.attention:
                path.attention = self.squeeze_and_excite()
            node = self.next()
            if node is None:
                raise Refused(f"forks within a block, behind {shown(self.at, 80)}, as no supported ResNet does")
        path.end = node
        return path

    def squeeze_and_excite(self):
        """From a block's last convolution, over its means and two 1x1 convolutions, to the product."""
        value = self.at
        product = next((node for node in self.following(value) if node.op == "Mul"), None)
        mean = next((node for node in self.following(value) if node.op in ("GlobalAveragePool", "ReduceMean")), None)
        if not product or not mean:
            raise Refused(f"forks within a block, behind {shown(value, 80)}, as no supported ResNet does")
        self.check_mean(self.take(mean))
        layers = []
        for last in (False, True):
            node = self.next()
            if node is None or node.op != "Conv":
                raise Refused(f"has {node or 'a fork'} in squeeze-and-excitation, expected a Conv")
            layers.append(self.convolution(node))
            if layers[-1].norm or layers[-1].bias is None or layers[-1].relu == last:
                raise Refused(f"has {node} in squeeze-and-excitation, which is not built like timm's")
        if not self.take_if("Sigmoid") or self.next() is not product or set(product.inputs) != {value, self.at}:
            raise Refused(f"has {product}, which does not end squeeze-and-excitation as timm's does")
        self.take(product)
        return tuple(layers)

    def check_mean(self, node):
        """Refuse a mean over anything but height and width."""
        if node.op == "GlobalAveragePool":
            return
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) == 2:
            axes = whole_numbers(self.graph.weights.get(node.inputs[1]))
        if type(axes) is not list or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise Refused(f"{node} is not the mean over height and width")

    def block(self):
        """Pass a block; returns its branch, and its shortcut or None."""
        start, ways = self.at, self.following(self.at)
        paths = [Path([], node) if node.op == "Add" else self.path(node, start) for node in ways]
        branch, shortcut = sorted(paths, key=lambda path: -len(path.convolutions))
        if branch.end is not shortcut.end or len(branch.end.inputs) != 2:
            raise Refused(f"has paths behind {shown(start, 80)} that do not meet in an addition")
        if len(branch.convolutions) not in (2, 3) or len(shortcut.convolutions) > 1 or branch.pooled or (
                shortcut.attention or shortcut.pooled and not shortcut.convolutions):
            raise Refused(f"has a block behind {shown(start, 80)} that is not one of a ResNet's")
        last = [branch.convolutions[-1]] + shortcut.convolutions
        if any(convolution.relu for convolution in last) or not all(c.relu for c in branch.convolutions[:-1]):
            raise Refused(f"has ReLUs in the block behind {shown(start, 80)} where no ResNet has them")
        self.take(branch.end)
        if not self.take_if("Relu"):
            raise Refused(f"has no Relu behind {branch.end}: a pre-activation network is not supported")
        return branch, shortcut if shortcut.convolutions else None

    # ---- Ends ----

    def stem(self):
        """The convolutions before the blocks, and whether a pool follows."""
        convolutions = []
        while (node := self.next()) and node.op == "Conv":
            convolutions.append(self.convolution(node))
            if not convolutions[-1].relu:
                raise Refused(f"has no Relu behind {node}: a pre-activation network is not supported")
        if not convolutions:
            node = next(iter(self.following(self.at)), "nothing")
            raise Refused(f"has a graph whose input goes into {node}, expected one Conv: export the network alone, "
                          "without preprocessing")
        pool = self.take_if("MaxPool")
        if pool:
            check_max_pool(pool)
        return convolutions, bool(pool)

    def head(self):
        """Weight and bias of the classifier, or None; and "softmax" or "sigmoid" where the graph ends with one."""
        if not self.following(self.at):
            return None, None
        mean = self.take_if("GlobalAveragePool", "ReduceMean")
        if not mean:
            raise Refused(f"has {listed(map(str, self.following(self.at)))} behind its blocks, expected the average "
                          "over height and width")
        self.check_mean(mean)
        while (shaping := [node for node in self.following(self.at) if node.op in SHAPING]) and (
                len(shaping) == len(self.following(self.at))):
            self.take(next((node for node in shaping if node.op in SHAPING[4:]), shaping[0]))
        if not self.following(self.at):
            return None, None
        classifier = self.classifier()
        return classifier, {"Sigmoid": "sigmoid", "Softmax": "softmax"}.get(getattr(
            self.take_if("Sigmoid", "Softmax"), "op", None))

    def classifier(self):
        node = self.next()
        if node is None or node.op not in ("Gemm", "MatMul"):
            raise Refused(f"has {node or 'a fork'} behind the average, expected a Gemm or a MatMul")
        self.take(node)
        if node.op == "MatMul":
            weight, bias = self.weights(node, 1, 2)[0], self.added_weight()
            return weight.transposed(1, 0) if len(weight.shape) == 2 else weight, bias
        weight, bias = self.weights(node, 2, 3)
        known = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": node.attributes.get("transB", 0)}
        if {**known, **node.attributes} != known:
            raise Refused(f"{node} has factors or a transposition, which are not read")
        return weight if known["transB"] or len(weight.shape) != 2 else weight.transposed(1, 0), bias

    def added_weight(self):
        before, node = self.at, self.take_if("Add")
        others = [name for name in node.inputs if name != before] if node else []
        bias = self.graph.weights.get(others[0]) if len(others) == 1 else None
        if type(bias) is not Tensor:
            raise Refused("has a classifier without a bias, which is not read")
        return bias

    def check_end(self):
        """Refuse a graph that computes more, or gives something else."""
        more = [node for node in self.graph.nodes if id(node) not in self.used and node.op not in SHAPING]
        if more:
            raise Refused(f"has {len(more)} nodes that are not part of a ResNet: {listed(map(str, more))}")
        if self.graph.outputs != [self.at]:
            raise Refused(f"gives {listed(self.graph.outputs)}, expected one output, {shown(self.at, 80)}")


# ---- Single nodes ----

def spatial(node, name, default):
    """An attribute with a number for each side, which must be equal."""
    numbers = node.attributes.get(name, [default])
    if type(numbers) is not list or len(set(numbers)) != 1:
        raise Refused(f"{node} has {name} that differ between the sides, which is not read")
    return numbers[0]


def conv_geometry(node, weight):
    """Stride, dilation and groups of a Conv whose padding is a ResNet's."""
    if len(weight.shape) != 4 or weight.shape[2] != weight.shape[3] or weight.dtype not in FLOATS or 0 in weight.shape:
        raise Refused(f"{node} has weights of {weight.dtype} {shape_text(weight.shape)}, expected a square kernel")
    stride, dilation, pad = (spatial(node, *known) for known in (("strides", 1), ("dilations", 1), ("pads", 0)))
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET" or pad != weight.shape[2] // 2 * dilation:
        how = shown(node.attributes.get("auto_pad", pad), 40)
        raise Refused(f"{node} pads by {how}, which no supported ResNet does")
    return stride, dilation, node.attributes.get("group", 1)


def check_max_pool(node):
    if ((spatial(node, "kernel_shape", 0), spatial(node, "strides", 1), spatial(node, "pads", 0)) != (3, 2, 1) or
            spatial(node, "dilations", 1) != 1 or node.attributes.get("ceil_mode") or
            node.attributes.get("auto_pad", "NOTSET") != "NOTSET"):
        raise Refused(f"{node} is not the pool of a ResNet: 3x3, stride 2, padding 1")


def check_shortcut_pool(node):
    if ((spatial(node, "kernel_shape", 0), spatial(node, "strides", 1), spatial(node, "pads", 0)) != (2, 2, 0) or
            not node.attributes.get("ceil_mode") or node.attributes.get("count_include_pad")):
        raise Refused(f"{node} is not the pool of timm's shortcut: 2x2, stride 2, rounded up")


# ---- The network ----

def read_network(graph):
    """(name -> tensor, Facts) of the ResNet that a graph computes."""
    walk = Walk(graph)
    stem, pooled = walk.stem()
    blocks = []
    while len(walk.following(walk.at)) == 2:
        blocks.append(walk.block())
    classifier, head = walk.head()
    walk.check_end()
    if not blocks:
        raise Refused("has a graph without the blocks of a ResNet")
    if pooled != (len(stem) == 3 or stem[0].weight.shape[2] == 7):
        raise Refused(f"has a stem of {len(stem)} convolutions with{'out' * (not pooled)} a pool, which is not "
                      "supported")
    named, tensors = named_convolutions(stem, blocks)
    if classifier:
        tensors["fc.weight"], tensors["fc.bias"] = classifier
    facts = graph_facts(named, graph.size, head)
    facts.pooled_shortcut = any(shortcut and shortcut.pooled for _, shortcut in blocks)
    for names, convolution in named.items():
        add_convolution(tensors, names, convolution, facts.epsilon)
    return tensors, facts


def named_convolutions(stem, blocks):
    """(convolution's name, norm's name) -> Convolution, and the tensors of squeeze-and-excitation by their names. A
    stage begins where the channels change."""
    names = [("conv1", "bn1")] if len(stem) == 1 else [
        ("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")]
    if len(stem) != len(names):
        raise Refused(f"has a stem of {len(stem)} convolutions, expected one or three")
    named, attention = dict(zip(names, stem)), {}
    stage, block, channels = 0, 0, None
    for branch, shortcut in blocks:
        outputs = branch.convolutions[-1].weight.shape[0]
        stage, block = (stage, block + 1) if outputs == channels else (stage + 1, 0)
        channels, at = outputs, f"layer{stage}.{block}"
        if shortcut:
            named[f"{at}.downsample.0", f"{at}.downsample.1"] = shortcut.convolutions[0]
        for k, convolution in enumerate(branch.convolutions, 1):
            named[f"{at}.conv{k}", f"{at}.bn{k}"] = convolution
        for k, layer in enumerate(branch.attention, 1):
            attention[f"{at}.se.fc{k}.weight"], attention[f"{at}.se.fc{k}.bias"] = layer.weight, layer.bias
    return named, attention


def add_convolution(tensors, names, convolution, epsilon):
    """The five tensors of a convolution, for a network whose batch normalisations all have this epsilon."""
    name, norm = names
    tensors[f"{name}.weight"] = convolution.weight
    parts, channels = convolution.norm, convolution.weight.shape[:1]
    if parts is None:  # it was folded into weight and bias
        variance = np.float32(1 - epsilon)
        parts = (constant(channels, math.sqrt(float(variance) + epsilon)), convolution.bias or constant(channels, 0),
                 constant(channels, 0), constant(channels, variance))
    else:
        if convolution.bias:
            tensors[f"{name}.bias"] = convolution.bias
        if convolution.epsilon != epsilon:
            parts = (*parts[:3], raised(parts[3], convolution.epsilon - epsilon))
    tensors.update((f"{norm}.{part}", tensor) for part, tensor in zip(PARTS, parts))


def raised(tensor, by):
    return Derived(tensor.shape, lambda: tensor.values() + np.float32(by))


def graph_facts(named, size, head):
    """What the graph says besides the weights."""
    epsilons = {convolution.epsilon for convolution in named.values() if convolution.norm}
    geometry = {name: (c.stride, c.dilation, c.groups) for (name, _), c in named.items()}
    strides = {stage: [geometry.get(f"layer{stage}.0.conv{k}", (1,))[0] for k in (1, 2)] for stage in (2, 3, 4)
               if f"layer{stage}.0.conv1" in geometry}
    kept = [stage for stage in (3, 4) if max(strides.get(stage, [2])) == 1]  # stages that dilate in place of striding
    return Facts(stride_at="1x1" if any(first > 1 for first, _ in strides.values()) else "3x3",
                 output_stride=8 if 3 in kept else 16 if kept else 0, head=head, size=size,
                 epsilon=min(epsilons, default=FOLDED_EPSILON), geometry=geometry)
