"""The graph in an ONNX file: nodes, weights, and the value that goes in. What it computes is for onnx_walk.py."""
import math
import struct
from dataclasses import dataclass, field

from .failure import Refused, shown
from .files import Span
from .protobuf import Budget, Message
from .tensors import MAX_DIMENSIONS, Tensor, contiguous, is_size, item_size, shape_text

MAX_NODES = 1 << 15  # a ResNet of 1202 layers has 4,200
FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, DOUBLE, BFLOAT16 = 1, 2, 3, 6, 7, 9, 10, 11, 16
DTYPES = {FLOAT: "float32", UINT8: "uint8", INT8: "int8", INT32: "int32", INT64: "int64", BOOL: "uint8",
          FLOAT16: "float16", DOUBLE: "float64", BFLOAT16: "bfloat16"}
PASSED_THROUGH = ("Identity", "Dropout")  # their first output is their first input


@dataclass
class Numbers:
    """Whole numbers that are no weights: sizes and axes."""
    shape: tuple
    numbers: list
    dtype: str = "int64"


@dataclass
class Node:
    op: str
    inputs: list  # names of values; weights are values too
    outputs: list
    attributes: dict  # name -> int, float, str, list of ints, or Tensor
    name: str

    def __str__(self):
        return f"{shown(self.op, 40)} ({shown(self.name or (self.outputs or ['no name'])[0], 80)})"


@dataclass
class Graph:
    nodes: list
    weights: dict  # name -> Tensor
    input: str
    size: tuple  # height and width of the input; None where the file leaves them open
    outputs: list
    consumers: dict = field(default_factory=dict)  # value -> the nodes that take it


def read_graph(source):
    """The Graph of an ONNX file, without the nodes that pass their input through."""
    model = Message(Span(source, 0, source.size), Budget())
    if model.fields.get(25):
        raise Refused("has functions of its own, which are not read: export the model without them")
    if len(model.values(7, Span)) != 1:
        raise Refused("is an ONNX file without a graph")
    graph = model.message(7)
    if graph.fields.get(15):
        raise Refused("has sparse weights, which are not read")
    if len(graph.values(1, Span)) > MAX_NODES:
        raise Refused(f"has {len(graph.fields[1])} nodes, more than the {MAX_NODES} that are read")
    weights = {}
    for message in graph.messages(5):
        add_weight(weights, message.text(8), read_tensor(message))
    nodes = [read_node(message) for message in graph.messages(1)]
    inputs = [message for message in graph.messages(11) if message.text(1) not in weights]
    if len(inputs) != 1:
        raise Refused(f"has {len(inputs)} inputs, expected one")
    outputs = [message.text(1) for message in graph.messages(12)]
    return connected(nodes, weights, inputs[0].text(1), input_size(inputs[0]), outputs)


def add_weight(weights, name, tensor):
    if name in weights:
        raise Refused(f"has two weights called {shown(name)}")
    weights[name] = tensor


def input_size(value):
    """Height and width of a ValueInfoProto of four dimensions, or None."""
    dimensions = value.message(2).message(1).message(2).messages(1)
    sides = tuple(dimension.integer(1) for dimension in dimensions[2:])
    return sides if len(dimensions) == 4 and all(0 < side <= 16384 for side in sides) else None


def connected(nodes, weights, value, size, outputs):
    """The Graph, in which each name is that of the node or weight that makes the value."""
    aliases, kept = {}, []
    for node in nodes:
        node.inputs = [aliases.get(name, name) for name in node.inputs]
        if node.op in PASSED_THROUGH and node.inputs and node.outputs:
            aliases[node.outputs[0]] = node.inputs[0]
        elif node.op == "Constant":
            add_constant(weights, node)
        else:
            kept.append(node)
    graph = Graph(kept, weights, value, size, [aliases.get(name, name) for name in outputs])
    for node in kept:
        for name in dict.fromkeys(node.inputs):
            graph.consumers.setdefault(name, []).append(node)
    return graph


def add_constant(weights, node):
    value = node.attributes.get("value")
    if len(node.outputs) == 1 and type(value) in (Tensor, Numbers):
        add_weight(weights, node.outputs[0], value)


def read_node(message):
    domain = message.text(7)
    if domain not in ("", "ai.onnx"):
        raise Refused(f"has a node of the domain {shown(domain, 60)}, which is not read")
    attributes = {}
    for attribute in message.messages(5):
        attributes[attribute.text(1)] = read_attribute(attribute)
    return Node(message.text(4), message.texts(1), message.texts(2), attributes, message.text(3))


def read_attribute(message):
    """The value of an AttributeProto; graphs and the like become None. Older files do not say its type (field 20)."""
    fields, kind = message.fields, message.integer(20)
    if kind == 1 or 2 in fields:
        return struct.unpack("<f", struct.pack("<I", message.integer(2) & 0xFFFFFFFF))[0]
    if kind == 2 or 3 in fields:
        return message.integer(3)
    if kind == 3 or 4 in fields:
        return message.text(4)
    if kind == 4 or 5 in fields:
        return read_tensor(message.message(5))
    return message.integers(8) if kind == 7 or 8 in fields else None


def read_tensor(message):
    """A TensorProto as a Tensor in the file."""
    name, shape, code = shown(message.text(8), 80), message.integers(1), message.integer(2)
    if message.fields.get(13) or message.integer(14):
        raise Refused(f"keeps {name} in another file, which is not read: save the model as one file")
    if code not in DTYPES:
        raise Refused(f"{name} has the ONNX type {code}, which is not read")
    if len(shape) > MAX_DIMENSIONS or not all(map(is_size, shape)):
        raise Refused(f"{name} has a shape that is not a few sizes")
    size = math.prod(shape) * item_size(DTYPES[code])
    parts = message.values(9, Span) or message.values({FLOAT: 4, DOUBLE: 10}.get(code, 9), Span)
    if not parts and code == INT64:
        return listed_tensor(message.integers(7), shape, name)
    if len(parts) != 1 or parts[0].size != size:
        raise Refused(f"{name} is {shown(shape_text(shape))} {DTYPES[code]}, but has "
                      f"{', '.join(str(part.size) for part in parts[:3]) or 'no'} bytes")
    return contiguous(DTYPES[code], shape, parts[0])


def listed_tensor(numbers, shape, name):
    if len(numbers) != math.prod(shape):
        raise Refused(f"{name} is {shown(shape_text(shape))} int64, but has {len(numbers)} numbers")
    return Numbers(tuple(shape), numbers)


def whole_numbers(tensor):
    """The numbers of a short int64 tensor, as sizes and axes are; None of any other."""
    if type(tensor) is Numbers:
        return tensor.numbers
    if type(tensor) is not Tensor or tensor.dtype != "int64" or math.prod(tensor.shape) > MAX_DIMENSIONS:
        return None
    count = math.prod(tensor.shape)
    return list(struct.unpack(f"<{count}q", tensor.span.read(0, 8 * count)))
