"""What is known of a checkpoint besides names and shapes."""
from dataclasses import dataclass, field

EPSILON = 1e-5  # of batch normalisation in PyTorch


@dataclass
class Facts:
    """None where nothing is known."""
    stride_at: str = None  # "1x1" or "3x3": where a bottleneck strides
    output_stride: int = None  # 8 or 16; 0 as built
    head: str = None  # "softmax" or "sigmoid"
    pooled_shortcut: bool = False  # an average pool stands before the shortcut's convolution
    size: tuple = None  # height and width of the input
    epsilon: float = EPSILON
    order: str = "rgb"  # of the input channels
    mean: list = None  # of the input channels after u / 255, in the order of the network; and std
    std: list = None
    geometry: dict = field(default_factory=dict)  # convolution -> (stride, dilation, groups), where a graph says it


@dataclass
class Checkpoint:
    """What a reader gives: names and tensors, and where they came from."""
    tensors: dict  # name -> Tensor, or another of tensors.py
    container: str
    facts: Facts = field(default_factory=Facts)
