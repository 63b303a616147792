#!/usr/bin/env python3
"""Renders the sample pictures: a small ray marcher over distance fields, in NumPy alone.

    make_samples.py FOLDER [NAME...]    writes FOLDER/NAME.png for every scene, or for those named

A scene says how far any point is from each of its shapes (so a ray can step that far safely) and how each shape is
painted; the renderer adds sun, shadow, sky light and reflections. Points are arrays (3, N): x right, y up, z to us.
"""
import math
import struct
import sys
import zlib
from pathlib import Path
from typing import Callable, Dict, NamedTuple

import numpy as np

WIDTH, HEIGHT, SAMPLES = 320, 240, 3  # SAMPLES x SAMPLES rays a pixel
LATTICE = np.random.RandomState(7).random_sample((32, 32, 32)).astype(np.float32)


class Scene(NamedTuple):
    shapes: Callable  # points -> {name: distances}
    paints: Dict  # name -> an RGB triple, or a function (points, normals) -> colours
    sky: Callable  # directions -> colours; metals reflect it too
    eye: tuple
    target: tuple
    zoom: float = 2.0
    sun: tuple = (0.5, 0.8, 0.5)
    metals: tuple = ()  # names of the shapes that mirror the sky
    bumps: Dict = {}  # name -> a function (points, normals) -> bent normals
    far: float = 40.0
    haze: float = 0.0  # how fast the distance fades into the sky
    stride: float = 0.9  # below 1 where distances are only estimates


# ---- Vectors, noise and colour ----

def vector(*values):
    return np.array(values, np.float32).reshape(3, 1)


def unit(v):
    return v / np.sqrt((v * v).sum(0))


def length(*parts):
    return np.sqrt(sum(part * part for part in parts))


def mix(a, b, share):
    return a + (b - a) * share


def smooth(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise(p):
    """Smooth random values in 0..1: a lattice of random numbers, interpolated, that repeats after 32 cells."""
    cell = np.floor(p).astype(np.int32)
    f = p - cell
    f = f * f * (3 - 2 * f)
    total = 0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod([f[i] if corner[i] else 1 - f[i] for i in range(3)], axis=0)
        total = total + weight * LATTICE[tuple((cell[i] + corner[i]) & 31 for i in range(3))]
    return total


def clouds(p, octaves=4):
    """Noise upon noise, each octave twice as fine and half as strong."""
    return sum(noise(p * 2 ** i + 7 * i) / 2 ** (i + 1) for i in range(octaves))


def blue_sky(d, cover=0.5):
    """Fair weather: deeper blue towards the zenith, and `cover` of clouds, which shrink towards the horizon."""
    base = mix(vector(0.42, 0.62, 0.88), vector(0.06, 0.20, 0.62), np.clip(d[1], 0, 1) ** 0.6)
    density = clouds(d / (np.abs(d[1]) + 0.25) * vector(2.2, 0, 2.2) + 3.3, 5)
    return mix(base, vector(0.95, 0.95, 0.97), smooth(1 - cover, 1.25 - cover, density) * 0.9)


# ---- Distances ----

def sphere(p, centre, radius):
    return length(*(p - vector(*centre))) - radius


def box(p, centre, half, rounding=0.0):
    q = np.abs(p - vector(*centre)) - vector(*half) + rounding
    return length(*np.maximum(q, 0)) + np.minimum(q.max(0), 0) - rounding


def capsule(p, a, b, radius):
    a, b = vector(*a), vector(*b)
    along = np.clip(((p - a) * (b - a)).sum(0) / ((b - a) ** 2).sum(), 0, 1)
    return length(*(p - a - (b - a) * along)) - radius


def path(p, points, radius):
    return union(*(capsule(p, a, b, radius) for a, b in zip(points, points[1:])))


def disc(p, centre, radius, half):
    """A flat cylinder along z."""
    x, y, z = p - vector(*centre)
    across, along = length(x, y) - radius, np.abs(z) - half
    return np.minimum(np.maximum(across, along), 0) + length(np.maximum(across, 0), np.maximum(along, 0))


def ring(p, centre, major, minor):
    """A torus around z."""
    x, y, z = p - vector(*centre)
    return length(length(x, y) - major, z) - minor


def union(*distances):
    return np.minimum.reduce(distances)


# ---- The renderer ----

def nearest(scene, p):
    return union(*scene.shapes(p).values())


def march(scene, origin, direction):
    """How far each ray goes until it meets something; scene.far where it does not."""
    t, alive = np.zeros(direction.shape[1], np.float32), np.arange(direction.shape[1])
    for _ in range(220):
        p = origin[:, alive] + direction[:, alive] * t[alive]
        step = nearest(scene, p)
        t[alive] += step * scene.stride
        alive = alive[(step > 4e-4 * t[alive]) & (t[alive] < scene.far)]
        if not len(alive):
            break
    return t


def normals(scene, p):
    total = 0
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        total = total + vector(*corner) * nearest(scene, p + 1e-3 * vector(*corner))
    return unit(total)


def sunlight(scene, p, sun):
    """1 in the sun, 0 in the shadow, between where a ray only just passes."""
    light, t = np.ones(p.shape[1], np.float32), np.full(p.shape[1], 0.02, np.float32)
    for _ in range(48):
        step = nearest(scene, p + sun * t)
        light = np.minimum(light, np.clip(0.5 + 7 * step / t, 0, 1))
        t += np.clip(step * scene.stride, 0.015, 0.6)
    return light


def openness(scene, p, n):
    """How much of the sky a point sees, from the distances a little way above it."""
    closed = sum((h - nearest(scene, p + n * h)) * w for h, w in ((0.05, 4), (0.15, 2), (0.4, 0.8)))
    return np.clip(1 - closed, 0.1, 1)


def surface(scene, p):
    """What is at the points p: colours, normals, and which of them are metal."""
    distances = scene.shapes(p)
    which = np.argmin(np.stack(list(distances.values())), 0)
    n, colour, metal = normals(scene, p), np.zeros_like(p), np.zeros(p.shape[1], bool)
    for index, name in enumerate(distances):
        mine, paint = np.flatnonzero(which == index), scene.paints[name]
        if name in scene.bumps:
            n[:, mine] = scene.bumps[name](p[:, mine], n[:, mine])
        colour[:, mine] = paint(p[:, mine], n[:, mine]) if callable(paint) else vector(*paint)
        metal[mine] = name in scene.metals
    return colour, n, metal


def shade(scene, p, direction):
    """The light that leaves the points p towards the eye: sun, sky, and in metals the mirrored sky."""
    colour, n, metal = surface(scene, p)
    sun, open_sky = unit(vector(*scene.sun)), openness(scene, p, n)
    lit = sunlight(scene, p + n * 2e-3, sun)
    diffuse = np.clip((n * sun).sum(0), 0, 1) * lit
    ambient = (0.55 + 0.45 * n[1]) * open_sky
    matt = colour * (vector(1.25, 1.14, 0.98) * diffuse + vector(0.28, 0.34, 0.44) * ambient)
    mirrored = direction - 2 * (direction * n).sum(0) * n
    glint = np.clip((mirrored * sun).sum(0), 0, 1) ** 60
    polished = 0.4 * matt + colour * (0.85 * scene.sky(mirrored) * open_sky + glint * lit)
    return np.where(metal, polished, matt)


def camera_rays(scene):
    """One direction a sample, row by row."""
    ahead = unit(vector(*scene.target) - vector(*scene.eye))
    right = unit(np.cross(ahead, vector(0, 1, 0), axis=0))
    up = np.cross(right, ahead, axis=0)
    rows, columns = HEIGHT * SAMPLES, WIDTH * SAMPLES
    y, x = np.mgrid[:rows, :columns].reshape(2, -1).astype(np.float32) + 0.5
    return unit(ahead * scene.zoom + right * (x - columns / 2) / rows * 2 + up * (rows / 2 - y) / rows * 2)


def render(scene):
    """The picture, uint8 HEIGHT x WIDTH x 3."""
    direction = camera_rays(scene)
    origin = np.broadcast_to(vector(*scene.eye), direction.shape)
    t = march(scene, origin, direction)
    light = scene.sky(direction)
    hit = np.flatnonzero(t < scene.far)
    seen = shade(scene, origin[:, hit] + direction[:, hit] * t[hit], direction[:, hit])
    light[:, hit] = mix(seen, light[:, hit], 1 - np.exp(-scene.haze * t[hit]))
    light = film(light).reshape(3, HEIGHT, SAMPLES, WIDTH, SAMPLES).mean((2, 4))
    return (np.clip(light, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def film(light):
    """Film's response, which keeps colour in bright light and depth in shadows (a common fit of the ACES curve)."""
    x = 0.62 * light
    return x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)


def write_png(file, picture):
    """Each row is stored as differences from the row above, which deflates better than plain values."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = picture.shape
    rows = picture.reshape(height, -1)
    rows = rows - np.vstack((np.zeros_like(rows[:1]), rows[:-1]))
    body = b"".join(b"\2" + row.tobytes() for row in rows)  # 2: PNG's filter "up"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body, 9))
                     + chunk(b"IEND", b""))


# ---- The scenes ----

def grass_blades(p, cell, height, seed):
    """Bent, tapering blades: one in each cell of a grid, moved and turned at random."""
    ix, iz = np.floor(p[0] / cell).astype(np.int32), np.floor(p[2] / cell).astype(np.int32)
    random = [LATTICE[(ix + 5 * k + seed) & 31, (iz - 3 * k) & 31, (ix // 32 + iz // 32 + k) & 31] for k in range(4)]
    tall = height * (0.5 + 0.5 * random[0])
    up = np.clip(p[1] / tall, 0, 1)
    lean = cell * 0.5 * up * up
    x = p[0] - (ix + 0.35 + 0.3 * random[1]) * cell - lean * np.sin(6.3 * random[2])
    z = p[2] - (iz + 0.35 + 0.3 * random[3]) * cell - lean * np.cos(6.3 * random[2])
    return np.maximum(length(x, z) - 0.16 * cell * (1 - up) - 0.002, p[1] - tall)


def golf_ball():
    """A golf ball, dimples and all, in the grass."""
    k = np.arange(360, dtype=np.float32)
    y = 1 - (2 * k + 1) / 360
    radius, turn = np.sqrt(1 - y * y), k * math.pi * (3 - math.sqrt(5))  # a spiral spreads them evenly
    dimples = np.stack((radius * np.cos(turn), y, radius * np.sin(turn)))
    centre = vector(0, 0.92, 0)

    def shapes(p):
        turned = np.stack((0.8 * p[0] - 0.6 * p[2], p[1], 0.6 * p[0] + 0.8 * p[2]))
        blades = union(grass_blades(p, 0.17, 0.55, 0), grass_blades(turned, 0.13, 0.42, 9))
        return {"ball": length(*(p - centre)) - 1, "soil": p[1], "grass": blades}

    def dimple(p, n):
        bent = np.empty_like(n)
        for part in np.array_split(np.arange(n.shape[1]), 64):  # the table of all pairs would be large
            closeness = dimples.T @ n[:, part]
            towards = dimples[:, closeness.argmax(0)] - n[:, part]
            depth = smooth(0.092, 0.06, length(*towards))
            bent[:, part] = unit(n[:, part] + 4.5 * depth * towards)
        return bent

    def green(p, n):
        fresh = mix(vector(0.10, 0.30, 0.03), vector(0.36, 0.52, 0.08), noise(p * 9))
        return fresh * (0.25 + 1.3 * np.clip(p[1] / 0.5, 0, 1))

    def backdrop(d):
        trees = clouds(d * vector(5, 3, 5) + 2, 2)
        far = mix(vector(0.06, 0.16, 0.04), vector(0.25, 0.40, 0.12), trees)
        return mix(far, vector(0.62, 0.78, 0.95), smooth(0.05, 0.30, d[1] + 0.1 * trees))

    return Scene(shapes, {"ball": (0.86, 0.86, 0.84), "soil": (0.05, 0.09, 0.02), "grass": green}, backdrop,
                 eye=(0.3, 1.7, 5.6), target=(0.05, 0.88, 0), zoom=2.7, sun=(-0.6, 0.9, 0.55),
                 bumps={"ball": dimple}, far=14, haze=0.03, stride=0.7)


def parachute():
    """A round canopy in bright panels, its lines and the jumper below."""
    panels = 16

    def shapes(p):
        x, y, z = p
        angle = np.arctan2(z, x) * panels / (2 * math.pi)
        puff = 0.05 * np.abs(np.cos(angle * math.pi))
        flat = np.stack((x, y / 0.78, z))
        shell = np.abs(length(*flat) - 1.25 - puff) - 0.012
        canopy = np.maximum(shell, 0.28 - y - 0.1 * np.abs(np.cos(angle * math.pi))) * 0.7
        lines = union(*(capsule(p, (1.2 * math.cos(a), 0.25, 1.2 * math.sin(a)), (0.05 * math.cos(a), -1.7, 0), 0.006)
                        for a in np.arange(panels) * 2 * math.pi / panels))
        mirrored = np.stack((np.abs(x), y, z))
        jumper = union(capsule(p, (0, -1.9, 0), (0, -2.2, 0), 0.09),
                       path(mirrored, ((0.06, -2.2, 0), (0.1, -2.45, 0.06), (0.09, -2.7, 0)), 0.045),
                       path(mirrored, ((0.08, -1.92, 0), (0.2, -1.8, 0.05), (0.1, -1.62, 0)), 0.033))
        return {"canopy": canopy, "lines": lines, "suit": jumper, "head": sphere(p, (0, -1.73, 0.02), 0.085),
                "pack": box(p, (0, -2.02, -0.12), (0.1, 0.15, 0.06), 0.03)}

    def stripes(p, n):
        angle = np.arctan2(p[2], p[0]) / (2 * math.pi) * panels
        colours = np.array(((0.85, 0.04, 0.05), (0.95, 0.75, 0.04), (0.05, 0.16, 0.65), (0.9, 0.9, 0.9)), np.float32)
        seam = smooth(0.04, 0.08, np.abs(angle - np.round(angle)))
        return colours[np.floor(angle).astype(int) % 4].T * (0.6 + 0.4 * seam)

    return Scene(shapes, {"canopy": stripes, "lines": (0.7, 0.7, 0.7), "suit": (0.10, 0.12, 0.25),
                          "head": (0.75, 0.1, 0.06), "pack": (0.12, 0.12, 0.12)},
                 lambda d: blue_sky(d, 0.42), eye=(1.6, -3.4, 7.4), target=(0, -0.62, 0), zoom=3.3,
                 sun=(-0.5, 0.7, 0.7), far=14)


def church():
    """A white country church with its steeple, among trees."""
    def gable(p, centre, half, rise):
        """A roof whose ridge runs along z."""
        x, y, z = p - vector(*centre)
        slope = (np.abs(x) * rise + y * half[0] - half[0] * rise) / math.hypot(rise, half[0])
        return np.maximum.reduce((slope, -y, np.abs(z) - half[1]))

    def spire(p, centre, half, rise):
        x, y, z = p - vector(*centre)
        across = np.maximum(np.abs(x), np.abs(z))
        return np.maximum((across * rise + (y - rise) * half) / math.hypot(rise, half), -y)

    def tree(p, centre, radius):
        distance = sphere(p, centre, radius)
        near = np.flatnonzero(distance < 0.4 * radius)  # noise is slow, and only its surface shows
        distance[near] += 0.7 * radius * (clouds(p[:, near] * 3.1, 3) - 0.5)
        return distance

    def shapes(p):
        walls = union(box(p, (0, 1.0, -1.6), (1.15, 1.0, 2.2)), gable(p, (0, 2.0, -1.6), (1.15, 2.2), 1.05),
                      box(p, (0, 1.9, 0.85), (0.55, 1.9, 0.5)), box(p, (0, 4.2, 0.85), (0.42, 0.55, 0.4)))
        roof = np.maximum(gable(p, (0, 2.08, -1.6), (1.3, 2.32), 1.19), -gable(p, (0, 1.98, -1.6), (1.25, 2.5), 1.12))
        tower_roof = union(spire(p, (0, 4.72, 0.85), 0.5, 1.9), box(p, (0, 3.82, 0.85), (0.62, 0.05, 0.57)),
                           box(p, (0, 4.74, 0.85), (0.5, 0.04, 0.48)))
        cross = union(box(p, (0, 6.85, 0.85), (0.03, 0.3, 0.03)), box(p, (0, 6.93, 0.85), (0.16, 0.03, 0.03)))
        trees = union(tree(p, (-3.4, 1.7, -2.5), 1.4), tree(p, (3.9, 1.5, -4.0), 1.5), tree(p, (-4.8, 1.1, -4.5), 1.6),
                      tree(p, (5.9, 1.3, -5.5), 1.7), tree(p, (1.9, .35, .2), .42), tree(p, (-1.5, .3, .7), .36))
        return {"walls": walls, "roof": roof, "spire": tower_roof, "cross": cross, "trees": trees * 0.8,
                "lawn": p[1] - 0.1 * noise(p * vector(0.4, 0, 0.4))}

    def boards(p, n):
        """White clapboards, with the openings painted on the walls they face."""
        front = n[2] > 0.7
        across = np.where(front, p[0], (p[2] + 1.75) % 1 - 0.5)  # a window every metre of the side
        line = 0.80 + 0.2 * smooth(0.05, 0.3, (p[1] * 9) % 1)
        colour = vector(0.84, 0.83, 0.79) * line

        def opening(y, half, tall):
            """Inside a window or door around height y, with a round top."""
            top = np.clip(1 - ((p[1] - y - tall) / (half * 1.2)) ** 2, 0, 1)
            wide = np.where(p[1] > y + tall, half * np.sqrt(top), half)
            return (np.abs(across) < wide) & (p[1] > y - tall) & (p[1] < y + tall + half * 1.2)

        tower = front & (p[2] > 1.0)
        side = ~front & (np.abs(n[0]) > 0.7) & (p[2] < 0.2)
        door, upper, bells = opening(0.75, 0.24, 0.62), opening(2.6, 0.17, 0.35), opening(4.15, 0.2, 0.2)
        window = opening(1.1, 0.2, 0.45)
        colour = np.where(tower & door, vector(0.28, 0.07, 0.04), colour)
        return np.where((tower & (upper | bells)) | (side & window), vector(0.05, 0.07, 0.11), colour)

    def lawn(p, n):
        track = smooth(0.5, 0.3, np.abs(p[0] - 0.25 * np.sin(p[2])) + 0.2 * noise(p * 6)) * (p[2] > 1)
        grass = mix(vector(0.10, 0.22, 0.04), vector(0.26, 0.38, 0.09), clouds(p * vector(5, 0, 5), 4))
        return mix(grass, vector(0.5, 0.42, 0.32), track)

    def leaves(p, n):
        return mix(vector(0.03, 0.09, 0.02), vector(0.20, 0.30, 0.06), clouds(p * 6, 3))

    def slates(p, n):
        return vector(0.17, 0.15, 0.16) * (0.7 + 0.6 * noise(p * vector(5, 14, 5)))

    return Scene(shapes, {"walls": boards, "roof": slates, "spire": slates, "cross": (0.7, 0.55, 0.2),
                          "trees": leaves, "lawn": lawn},
                 blue_sky, eye=(5.6, 1.5, 10.5), target=(0.15, 3.35, -0.6), zoom=2.9,
                 sun=(0.45, 0.75, 0.85), haze=0.006, stride=0.75)


def french_horn():
    """Polished brass: the coils, the valves and the flaring bell, on blue cloth."""
    def bell(p):
        """A surface of revolution along a slanting axis, wider and wider."""
        q = p - vector(-0.55, -0.62, 0.1)
        axis = unit(vector(1, -0.22, 0.55))
        along = (q * axis).sum(0)
        across = length(*(q - axis * along))
        flare = np.clip(along / 1.7, 0, 1)
        radius = 0.09 + 0.16 * flare + 0.55 * flare ** 7
        shell = np.abs(across - radius) * 0.4 - 0.012
        return np.maximum(shell, np.abs(along - 0.85) - 0.85)

    def shapes(p):
        coils = union(ring(p, (-0.15, 0.18, 0), 1.0, 0.075), ring(p, (-0.12, 0.2, 0.12), 0.83, 0.05),
                      ring(p, (-0.2, 0.2, -0.1), 0.68, 0.05), ring(p, (-0.48, 0.28, 0.12), 0.3, 0.045),
                      ring(p, (0.2, 0.28, 0.12), 0.32, 0.045))
        pipes = union(*(capsule(p, (-0.75, y, 0.16), (0.45, y, 0.16), 0.045) for y in (0.05, 0.3, 0.55)),
                      capsule(p, (-0.95, 0.75, 0.1), (-1.75, 1.15, 0.2), 0.035))
        slides = union(*(path(p, ((x, 0, 0.2), (x, -0.45, 0.22), (x + 0.09, -0.45, 0.22), (x + 0.09, 0, 0.2)), 0.038)
                         for x in (-0.62, -0.33, -0.04)))
        valves = union(*(disc(p, (x, 0.3, 0.26), 0.12, 0.1) for x in (-0.5, -0.2, 0.1)))
        caps = union(*(disc(p, (x, 0.3, 0.37), 0.05, 0.03) for x in (-0.5, -0.2, 0.1)))
        mouthpiece = capsule(p, (-1.68, 1.11, 0.19), (-1.8, 1.175, 0.205), 0.055)
        return {"brass": union(coils, pipes, slides, valves, bell(p)), "silver": union(mouthpiece, caps),
                "cloth": p[2] + 0.35 + 0.25 * clouds(p * vector(1.3, 0.9, 0) + 4, 2)}

    def studio(d):
        """Soft boxes and a dark room: what makes brass look like brass."""
        panel = smooth(0.35, 0.55, d[1]) * smooth(0.9, 0.6, np.abs(d[0])) + 0.8 * smooth(0.75, 0.9, -d[0])
        low = mix(vector(0.10, 0.07, 0.05), vector(0.5, 0.45, 0.4), smooth(-0.5, 0.4, d[1]))
        return low + vector(1.9, 1.8, 1.6) * panel

    def cloth(p, n):
        return mix(vector(0.02, 0.04, 0.16), vector(0.03, 0.07, 0.24), clouds(p * 25, 2))

    return Scene(shapes, {"brass": (0.95, 0.66, 0.22), "silver": (0.9, 0.88, 0.84), "cloth": cloth}, studio,
                 eye=(0.2, 0.1, 6.5), target=(0.0, -0.16, 0), zoom=3.5, sun=(-0.5, 0.7, 0.8),
                 metals=("brass", "silver"), far=14, stride=0.8)


SCENES = {scene.__name__: scene for scene in (golf_ball, parachute, church, french_horn)}


def main():
    if len(sys.argv) < 2 or not SCENES.keys() >= set(sys.argv[2:]):
        sys.exit(f"{__doc__}\nscenes: {', '.join(SCENES)}")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or SCENES:
        write_png(folder / f"{name}.png", render(SCENES[name]()))


if __name__ == "__main__":
    main()
