#!/usr/bin/env python3
"""Make the fixtures of test_image and test_preprocess: small image files with Pillow's pixels, malformed files with the
message each must get, and checksums of what Pillow and torchvision make of formula-made images.

    python3 make_image_fixtures.py [DIRECTORY_OF_ODD_IMAGES]

Needs numpy, Pillow, torch, torchvision (the fixtures here: Pillow 9.4 on libjpeg-turbo 2.1, torch 1.13, torchvision 0.14)
and libjpeg-turbo's cjpeg. Without the directory images/odd.txt stays as it is.
"""
import io
import os
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES = os.path.join(HERE, "images")
rng = np.random.default_rng(20)


def write(name, data):
    os.makedirs(os.path.dirname(os.path.join(IMAGES, name)), exist_ok=True)
    with open(os.path.join(IMAGES, name), "wb") as f:
        f.write(data)


def scene(height, width):
    """Smooth colours with an edge: what a JPEG of a photograph holds."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    planes = [127 + 100 * np.sin(x / 9 + c) * np.cos(y / 7 - c) + 25 * (x > y) for c in range(3)]
    return np.clip(np.stack(planes, 2), 0, 255).astype(np.uint8)


# ---- PNG ----

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data, crc=None):
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def header(width, height, depth, colour, interlace=0, rest=(0, 0)):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *rest, interlace))


def pack_row(row, depth):
    """[width * samples] numbers to bytes."""
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth:]
    return np.packbits(bits.ravel()).tobytes()


def paeth(a, b, c):
    p = a + b - c
    return min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]


def filtered(row, before, kind, step):
    out = bytearray([kind])
    for i, value in enumerate(row):
        left = row[i - step] if i >= step else 0
        up = before[i]
        corner = before[i - step] if i >= step else 0
        guess = [0, left, up, (left + up) // 2, paeth(left, up, corner)][kind]
        out.append((value - guess) & 255)
    return bytes(out)


def rows_of(samples, depth, colour):
    """Every filter in turn."""
    step = max(1, SAMPLES[colour] * depth // 8)
    before, out = None, b""
    for y, row in enumerate(samples):
        packed = pack_row(row.ravel(), depth)
        before = before or bytes(len(packed))
        out += filtered(packed, before, (y * 2 + 1) % 5, step)
        before = packed
    return out


def raw(samples, depth, colour, interlace):
    if not interlace:
        return rows_of(samples, depth, colour)
    parts = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in ADAM7]
    return b"".join(rows_of(p, depth, colour) for p in parts if p.size)


def png(depth, colour, interlace=0, size=(13, 19), palette=None, extra=b"", samples=None):
    height, width = size
    if samples is None:
        samples = rng.integers(0, 1 << depth, (height, width, SAMPLES[colour]))
    plte = b"" if palette is None else chunk(b"PLTE", palette)
    data = zlib.compress(raw(samples, depth, colour, interlace), 9)
    half = len(data) // 2  # two IDAT chunks: decoders must join them
    return (SIGNATURE + header(width, height, depth, colour, interlace) + plte + extra + chunk(b"IDAT", data[:half]) +
            chunk(b"IDAT", data[half:]) + chunk(b"IEND", b"")), samples


def pillow_pixels(data):
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def good(listing, name, data, tolerance=0, pixels=None):
    """A file, Pillow's pixels (unless others are given) and the greatest difference that stb_image is allowed."""
    pixels = pillow_pixels(data) if pixels is None else pixels
    write(name, data)
    write(name + ".rgb", pixels.astype(np.uint8).tobytes())
    listing.append(f"{name} {pixels.shape[1]} {pixels.shape[0]} {tolerance}")


def make_png(listing):
    colours = bytes(rng.integers(0, 256, 768, dtype=np.uint8))
    for interlace in (0, 1):
        kind = "-interlaced" if interlace else ""
        for depth in (1, 2, 4, 8):
            good(listing, f"grey{depth}{kind}.png", png(depth, 0, interlace)[0])
            good(listing, f"palette{depth}{kind}.png", png(depth, 3, interlace, palette=colours[:3 << depth])[0])
        for name, colour in (("rgb", 2), ("greyalpha", 4), ("rgba", 6)):
            good(listing, f"{name}8{kind}.png", png(8, colour, interlace)[0])
            good(listing, f"{name}16{kind}.png", png(16, colour, interlace)[0])
        # Pillow clips 16-bit grey at 255; stb_image takes the high byte, as everybody does for colours.
        data, samples = png(16, 0, interlace)
        good(listing, f"grey16{kind}.png", data, 0, np.repeat(samples >> 8, 3, 2))
    good(listing, "palette8-short.png", png(8, 3, palette=colours[:30])[0])  # most pixels point beyond it
    good(listing, "palette8-trns.png", png(8, 3, palette=colours, extra=chunk(b"tRNS", bytes(range(99))))[0])
    good(listing, "rgb8-trns.png", png(8, 2, extra=chunk(b"tRNS", bytes([0, 1, 0, 2, 0, 3])))[0])
    good(listing, "text.png", png(8, 2, extra=chunk(b"tEXt", b"Comment\0hello"))[0])
    good(listing, "one.png", png(8, 2, size=(1, 1))[0])
    good(listing, "tall-interlaced.png", png(1, 0, 1, size=(37, 1))[0])
    good(listing, "wide-interlaced.png", png(8, 6, 1, size=(1, 37))[0])
    good(listing, "empty-chunk.png", png(8, 2, samples=scene(13, 19), extra=chunk(b"IDAT", b""))[0])


# ---- JPEG ----

def jpeg(pixels, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


def cmyk_jpeg():
    out = io.BytesIO()
    Image.fromarray(scene(37, 45)).convert("CMYK").save(out, "JPEG", quality=90)
    return out.getvalue()


def cjpeg(pixels, *options):
    """What Pillow cannot write."""
    ppm = b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
    return subprocess.run(["cjpeg", *options], input=ppm, stdout=subprocess.PIPE, check=True).stdout


def with_file(option, content, pixels):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write(content)
        f.flush()
        return cjpeg(pixels, option, f.name)


def make_jpeg(listing):
    """stb_image's integer IDCT and colour conversion round otherwise than libjpeg's: 3 levels, 4 with upsampling."""
    pixels = scene(37, 45)
    good(listing, "444.jpg", jpeg(pixels, quality=90, subsampling=0), 3)
    good(listing, "422.jpg", jpeg(pixels, quality=90, subsampling=1), 4)
    good(listing, "420.jpg", jpeg(pixels, quality=90, subsampling=2), 4)
    good(listing, "444-progressive.jpg", jpeg(pixels, quality=90, subsampling=0, progressive=True), 3)
    good(listing, "420-progressive.jpg", jpeg(pixels, quality=75, subsampling=2, progressive=True), 4)
    good(listing, "optimised.jpg", jpeg(pixels, quality=60, subsampling=0, optimize=True), 3)
    good(listing, "grey.jpg", jpeg(pixels[:, :, 0], quality=90), 2)
    good(listing, "grey-progressive.jpg", jpeg(pixels[:, :, 0], quality=90, progressive=True), 2)
    good(listing, "cmyk.jpg", cmyk_jpeg(), 4)
    good(listing, "one.jpg", jpeg(pixels[:1, :1], quality=90), 3)
    good(listing, "padded.jpg", jpeg(pixels, quality=90, subsampling=0)[:20] + bytes(3) +
         jpeg(pixels, quality=90, subsampling=0)[20:], 3)
    pixels = scene(21, 27)
    good(listing, "440.jpg", cjpeg(pixels, "-sample", "1x2"), 4)
    good(listing, "411.jpg", cjpeg(pixels, "-sample", "4x1"), 4)
    good(listing, "rgb.jpg", cjpeg(pixels, "-rgb"), 4)
    good(listing, "restarts.jpg", cjpeg(pixels, "-restart", "2B", "-sample", "2x2"), 4)
    good(listing, "quantiser-16-bit.jpg", with_file("-qtables", " ".join(["300"] * 128), pixels), 4)
    good(listing, "three-scans.jpg", with_file("-scans", "0;1;2;", pixels), 4)
    data = cmyk_jpeg()
    adobe = data.index(b"Adobe")
    good(listing, "ycck.jpg", patched(data, adobe + 11, b"\2"), 4)
    # A height that is said twice, bytes 0xff before markers, and an APP14 segment too short for Adobe's.
    data = jpeg(pixels, quality=90)
    data = data[:2] + b"\xff\xee\0\7Hello" + data[2:-2] + b"\xff\xff\xff\xdc\0\4\0\x15\xff\xff\xd9"
    good(listing, "height-twice.jpg", data, 4)


# ---- BMP ----

def bmp(bits, rows, width, height, palette=b"", masks=b"", compression=0, size=40, used=0, offset=None):
    """`height` may be negative; `rows` are the bytes as they are stored."""
    extra = masks + palette
    offset = 14 + size + len(extra) if offset is None else offset
    if size == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(rows), 0, 0, used, 0)
        info += bytes(size - 40)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + extra + rows


def bmp_rows(bits, width, height):
    stride = (width * bits + 31) // 32 * 4
    return rng.integers(0, 256, stride * height, dtype=np.uint8).tobytes()


def make_bmp(listing):
    colours = bytes(rng.integers(0, 256, 1024, dtype=np.uint8))
    for bits in (1, 4, 8):
        palette = colours[:4 << bits]
        good(listing, f"palette{bits}.bmp", bmp(bits, bmp_rows(bits, 19, 13), 19, 13, palette))
    good(listing, "palette8-short.bmp", bmp(8, bmp_rows(8, 19, 13), 19, 13, colours[:40], used=10))
    good(listing, "palette8-core.bmp", bmp(8, bmp_rows(8, 19, 13), 19, 13, colours[:768], size=12))
    good(listing, "rgb15.bmp", bmp(16, bmp_rows(16, 19, 13), 19, 13))
    masks = struct.pack("<III", 0xf800, 0x7e0, 0x1f)
    good(listing, "rgb16.bmp", bmp(16, bmp_rows(16, 19, 13), 19, 13, masks=masks, compression=3))
    good(listing, "rgb24.bmp", bmp(24, bmp_rows(24, 19, 13), 19, 13))
    good(listing, "rgb24-topdown.bmp", bmp(24, bmp_rows(24, 19, 13), 19, -13))
    good(listing, "rgb32.bmp", bmp(32, bmp_rows(32, 19, 13), 19, 13))
    good(listing, "one.bmp", bmp(24, bmp_rows(24, 1, 1), 1, 1))
    colours, rows = bytes(range(256)) * 4, scene(13, 20)[:, :, 0].tobytes()
    expected = np.frombuffer(colours, np.uint8).reshape(256, 4)[np.frombuffer(rows, np.uint8).reshape(13, 20)][::-1, :, 2::-1]
    good(listing, "palette8-os2.bmp", bmp(8, rows, 20, 13, colours, size=64))
    good(listing, "palette8-forgotten.bmp", bmp(8, rows, 20, 13, colours, offset=54))
    good(listing, "palette8-many.bmp", bmp(8, rows, 20, 13, colours, used=300), pixels=expected)  # Pillow refuses it
    good(listing, "palette1-cut.bmp", bmp(1, b"\x80", 1, 1, b"\0"), pixels=np.array([[[1, 1, 1]]]))  # and this
    for size in (52, 56, 108, 124):  # the masks are a part of the header, of which Pillow does not know each size
        data = bmp(16, rows, 10, 13, masks=masks + bytes(size - 52), compression=3)
        good(listing, f"rgb16-header{size}.bmp", patched(data, 14, bytes([size])), pixels=pillow_pixels(data))
    data = bmp(32, rows, 5, 13, masks=struct.pack("<IIII", 0xff0000, 0xff00, 0xff, 0xff000000), compression=6)
    expected = np.frombuffer(rows, np.uint8).reshape(13, 5, 4)[::-1, :, 2::-1]
    good(listing, "rgba32.bmp", data, pixels=expected)  # Pillow does not know this compression


# ---- Malformed files ----

def patched(data, at, new):
    return data[:at] + new + data[at + len(new):]


def segment(data, marker):
    """Where the marker 0xff `marker` begins."""
    return data.index(bytes([0xff, marker]))


def end_of_segment(data, at):
    return at + 2 + struct.unpack(">H", data[at + 2:at + 4])[0]


def bad_jpegs():
    plain = jpeg(scene(37, 45), quality=90, subsampling=0)
    grey = jpeg(scene(16, 16)[:, :, 0], quality=90)
    dht, dqt, sof, sos = (segment(plain, m) for m in (0xc4, 0xdb, 0xc0, 0xda))
    scan = end_of_segment(plain, sos)
    table = struct.pack(">HB", 19 + 16 * 255, 0) + b"\xff" * 16 + bytes(16 * 255)
    yield "huffman-overflow", plain[:dht] + b"\xff\xc4" + table + plain[dht:], "at most 256 symbols"
    counts = bytes([0] * 7 + [128, 129] + [0] * 7)
    table = struct.pack(">HB", 19 + 257, 0) + counts + bytes(257)
    yield "huffman-257", plain[:dht] + b"\xff\xc4" + table + plain[dht:], "at most 256 symbols"
    yield "huffman-oversubscribed", patched(plain, dht + 5, b"\x03"), "code lengths make no prefix code"
    yield "huffman-all-ones", patched(plain, dht + 5, b"\x02"), "code lengths make no prefix code"
    yield "huffman-class", patched(plain, dht + 4, b"\x20"), "Huffman table's header"
    yield "huffman-long", plain[:dht] + b"\xff\xc4\0\x13\0\1" + bytes(15) + plain[dht:], "longer than its segment"
    yield "huffman-missing", plain[:dht] + plain[sos:], "Huffman table that is not defined"
    yield "quantiser-missing", plain[:dqt] + plain[sof:], "quantisation table that is not defined"
    yield "quantiser-number", patched(plain, dqt + 4, b"\x04"), "quantisation table's header"
    yield "quantiser-long", patched(plain, dqt + 2, b"\0\x42"), "longer than its segment"
    yield "segment-length-0", patched(plain, dqt + 2, b"\0\0"), "shorter than its own length"
    yield "segment-beyond-end", patched(plain, dqt + 2, b"\xff\xff"), "truncated"
    yield "12-bit", patched(plain, sof + 4, b"\x0c"), "12-bit samples are not read"
    yield "lossless", patched(plain, sof + 1, b"\xc3"), "lossless images are not read"
    yield "arithmetic", patched(plain, sof + 1, b"\xc9"), "arithmetic-coded images are not read"
    yield "hierarchical", patched(plain, sof + 1, b"\xc5"), "hierarchical images are not read"
    yield "jpeg-ls", patched(plain, sof + 1, b"\xf7"), "JPEG-LS"
    yield "no-height", patched(plain, sof + 5, b"\0\0"), "45 x 0 pixels"
    yield "no-width", patched(plain, sof + 7, b"\0\0"), "0 x 37 pixels"
    yield "65535x65535", patched(plain, sof + 5, b"\xff\xff\xff\xff"), "4294.8 megapixels; at most 67.1"
    yield "8000x8000", patched(plain, sof + 5, b"\x1f\x40\x1f\x40"), "cannot hold the 8000 x 8000 pixels"
    yield "two-components", patched(plain, sof + 2, b"\0\x0e") [:sof + 9] + b"\2" + plain[sof + 10:sof + 16] + \
        plain[sof + 19:], "2 colour components"
    yield "frame-length", patched(plain, sof + 2, b"\0\x10"), "does not fit its number of components"
    yield "sampling-0", patched(plain, sof + 11, b"\x01"), "sampling factors"
    yield "sampling-5", patched(plain, sof + 11, b"\x51"), "sampling factors"
    yield "sampling-fraction", patched(patched(plain, sof + 11, b"\x31"), sof + 14, b"\x21"), "no multiples"
    yield "sampling-blocks", patched(patched(plain, sof + 11, b"\x44"), sof + 14, b"\x11"), "more than 10 blocks"
    yield "same-ids", patched(plain, sof + 13, plain[sof + 10:sof + 11]), "same id"
    yield "two-frames", plain[:sos] + plain[sof:sof + 19] + plain[sos:], "second frame header"
    yield "scan-first", plain[:sof] + plain[sos:scan] + plain[sof:], "before the frame header"
    yield "scan-component", patched(plain, sos + 5, b"\x77"), "names a component"
    yield "scan-twice", patched(plain, sos + 7, plain[sos + 5:sos + 6]), "names it twice"
    yield "scan-length", patched(plain, sos + 2, b"\0\x0a"), "does not fit its number of components"
    yield "scan-spectrum", patched(plain, scan - 3, b"\x01"), "spectral selection"
    yield "many-scans", grey[:-2] + grey[segment(grey, 0xda):-2] * 100 + b"\xff\xd9", "more than 100 scans"
    yield "no-scan", plain[:sos] + b"\xff\xd9", "without any picture data"
    yield "stray-bytes", plain[:sos] + b"\0\0" + plain[sos:], "stray bytes"
    yield "restart-length", plain[:sos] + b"\xff\xdd\0\5\0\0\0" + plain[sos:], "restart interval"
    yield "second-height", plain[:-2] + b"\xff\xdc\0\4\0\1\xff\xd9", "second height"
    yield "unknown-marker", plain[:sos] + b"\xff\xf0\0\2" + plain[sos:], "marker 0xfff0 is not expected"
    yield "restart-outside", plain[:sos] + b"\xff\xd0" + plain[sos:], "marker 0xffd0 is not expected"
    yield "cmyk-without-adobe", cmyk_jpeg().replace(b"Adobe", b"Bdobe"), "without an Adobe marker"
    yield "no-end", plain[:-2], "truncated"
    yield "garbage-codes", plain[:scan] + b"\xff\0" * 400 + b"\xff\xd9", "corrupt or incomplete"
    yield "sampling-fraction-v", patched(patched(plain, sof + 11, b"\x13"), sof + 14, b"\x12"), "no multiples"
    yield from bad_small_jpegs(grey)
    yield from bad_progressions()


def bad_small_jpegs(grey):
    dht, dqt, sof, sos = (segment(grey, m) for m in (0xc4, 0xdb, 0xc0, 0xda))
    scan = end_of_segment(grey, sos)
    yield "huffman-short", grey[:dht] + b"\xff\xc4\0\7\0\0\0\0\0" + grey[dht:], "Huffman table's header"
    yield "huffman-number", patched(grey, dht + 4, b"\x04"), "Huffman table's header"
    yield "huffman-missing-ac", grey[:end_of_segment(grey, dht)] + grey[sos:], "Huffman table that is not defined"
    yield "quantiser-precision", patched(grey, dqt + 4, b"\x20"), "quantisation table's header"
    yield "sampling-v-0", patched(grey, sof + 11, b"\x10"), "sampling factors"
    yield "sampling-v-5", patched(grey, sof + 11, b"\x15"), "sampling factors"
    yield "sampling-quantiser", patched(grey, sof + 12, b"\4"), "quantisation table (0..3)"
    yield "frame-short", grey[:sof] + b"\xff\xc0\0\7\x08\0\x10\0\x10" + grey[sos:], "does not fit its number"
    yield "scan-empty", grey[:sos] + b"\xff\xda\0\2" + grey[scan:], "does not fit its number of components"
    yield "scan-of-none", grey[:sos] + b"\xff\xda\0\6\0\0\x3f\0" + grey[scan:], "does not fit its number"
    yield "scan-of-two", grey[:sos] + b"\xff\xda\0\x0a\2\1\0\2\0\0\x3f\0" + grey[scan:], "does not fit its number"
    yield "scan-dc-table", patched(grey, sos + 6, b"\x40"), "Huffman table that is not defined"
    yield "scan-ac-table", patched(grey, sos + 6, b"\x04"), "Huffman table that is not defined"
    yield "second-height-length", grey[:-2] + b"\xff\xdc\0\5\0\x10\0\xff\xd9", "second height"
    yield "no-end-stuffed", grey[:-2] + b"\xff\0", "truncated"
    yield "only-padding", b"\xff\xd8\xff\xe0\0\2" + bytes(9), "truncated"
    yield "half-a-length", b"\xff\xd8\xff\xe0\0", "truncated"


def bad_progressions():
    """Scan headers that say spectral selection and approximation wrong."""
    colour = jpeg(scene(16, 16), quality=90, progressive=True)
    first = segment(colour, 0xda)  # DC of all three components
    second = segment(colour[first + 2:], 0xda) + first + 2  # AC of one
    at = end_of_segment(colour, second) - 3
    for name, numbers in {"reversed": b"\x05\x03\x00", "last-64": b"\x01\x40\x00", "high-14": b"\x01\x05\xe0",
                          "low-14": b"\x01\x05\x0e", "dc-and-ac": b"\x00\x05\x00"}.items():
        yield "scan-" + name, patched(colour, at, numbers), "spectral selection or approximation"
    yield "scan-ac-of-three", patched(colour, end_of_segment(colour, first) - 3, b"\x01\x05\x00"), \
        "spectral selection or approximation"


def bad_pngs():
    plain = png(8, 2)[0]
    palette = png(8, 3, palette=bytes(768))[0]
    end = chunk(b"IEND", b"")
    data = chunk(b"IDAT", zlib.compress(bytes(300)))

    def begin(*numbers, **more):
        return SIGNATURE + header(*numbers, **more)

    yield "65535x65535", begin(65535, 65535, 8, 2) + data + end, "4294.8 megapixels; at most 67.1"
    yield "30000x30000", begin(30000, 30000, 8, 2) + data + end, "900.0 megapixels"
    yield "8000x8000", begin(8000, 8000, 8, 2) + data + end, "cannot hold the 8000 x 8000 pixels"
    yield "70000x1", begin(70000, 1, 8, 2) + data + end, "each side must be 1..65535"
    yield "no-width", begin(0, 1, 8, 2) + data + end, "0 x 1 pixels"
    bomb = chunk(b"IDAT", zlib.compress(bytes(20 << 20), 9))
    yield "bomb", begin(10, 10, 8, 2) + bomb + end, "unpacks to more than it shows"
    yield "depth-3", begin(9, 9, 3, 0) + data + end, "colour type 0 with 3 bits"
    yield "depth-2-rgb", begin(9, 9, 2, 2) + data + end, "colour type 2 with 2 bits"
    yield "depth-16-palette", begin(9, 9, 16, 3) + data + end, "colour type 3 with 16 bits"
    yield "colour-1", begin(9, 9, 8, 1) + data + end, "colour type 1"
    yield "colour-7", begin(9, 9, 8, 7) + data + end, "colour type 7"
    yield "compression-1", begin(9, 9, 8, 2, rest=(1, 0)) + data + end, "unknown method"
    yield "filter-1", begin(9, 9, 8, 2, rest=(0, 1)) + data + end, "unknown method"
    yield "interlace-2", begin(9, 9, 8, 2, 2) + data + end, "unknown method"
    yield "no-header", SIGNATURE + data + end, "the first chunk is not the header"
    yield "two-headers", begin(9, 9, 8, 2) + header(9, 9, 8, 2) + data + end, "second header"
    yield "short-header", SIGNATURE + chunk(b"IHDR", bytes(12)) + data + end, "must have 13 bytes"
    yield "no-palette", begin(9, 9, 8, 3) + data + end, "before the palette"
    yield "late-palette", palette[:-12] + chunk(b"PLTE", bytes(3)) + end, "not the only one"
    yield "palette-257", begin(9, 9, 8, 3) + chunk(b"PLTE", bytes(771)) + data + end, "1..256 colours"
    yield "palette-4-bytes", begin(9, 9, 8, 3) + chunk(b"PLTE", bytes(4)) + data + end, "1..256 colours"
    yield "no-data", begin(9, 9, 8, 2) + end, "without any picture data"
    yield "no-end", plain[:-12], "truncated"
    yield "chunk-beyond-end", begin(9, 9, 8, 2) + patched(data, 0, b"\x7f\xff\xff\xff") + end, "truncated"
    yield "chunk-4gib", begin(9, 9, 8, 2) + patched(data, 0, b"\xff\xff\xff\xff") + end, "truncated"
    yield "header-checksum", patched(plain, 29, b"\0\0\0\0"), "checksum"
    yield "data-checksum", begin(9, 9, 8, 2) + chunk(b"IDAT", zlib.compress(bytes(300)), 1) + end, "checksum"
    yield "unknown-critical", begin(9, 9, 8, 2) + chunk(b"QUUX", b"") + data + end, "necessary, but of an unknown type"
    yield "cgbi", SIGNATURE + chunk(b"CgBI", bytes(4)) + header(9, 9, 8, 2) + data + end, "CgBI"
    yield "few-pixels", begin(20, 20, 8, 2) + data + end, "corrupt or incomplete"
    yield "filter-5", begin(9, 9, 8, 2) + chunk(b"IDAT", zlib.compress(b"\5" * 300)) + end, "corrupt or incomplete"
    yield "not-zlib", begin(9, 9, 8, 2) + chunk(b"IDAT", b"no zlib at all") + end, "corrupt or incomplete"
    pixels = begin(9, 9, 8, 2) + data
    yield "palette-after-pixels", pixels + chunk(b"PLTE", bytes(3)) + end, "not before the pixels"
    yield "palette-0", begin(9, 9, 8, 2) + chunk(b"PLTE", b"") + data + end, "1..256 colours"
    yield "far-distance", begin(9, 9, 8, 2) + chunk(b"IDAT", b"\x78\x01\x03\x42\0\0\0\0\0\0") + end, \
        "corrupt or incomplete"


def bad_bmps():
    rows = bmp_rows(24, 19, 13)
    plain = bmp(24, rows, 19, 13)
    for name, number in (("rle8", 1), ("rle4", 2)):
        yield name, bmp(8 // number, bmp_rows(8, 19, 13), 19, 13, bytes(1024), compression=number), "run-length"
    yield "jpeg", bmp(24, rows, 19, 13, compression=4), "embedded JPEG or PNG"
    yield "compression-9", bmp(24, rows, 19, 13, compression=9), "unknown compression"
    yield "masks-24", bmp(24, rows, 19, 13, compression=3, masks=bytes(12)), "does not fit the pixel's bits"
    yield "masks-0", bmp(32, bmp_rows(32, 19, 13), 19, 13, compression=3, masks=bytes(12)), "mask is not one run"
    masks = struct.pack("<III", 0x5, 0x70, 0x700)
    yield "masks-gap", bmp(32, bmp_rows(32, 19, 13), 19, 13, compression=3, masks=masks), "mask is not one run"
    yield "bits-5", bmp(5, rows, 19, 13), "bits a pixel"
    yield "bits-0", bmp(0, rows, 19, 13), "bits a pixel"
    yield "bits-16-core", bmp(16, rows, 19, 13, size=12), "bits a pixel"
    yield "header-41", patched(plain, 14, b"\x29"), "unknown size of header"
    yield "offset-0", patched(plain, 10, b"\0\0\0\0"), "begin inside the header"
    yield "offset-4gib", patched(plain, 10, b"\xff\xff\xff\xff"), "truncated"
    yield "no-width", bmp(24, rows, 0, 13), "0 x 13 pixels"
    yield "height-min", bmp(24, rows, 19, -2**31), "each side must be"
    yield "65535x65535", bmp(24, rows, 65535, 65535), "4294.8 megapixels"
    yield "negative-width", bmp(24, rows, -19, 13), "each side must be"
    yield "short", plain[:-4], "truncated"
    yield "header-only", plain[:30], "truncated"
    yield "no-masks", bmp(16, b"", 1, 1, compression=3)[:54], "truncated"
    yield "masks-beyond-end", bmp(16, b"\0\0", 1, 1, compression=3), "truncated"
    yield "masks-os2", bmp(16, bytes(28), 1, 1, compression=3, size=64), "does not fit the pixel's bits"
    yield "half-a-header", plain[:20], "truncated"


def foreign():
    """Formats that are known by name, and things that are none."""
    starts = {"GIF": b"GIF89a", "WebP": b"RIFF\x20\0\0\0WEBPVP8 ", "TIFF": b"II*\0\x08\0\0\0",
              "AVIF": b"\0\0\0\x1cftypavif", "HEIF": b"\0\0\0\x18ftypheic", "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n", "Photoshop": b"8BPS\0\1",
              "JPEG XL": b"\xff\x0a\xfa\x7f", "Netpbm": b"P6\n1 1\n255\nabc", "Windows icon": b"\0\0\1\0\1\0"}
    for name, start in starts.items():
        yield name.lower().replace(" ", ""), start + bytes(20), name + " images are not read"
    yield "zeros", bytes(64), "not an image"
    yield "text", b"These are not the pixels you are looking for.\n", "not an image"
    yield "two-bytes", b"\xff\xd8", "not an image"
    yield "one-byte", b"B", "not an image"
    yield "empty", b"", "an empty file"


def make_bad():
    with open(os.path.join(IMAGES, "bad.txt"), "w") as f:
        for kind, files in (("jpg", bad_jpegs()), ("png", bad_pngs()), ("bmp", bad_bmps()), ("bin", foreign())):
            for name, data, message in files:
                write(f"bad/{name}.{kind}", data)
                f.write(f"bad/{name}.{kind}\t{message}\n")


# ---- Files that stb_image decodes for want of a check, or that the two decoders of JPEG judge otherwise ----

def jpeg_of_bits(quantiser, dc, ac, bits):
    """64 x 64 grey; `dc` and `ac` are the symbols of codes by length, `bits` the entropy-coded data."""
    def table(kind, codes):
        counts = [sum(length == n for length, _ in codes) for n in range(1, 17)]
        return b"\xff\xc4" + struct.pack(">HB", 19 + len(codes), kind) + bytes(counts) + bytes(s for _, s in codes)

    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    return (b"\xff\xd8\xff\xdb" + struct.pack(">HB", 131, 0x10) + struct.pack(">H", quantiser) * 64 +
            b"\xff\xc0\0\x0b\x08\0\x40\0\x40\1\1\x11\0" + table(0, dc) + table(0x10, ac) +
            b"\xff\xda\0\x08\1\1\0\0\x3f\0" + data + b"\xff\xd9")


def make_strange():
    # Twice the greatest difference times the greatest quantiser is more than an int holds.
    write("strange/overflow.jpg", jpeg_of_bits(65535, [(1, 15)], [(1, 0)], ("0" + "1" * 15 + "0") * 64))
    # Two blocks use up 32 bits exactly, and a short code after them is read from -9 bits.
    write("strange/shift.jpg", jpeg_of_bits(1, [(1, 13), (2, 14)], [(2, 7), (2, 0)], "0" + "1" * 13 + "01" + "10" +
                                            "1" * 14))
    grey = cjpeg(scene(32, 32), "-grayscale", "-restart", "2B")
    sos = segment(grey, 0xda)
    write("strange/cut-short.jpg", grey[:sos + 100] + b"\xff\xd9")
    write("strange/wrong-restart.jpg", grey.replace(b"\xff\xd1", b"\xff\xd4"))
    # A table with a code for a DC difference of 16 bits, which no block has.
    write("strange/symbol.jpg", jpeg_of_bits(1, [(1, 0), (2, 16)], [(1, 0)], "00" * 64))
    # A match at distance code 30, which does not exist: stb_image takes it for 0 and copies what memory held before.
    code = "1" + "10" + "00110000" + ("0000001" + "11110") * 10 + "0000000"
    code += "0" * (-len(code) % 8)
    data = b"\x78\x01" + bytes(int(code[i:i + 8][::-1], 2) for i in range(0, len(code), 8)) + bytes(4)
    write("strange/distance.png", SIGNATURE + header(10, 1, 8, 2) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


# ---- The awkward files of other projects ----

def odd_verdict(path):
    """What this library makes of a file: the size and the checksum of Pillow's pixels, with a "~" where stb_image only comes
    near them; the size alone, where others may not be Pillow's; or "refused"."""
    with open(path, "rb") as f:
        head = f.read(26)
    kind = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"BM": "bmp"}.get(head[:2])
    if not kind or REFUSED.get(os.path.basename(path)):
        return "refused"
    if os.path.basename(path) in READ:
        return READ[os.path.basename(path)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path)
            pixels = np.array(image.convert("RGB"))
    except Exception:
        return "refused"
    size = f"{pixels.shape[1]}x{pixels.shape[0]}"
    if image.mode == "I":  # Pillow's mode of 16-bit grey
        return size
    return f"{size} {'~' if kind == 'jpeg' else ''}{zlib.crc32(pixels.tobytes()):08x}"


REFUSED = {
    "testimgari.jpg": "arithmetic coding",
    "hopper_bad_exif.jpg": "more data in an interval than its restart allows; libjpeg skips it",
    "jpeg_ff00_header.jpg": "0xff00 between segments",
    "xcsn0g01.png": "a wrong checksum, which Pillow does not look at",
    **{f"bmp_{n}.bmp": "run-length coding" for n in ("b_badrle", "b_rletopdown", "g_pal4rle", "g_pal8rle",
                                                    "q_pal4rletrns", "q_pal8rletrns")},
    **{f"hopper_rle8{n}.bmp": "run-length coding" for n in ("", "_grayscale", "_row_overflow")},
}
# Pillow refuses them for something that this library does not care about, or has no layout for these masks.
READ = {
    **{f"bmp_{n}.bmp": "127x64" for n in ("b_badpalettesize", "g_rgb32bf", "q_pal2", "q_pal8oversizepal", "q_rgb16-231",
                                          "q_rgb32-111110", "q_rgb32h52", "q_rgba16-4444", "q_rgba32", "q_rgba32abf",
                                          "q_rgba32h56")},
    "png_decompression_dos.png": "128x128",
    "truncated_exif_dpi.jpg": "256x256",
    "unknown_compression_method.png": "37x37",
}


def make_odd(root):
    lines = []
    for directory, _, files in os.walk(root):
        for name in files:
            path = os.path.join(directory, name)
            lines.append(f"{os.path.relpath(path, root)}\t{odd_verdict(path)}\n")
    with open(os.path.join(IMAGES, "odd.txt"), "w") as f:
        f.writelines(sorted(lines))


# ---- Resize, crop, normalisation ----

def formula(width, height, seed):
    """The image that test_preprocess makes by the same formula: noise for odd seeds, a pattern for even ones."""
    i = np.arange(width * height * 3, dtype=np.uint32)
    if seed % 2:
        h = i + np.uint32(seed * 0x9e3779b9 & 0xffffffff)
        for shift, factor in ((16, 0x7feb352d), (15, 0x846ca68b)):
            h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
        h ^= h >> np.uint32(16)
    else:
        pixel = i // 3
        x, y = pixel % np.uint32(width), pixel // np.uint32(width)
        h = ((x * 7 + y * 3) ^ (x * y >> np.uint32(4))) + i % np.uint32(3) * 80
    return (h & 255).astype(np.uint8).reshape(height, width, 3)


def torchvision_crop(image, resize, bicubic, width, height):
    import torchvision.transforms.functional as F
    from torchvision.transforms import InterpolationMode
    if resize:
        image = F.resize(image, resize, InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR)
    return np.array(F.center_crop(image, [height, width]))


def resized(width, height, resize):
    """The whole size after the resize: with it as the crop, Pillow's every pixel is compared."""
    short, long = min(width, height), max(width, height)
    other = int(resize * long / short)
    return (resize, other) if width <= height else (other, resize)


def cases():
    """width, height, resize, bicubic, crop width, crop height"""
    for k in range(240):  # the whole of Pillow's output, up and down
        width, height = (int(n) for n in rng.integers(1, 300, 2))
        resize = int(rng.integers(1, 200))
        while max(resized(width, height, resize)) > 4000:
            resize = (resize + 1) // 2
        yield (width, height, resize, k % 2, *resized(width, height, resize))
    for k in range(80):  # crops: odd differences, and images smaller than the crop in one direction or both
        width, height, crop_width, crop_height = (int(n) for n in rng.integers(1, 120, 4))
        yield width, height, 0 if k % 4 == 0 else int(rng.integers(1, 100)), k % 2, crop_width, crop_height
    for k in range(16):  # extreme shapes
        long = int(rng.integers(1000, 3000))
        size = (long, 1 + k % 3) if k % 2 else (1 + k % 3, long)
        yield (*size, 1 + 8 * (k % 5), k // 8, 32, 31)
    yield 500, 375, 256, 0, 224, 224
    yield 375, 500, 256, 1, 224, 224
    yield 256, 256, 256, 0, 224, 224
    yield 227, 227, 0, 0, 224, 224


def make_preprocess():
    import torch
    import torchvision.transforms.functional as F
    lines = []
    for seed, case in enumerate(cases()):
        width, height, resize, bicubic, crop_width, crop_height = case
        image = Image.fromarray(formula(width, height, seed))
        crop = torchvision_crop(image, resize, bicubic, crop_width, crop_height)
        lines.append(" ".join(map(str, case)) + f" {zlib.crc32(crop.tobytes()):08x}\n")
    with open(os.path.join(HERE, "preprocess_cases.txt"), "w") as f:
        f.writelines(lines)
    full = torchvision_crop(Image.fromarray(formula(41, 29, 1)), 16, 1, 18, 15)
    full.tofile(os.path.join(HERE, "preprocess_full.rgb"))
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256).repeat(3, 1, 1)
    table = F.normalize(F.convert_image_dtype(values, torch.float), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    table.numpy().astype("<f4").tofile(os.path.join(HERE, "preprocess_table.f32"))


def main():
    listing = []
    make_png(listing)
    make_jpeg(listing)
    make_bmp(listing)
    with open(os.path.join(IMAGES, "good.txt"), "w") as f:
        f.writelines(line + "\n" for line in listing)
    make_bad()
    make_strange()
    if len(sys.argv) > 1:
        make_odd(sys.argv[1])
    make_preprocess()


main()
