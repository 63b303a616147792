"""CRC-32C of large data with NumPy.

A CRC register is 32 bits, and what a zero byte does to it is linear over GF(2). So the register after some bytes A, B
of equal length is: the register after A, moved past as many zero bytes as B has, xor the register after B. Read as
32-bit words that holds for the data itself too: the first half, each word moved past half the length, xor the second
half is data of half the length with the same CRC. Folding until one word is left takes one pass of table look-ups
over whole arrays, and no loop over bytes.
"""
import functools

import numpy as np

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bit-reversed
FOLD = 1 << 20  # bytes folded at once: the arrays stay in the cache


def past_zero_byte(register):
    for _ in range(8):
        register = (register >> 1) ^ (POLYNOMIAL if register & 1 else 0)
    return register


@functools.lru_cache(maxsize=None)
def past_zeros(power):
    """What 2**power zero bytes do to a register, as two tables: of its lower 16 bits and of its upper ones."""
    bits = np.uint32(1) << np.arange(32, dtype="<u4")
    images = (np.array([past_zero_byte(int(bit)) for bit in bits], "<u4") if power == 0 else
              moved(past_zeros(power - 1), moved(past_zeros(power - 1), bits)))
    return xor_table(images[:16]), xor_table(images[16:])


def xor_table(images):
    """For every 16-bit number the xor of its bits' images."""
    table = np.zeros(1, "<u4")
    for image in images:
        table = np.concatenate([table, table ^ image])
    return table


def moved(tables, registers):
    lower, upper = tables
    return np.take(lower, registers & 0xFFFF) ^ np.take(upper, registers >> 16)


def folded(data):
    """The register after at most FOLD bytes, from zero."""
    count = 1 << max(0, (len(data) - 1) // 4).bit_length()
    words = np.zeros(count, "<u4")
    words.view("u1")[4 * count - len(data):] = data  # zeros in front leave a zero register as it is
    while count > 1:
        count //= 2
        words = moved(past_zeros((4 * count).bit_length() - 1), words[:count]) ^ words[count:]
    return moved(past_zeros(2), words)


def crc32c(data, crc=0):
    """CRC-32C of bytes; `crc` is that of the bytes before them."""
    data = np.frombuffer(data, "u1")
    register = np.array([crc ^ 0xFFFFFFFF], "<u4")
    for start in range(0, len(data), FOLD):
        part = data[start:start + FOLD]
        for power in range(FOLD.bit_length()):
            if len(part) >> power & 1:
                register = moved(past_zeros(power), register)
        register = register ^ folded(part)
    return int(register[0]) ^ 0xFFFFFFFF
