#!/usr/bin/env python3
"""Tests the reading of ONNX: what a graph computes becomes the network, whatever its weights are called."""
import unittest

from convert_support import (NORM, Case, OnnxBuilder, f32, names_and_shapes, np, onnx, onnx_node, onnx_tensor,
                             onnx_value,
                             parse_tensors, proto, pth, safetensors, tiny, varint)

# Arguments of tiny, of the graph, and of the converter, which cannot see in a .pth what a graph says.
FAMILY = {
    "basic": ({}, {}, ()),
    "bottleneck": ({"bottleneck": True, "blocks": (2, 1, 1, 2)}, {}, ()),
    "stride in the first 1x1": ({"bottleneck": True}, {"stride_at": "1x1"}, ("--stride-at", "1x1")),
    "groups": ({"bottleneck": True, "inner": 16, "groups": 4}, {}, ()),
    "output stride 16": ({"bottleneck": True, "blocks": (1, 1, 1, 2)}, {"output_stride": 16},
                         ("--output-stride", "16")),
    "output stride 8": ({"bottleneck": True, "blocks": (1, 1, 2, 1)}, {"output_stride": 8}, ("--output-stride", "8")),
    "deep": ({"stem": "deep", "width": 8}, {}, ()),
    "CIFAR": ({"stem": "3x3", "blocks": (2, 2)}, {}, ()),
    "attention": ({"attention": 8, "bottleneck": True}, {}, ()),
    "sigmoid": ({}, {"ends": ("Sigmoid",)}, ("--head", "sigmoid")),
    "softmax": ({}, {"ends": ("Softmax",)}, ()),
    "no head": ({"classes": 0}, {}, ()),
    "another size": ({}, {"size": (96, 160)}, ("--crop", "96x160")),
    "no size": ({"channels": 1}, {"size": ("h", "w")}, ()),
}


class Walk(Case):
    def test_members_of_the_family(self):
        for name, (kind, graph, options) in FAMILY.items():
            arrays = tiny(**kind)
            graph = {"size": (32, 32)} | graph if kind.get("stem") == "3x3" else graph
            for renamed in (False, True):
                with self.subTest(name, renamed=renamed):
                    data = self.converted(onnx(arrays, renamed=renamed, **graph))
                    self.assertIn("read from      ONNX, its graph", self.report)
                    self.assertEqual(data, self.converted(safetensors(arrays), *options))

    def test_average_pool_shortcut(self):
        arrays = tiny(bottleneck=True, blocks=(1, 1, 1))
        timm = {name.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1"): array
                for name, array in arrays.items()}
        self.assertEqual(self.converted(onnx(arrays, pooled=True)), self.converted(pth(timm)))

    def test_folded(self):
        """The file's batch normalisation changes nothing: its factor is exactly one, and its shift is the bias."""
        for kind in ({}, {"bottleneck": True, "attention": 4, "stem": "deep", "width": 8}):
            builder = OnnxBuilder(tiny(**kind), folded=True)
            data = self.converted(builder.bytes())
            found, epsilon = parse_tensors(data, names_and_shapes(**kind)), f32(data, 88, 1)[0]
            self.assertEqual(epsilon, 2.0 ** -17)
            for name, array in builder.weights.items():
                if name.endswith(".weight") and "se" not in name:
                    np.testing.assert_array_equal(found[name], array)
            norm = [found[f"bn1.{part}"].astype("f8") for part in NORM]
            np.testing.assert_array_equal(norm[0] / np.sqrt(norm[3] + epsilon), 1)
            first = "conv1.weight" if "conv1.weight" in found else "conv1.6.weight"
            np.testing.assert_array_equal(norm[1], builder.weights[first.replace("weight", "bias")])
            np.testing.assert_array_equal(norm[2], 0)

    def test_other_and_different_epsilons(self):
        arrays = tiny()
        self.assertEqual(f32(self.converted(onnx(arrays, epsilon=0.0009765625)), 88, 1), [2 ** -10])
        builder = OnnxBuilder(arrays, epsilon=2 ** -10)
        first = next(node for node in builder.nodes if node[0] == "BatchNormalization")
        first[3]["epsilon"] = 2.0 ** -8
        data = self.converted(builder.bytes())
        self.assertEqual(f32(data, 88, 1), [2 ** -10])
        found = parse_tensors(data, names_and_shapes())
        np.testing.assert_array_equal(found["bn1.running_var"],
                                      arrays["bn1.running_var"] + np.float32(2 ** -8 - 2 ** -10))
        np.testing.assert_array_equal(found["layer1.0.bn1.running_var"], arrays["layer1.0.bn1.running_var"])

    def test_partly_folded(self):
        builder = OnnxBuilder(tiny())
        at = next(i for i, node in enumerate(builder.nodes) if node[0] == "BatchNormalization")
        (_, inputs, outputs, _), conv = builder.nodes.pop(at), builder.nodes[at - 1]
        conv[1].append(inputs[2])
        conv[2][:] = outputs
        found = parse_tensors(self.converted(builder.bytes()), names_and_shapes())
        np.testing.assert_array_equal(found["bn1.bias"], tiny()["bn1.bias"])
        factor = found["bn1.weight"] / np.sqrt(found["bn1.running_var"].astype("f8") + np.float32(1e-5))
        np.testing.assert_allclose(factor, 1, rtol=2 ** -24)  # the factor is rounded to float32

    def test_other_ways_to_end(self):
        arrays = tiny()
        expected = self.converted(pth(arrays))
        mean_axes = np.array([2, 3], "<i8")
        for change in (self.matmul, self.reduce_mean(axes=[-1, -2]), self.reduce_mean(mean_axes), self.reshape):
            builder = OnnxBuilder(arrays)
            change(builder)
            self.assertEqual(self.converted(builder.bytes()), expected)

    def matmul(self, builder):
        (_, (value, weight, bias), outputs, _) = builder.nodes.pop()
        builder.weights["other"] = builder.weights.pop(weight).T.copy()
        builder.nodes += [("MatMul", [value, "other"], ["product"], {}), ("Add", [bias, "product"], outputs, {}),
                          ("Identity", outputs, ["end"], {})]
        builder.output = "end"

    def reduce_mean(self, axes):
        def change(builder):
            at = next(i for i, node in enumerate(builder.nodes) if node[0] == "GlobalAveragePool")
            _, inputs, outputs, _ = builder.nodes[at]
            if type(axes) is list:
                builder.nodes[at] = ("ReduceMean", inputs, outputs, {"axes": axes, "keepdims": 1})
            else:
                builder.nodes[at] = ("ReduceMean", [*inputs, "axes"], outputs, {})
                builder.nodes.insert(0, ("Constant", [], ["axes"], {"value": onnx_tensor("", axes)}))
        return change

    def reshape(self, builder):
        """As PyTorch exports x.view(x.size(0), -1), and x.flatten before."""
        at = next(i for i, node in enumerate(builder.nodes) if node[0] == "Flatten")
        _, (value,), outputs, _ = builder.nodes[at]
        builder.weights.update(zero=np.array(0, "<i8"), rest=np.array([-1], "<i8"))
        builder.nodes[at:at + 1] = [
            ("Shape", [value], ["shape"], {}), ("Gather", ["shape", "zero"], ["count"], {"axis": 0}),
            ("Unsqueeze", ["count"], ["counts"], {"axes": [0]}), ("Concat", ["counts", "rest"], ["sides"], {"axis": 0}),
            ("Reshape", [value, "sides"], ["flat"], {}), ("Dropout", ["flat"], outputs, {})]

    def test_types_and_forms_of_weights(self):
        arrays = tiny()
        expected = self.converted(pth(arrays))
        for dtype in ("<f2", "<f8"):
            self.assertEqual(self.converted(onnx({name: array.astype(dtype) for name, array in arrays.items()})),
                             expected)
        for raw in (True, False):
            self.assertEqual(self.converted(assembled(OnnxBuilder(arrays), raw=raw)), expected)


def assembled(builder, raw=True, front=(), weights=(), inputs=(), replaced=None):
    """The file of a builder with other parts."""
    graph = proto(*((1, onnx_node(*node)) for node in builder.nodes),
                  *((5, (replaced or {}).get(name) or onnx_tensor(name, array, raw))
                    for name, array in builder.weights.items()), *weights,
                  (11, onnx_value("x", ["N", 3, 224, 224])), *inputs, (12, onnx_value(builder.output, ["N", 3])))
    return proto((1, 7), *front, (2, "test"), (7, graph))


class Refusals(Case):
    def changed(self, reason, change, **options):
        builder = OnnxBuilder(tiny(), **options)
        change(builder)
        self.refused(builder.bytes(), reason)

    def with_node(self, reason, op, replaced=None, kind=None, **attributes):
        """The first node of this kind is another, or has other attributes."""
        builder = OnnxBuilder(tiny(**kind or {}), pooled=op == "AveragePool")
        at = next(i for i, node in enumerate(builder.nodes) if node[0] == op)
        _, inputs, outputs, known = builder.nodes[at]
        builder.nodes[at] = (replaced or op, inputs, outputs, {**known, **attributes})
        self.refused(builder.bytes(), reason)

    def test_other_operations(self):
        for op, replaced, reason in (("Conv", "ConvTranspose", "whose input goes into ConvTranspose"),
                                     ("Relu", "Sigmoid", "has no Relu behind Conv"),
                                     ("MaxPool", "AveragePool", "forks"),
                                     ("BatchNormalization", "InstanceNormalization", "has no Relu behind Conv"),
                                     ("Add", "Sub", "has Sub"),
                                     ("GlobalAveragePool", "GlobalMaxPool", "has GlobalMaxPool"),
                                     ("Flatten", "Softsign", "expected a Gemm"), ("Gemm", "Foo", "expected a Gemm")):
            builder_reason = {"MaxPool": "has AveragePool"}.get(op, reason)
            self.with_node(builder_reason, op, replaced)

    def test_geometry(self):
        for attributes, reason in (
                ({"pads": [3, 3, 2, 2]}, "pads that differ"), ({"pads": [2] * 4}, "pads by 2"),
                ({"auto_pad": "SAME_UPPER"}, "pads by SAME_UPPER"), ({"strides": [1, 2]}, "strides that differ"),
                ({"strides": [1, 1]}, "conv1 has stride 1, dilation 1 and 1 groups"), ({"group": 3}, "and 3 groups"),
                ({"strides": [2 ** 63, 2 ** 63]}, "conv1 has stride -9223372036854775808"),
                ({"pads": 3}, "pads that differ"),
                ({"dilations": [2, 2], "pads": [6] * 4}, "dilation 2")):
            self.with_node(reason, "Conv", **attributes)
        for attributes in ({"pads": [0] * 4}, {"ceil_mode": 1}, {"kernel_shape": [2, 2]}, {"strides": [1, 1]}):
            self.with_node("not the pool of a ResNet", "MaxPool", **attributes)
        for attributes in ({"ceil_mode": 0}, {"count_include_pad": 1}, {"kernel_shape": [3, 3]}):
            self.with_node("not the pool of timm's shortcut", "AveragePool", kind={"bottleneck": True}, **attributes)
        for attributes in ({"alpha": 2.0}, {"transA": 1}):
            self.with_node("factors or a transposition", "Gemm", **attributes)
        for epsilon in (0.0, -1.0, float("nan"), 2.0, 1):
            self.with_node("has the epsilon", "BatchNormalization", epsilon=epsilon)

    def test_structure(self):
        def more(builder):
            builder.nodes.append(("Relu", ["v4"], ["more"], {}))

        def loose(builder):
            builder.nodes.append(("Tanh", ["nowhere"], ["loose"], {}))

        def looped(builder):
            builder.nodes[-2][1][0] = builder.nodes[-2][2][0]

        def elsewhere(builder):
            builder.output = "v3"

        def no_weight(builder):
            builder.weights.pop("layer1.0.conv1.weight")

        def padded(builder):
            at = [i for i, node in enumerate(builder.nodes) if node[0] == "Conv"][3]
            builder.nodes[at] = ("Slice", *builder.nodes[at][1:])

        for change, reason in ((padded, "a zero-padded shortcut is not read from a graph"),
                               (more, "Relu (node.more) behind its blocks, expected the average"),
                               (loose, "1 nodes that are not part of a ResNet: Tanh"),
                               (looped, "nodes that are not part"), (elsewhere, "gives v3, expected one output"),
                               (no_weight, "does not have its weights in the file")):
            self.changed(reason, change)

    def test_pools_and_stems_that_do_not_go_together(self):
        def without(builder):
            builder.nodes[:] = [("Identity", *node[1:]) if node[0] == "MaxPool" else node for node in builder.nodes]

        self.changed("a stem of 1 convolutions without a pool", without)
        builder = OnnxBuilder(tiny(stem="3x3", blocks=(1,)))
        at = next(i for i, node in enumerate(builder.nodes) if node[0] == "Relu") + 1
        builder.nodes.insert(at, ("MaxPool", builder.nodes[at - 1][2], ["pooled"],
                                  {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}))
        for node in builder.nodes[at + 1:]:
            node[1][:] = ["pooled" if name == builder.nodes[at - 1][2][0] else name for name in node[1]]
        self.refused(builder.bytes(), "a stem of 1 convolutions with a pool")

    def test_parts_of_the_file(self):
        builder = OnnxBuilder(tiny())
        good = builder.weights["fc.bias"]

        def with_weight(*fields):
            return assembled(builder, replaced={"fc.bias": proto((1, 3), *fields, (8, "fc.bias"))})

        for data, reason in (
                (with_weight((2, 1), (9, good.tobytes()), (14, 1)), "keeps fc.bias in another file"),
                (with_weight((2, 1), (13, proto((1, "location"), (2, "/etc/passwd")))),
                 "keeps fc.bias in another file"),
                (with_weight((2, 1), (9, good.tobytes()[:-1])), "fc.bias is 3 float32, but has 11 bytes"),
                (with_weight((2, 1)), "fc.bias is 3 float32, but has no bytes"),
                (with_weight((2, 8), (9, b"abc")), "the ONNX type 8"),
                (with_weight((1, -5), (2, 1)), "not a few sizes"),
                (with_weight((1, 2 ** 62), (2, 1), (9, good.tobytes())), "but has 12 bytes"),
                (with_weight((2, 1), (4, 1.0)), "field 4 of another type"),
                (with_weight((2, 7), (7, varint(5) * 4)), "is 3 int64, but has 4 numbers"),
                (with_weight((2, 7), (7, varint(5) * 3)), "does not have its weights"),
                (assembled(builder, weights=[(5, onnx_tensor("fc.bias", good))]), "two weights called fc.bias"),
                (assembled(builder, inputs=[(11, onnx_value("y", [1]))]), "has 2 inputs"),
                (assembled(builder, weights=[(15, b"")]), "sparse weights"),
                (assembled(builder, front=[(2, "x")]) + proto((25, b"")), "functions of its own"),
                (proto((1, 7), (2, "test")), "without a graph"),
                (proto((1, 7), (2, "t"), (7, b""), (7, b"")), "without a graph"),
                (proto((1, 7), (2, "t"), (7, proto((1, proto((4, "Conv"), (7, "evil")))))), "the domain evil"),
                (proto((1, 7), (2, "t"), (7, proto((1, proto((4, "C" * 2000)))))), "a name of 2000 bytes"),
                (proto((1, 7), (2, "t"), (7, proto((1, proto((4, b"\xff")))))), "not UTF-8"),
                (proto((1, 7), (2, "t"), (7, proto(*((1, b""),) * (1 << 15), (1, b"")))), "more than the 32768")):
            self.refused(data, reason)

    def test_protobuf(self):
        front = proto((1, 7), (2, "t"))
        for data, reason in (
                (b"\x3a\x05abc", "outside its message"),
                (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "outside its message"),
                (b"\x3a" + b"\xff" * 10, "more than 64 bits"),
                (b"\x3a" + b"\xff" * 9 + b"\x7f", "more than 64 bits"), (b"\x3a\x80", "ends within a number"),
                (b"\x3b", "the kind 3"),
                (b"\x3d\0", "outside its message"), (b"\x39\0", "outside its message"),
                (b"\x80" * 11, "more than 64 bits"), (b"\x28\1" * (1 << 20), "more than 1048576 protobuf fields")):
            self.refused(front + data, reason)

    def test_long_lists(self):
        node = onnx_node("Conv", ["x"], ["y"])
        numbers = proto((8, b"\1" * ((1 << 20) + 1)), (1, "pads"))
        self.refused(proto((1, 7), (2, "t"), (7, proto((1, node + proto((5, numbers)))))),
                     "a list of numbers of 1048577")


if __name__ == "__main__":
    unittest.main()
