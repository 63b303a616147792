"""Tensors: where their numbers are in a file, or how they follow from others'."""
import math
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from .failure import Refused, shown
from .files import Span

MAX_DIMENSIONS = 8
MAX_SCATTER = 16 << 20  # bytes that a strided tensor may spread over beyond four times its own size

DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8", "int64": "<i8", "int32": "<i4",
          "int8": "<i1", "uint8": "<u1"}
FLOATS = ("float32", "float16", "bfloat16", "float64")


def item_size(dtype):
    return np.dtype(DTYPES[dtype]).itemsize


def shape_text(shape):
    return "x".join(map(str, shape)) or "a single number"


@dataclass
class Tensor:
    """Where the numbers of a tensor are; strides and offset count elements. Made by view() only, which checks them."""
    dtype: str
    shape: tuple
    strides: tuple
    span: Span
    offset: int

    def values(self):
        """The numbers as a contiguous float32 array."""
        size = item_size(self.dtype)
        reach = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        if reach * size > 4 * math.prod(self.shape) * size + MAX_SCATTER:
            raise Refused(f"a tensor of {shape_text(self.shape)} is scattered over {reach * size} bytes")
        raw = self.span.read(self.offset * size, reach * size)
        array = np.ndarray(self.shape, DTYPES[self.dtype], raw, 0, [step * size for step in self.strides])
        if self.dtype == "bfloat16":  # the upper half of a float32
            return np.left_shift(array, 16, dtype="<u4", order="C").view("<f4")
        with np.errstate(all="ignore"):  # a float64 beyond float32 becomes infinite, and is refused for it later
            return array.astype("<f4", order="C", copy=False)

    def transposed(self, *axes):
        return replace(self, shape=tuple(self.shape[axis] for axis in axes),
                       strides=tuple(self.strides[axis] for axis in axes))

    def reduced(self, dimensions):
        """Without the dimensions of 1 at the end, down to this many: a 1x1 convolution as a matrix."""
        shape = self.shape
        while len(shape) > dimensions and shape[-1] == 1:
            shape = shape[:-1]
        return replace(self, shape=shape, strides=self.strides[:len(shape)])


@dataclass
class Derived:
    """A tensor whose numbers are computed when they are written."""
    shape: tuple
    compute: Callable  # gives a float32 array of this shape
    dtype: str = "float32"

    def values(self):
        return np.ascontiguousarray(self.compute(), "<f4")


def constant(shape, number):
    return Derived(shape, lambda: np.full(shape, number, "<f4"))


def is_size(number):
    return type(number) is int and number >= 0


def view(dtype, shape, strides, span, offset):
    """A tensor whose every element lies in its span, which holds at least as many: no shape can ask for more."""
    if not len(shape) == len(strides) <= MAX_DIMENSIONS or not all(map(is_size, (*shape, *strides, offset))):
        raise Refused("a tensor's shape, strides or offset are not a few sizes")
    held = span.size // item_size(dtype)
    count = math.prod(shape)
    reach = offset + (1 + sum((n - 1) * step for n, step in zip(shape, strides)) if count else 0)
    if max(count, reach) > held:
        raise Refused(f"a tensor of {shown(shape_text(shape))} reaches outside its storage of {held} elements")
    return Tensor(dtype, tuple(shape), tuple(strides), span, offset)


def contiguous(dtype, shape, span):
    """A tensor whose elements follow each other from the start of a span; at most MAX_DIMENSIONS."""
    return view(dtype, shape, [math.prod(shape[axis + 1:]) for axis in range(len(shape))], span, 0)
