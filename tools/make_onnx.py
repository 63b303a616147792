#!/usr/bin/env python3
"""Write a ResNet with made-up weights as ONNX, to time another engine with.

usage: make_onnx.py ARCH OUT.onnx [--int8]

ARCH is resnet18, resnet34, resnet50, resnet101 or resnet152, as torchvision has them, with batch normalisation folded
into the convolutions: what an engine would make of it first. --int8 writes the form that quantisers write (QDQ): u8
activations, s8 weights with a scale for each output channel, int32 biases. Needs numpy and onnx (python3-onnx).
"""
import argparse

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

ARCHITECTURES = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
CLASSES = 1000
SIDE = 224
STEP = 0.05  # of quantised activations: made up, as the weights are


class Builder:
    """Grows a graph; values are known by the names of the nodes that compute them."""

    def __init__(self, int8):
        self.int8 = int8
        self.random = numpy.random.default_rng(1)
        self.nodes = []
        self.tensors = []

    def constant(self, name, array):
        self.tensors.append(numpy_helper.from_array(numpy.asarray(array, order="C"), name))
        return name

    def node(self, operator, name, inputs, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def activation(self, value, zero):
        """The value, in int8 as what is left of it after rounding to u8 with this zero point."""
        if not self.int8:
            return value
        name = value + ".rounded"
        how = [self.constant(name + ".step", numpy.float32(STEP).reshape(())),
               self.constant(name + ".zero", numpy.uint8(zero).reshape(()))]
        return self.node("DequantizeLinear", name, [self.node("QuantizeLinear", name + ".u8", [value, *how]), *how])

    def stored(self, name, integers, scale):
        """Integers that are multiplied by the scale of their first axis when the model runs."""
        inputs = [self.constant(name + ".integers", integers), self.constant(name + ".scale", scale),
                  self.constant(name + ".zero", numpy.zeros(scale.shape, integers.dtype))]
        return self.node("DequantizeLinear", name, inputs, axis=0)

    def weights(self, name, shape):
        """Names of a weight (He initialisation) and a bias."""
        fan_in = int(numpy.prod(shape[1:]))
        weight = self.random.normal(0, (2 / fan_in) ** 0.5, shape).astype(numpy.float32)
        bias = self.random.normal(0, 0.01, shape[0]).astype(numpy.float32)
        if not self.int8:
            return [self.constant(name + ".weight", weight), self.constant(name + ".bias", bias)]
        scale = numpy.abs(weight).reshape(shape[0], -1).max(axis=1) / 127
        integers = numpy.rint((weight.reshape(shape[0], -1).T / scale).T).astype(numpy.int8).reshape(shape)
        bias_scale = (scale * STEP).astype(numpy.float32)
        return [self.stored(name + ".weight", integers, scale),
                self.stored(name + ".bias", numpy.rint(bias / bias_scale).astype(numpy.int32), bias_scale)]

    def conv(self, name, value, channels, kernel, stride=1):
        """(before any activation; `channels` is input and output)."""
        return self.node("Conv", name, [value, *self.weights(name, (channels[1], channels[0], kernel, kernel))],
                         kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[kernel // 2] * 4)

    def relu(self, value):
        return self.activation(self.node("Relu", value + ".relu", [value]), 0)

    def block(self, name, value, kind, channels, stride):
        """A residual block from channels[0] to channels[1]."""
        shortcut, (inside, outside) = value, channels
        planes = outside if kind == "basic" else outside // 4
        if stride != 1 or inside != outside:
            shortcut = self.activation(self.conv(name + ".downsample", value, channels, 1, stride), 128)
        if kind == "basic":
            value = self.relu(self.conv(name + ".conv1", value, (inside, planes), 3, stride))
            value = self.conv(name + ".conv2", value, (planes, planes), 3)
        else:
            value = self.relu(self.conv(name + ".conv1", value, (inside, planes), 1))
            value = self.relu(self.conv(name + ".conv2", value, (planes, planes), 3, stride))
            value = self.conv(name + ".conv3", value, (planes, outside), 1)
        return self.relu(self.node("Add", name + ".add", [self.activation(value, 128), shortcut]))

    def network(self, kind, blocks):
        """From "input" to the scores, whose name is returned."""
        value = self.relu(self.conv("conv1", self.activation("input", 128), (3, 64), 7, 2))
        value = self.node("MaxPool", "maxpool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        value, inside = self.activation(value, 0), 64
        for stage, count in enumerate(blocks):
            outside = 64 * 2 ** stage * (1 if kind == "basic" else 4)
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                value = self.block(f"layer{stage + 1}.{i}", value, kind, (inside, outside), stride)
                inside = outside
        value = self.activation(self.node("GlobalAveragePool", "avgpool", [value]), 0)
        value = self.activation(self.node("Flatten", "flatten", [value]), 0)
        return self.activation(self.node("Gemm", "fc", [value, *self.weights("fc", (CLASSES, inside))], transB=1), 128)


def build(arch, int8):
    builder = Builder(int8)
    scores = builder.network(*ARCHITECTURES[arch])
    graph = helper.make_graph(
        builder.nodes, arch, [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["batch", CLASSES])], builder.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def main():
    parser = argparse.ArgumentParser(description="Write a ResNet with made-up weights as ONNX.")
    parser.add_argument("arch", choices=ARCHITECTURES)
    parser.add_argument("output")
    parser.add_argument("--int8", action="store_true", help="quantised: u8 activations, s8 weights")
    arguments = parser.parse_args()
    onnx.save(build(arguments.arch, arguments.int8), arguments.output)


if __name__ == "__main__":
    main()
