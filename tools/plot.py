#!/usr/bin/env python3
"""Draw what was measured or said, as SVG: plot.py FILE -o FILE.svg

A table of bench_peers.sh becomes bars, one of bench_scaling.sh or scale/simulate.py lines with logarithmic axes, resnet
bench --layers --json a bar for each layer beside its limit, and what a program printed (FILE.txt) a terminal. Needs nothing
but Python. Colours suit a light and a dark page.
"""
import argparse
import csv
import json
import math
import sys
from xml.sax.saxutils import escape

COLOURS = ("#8b949e", "#d29922", "#2f81f7", "#a371f7", "#3fb950", "#f0883e", "#db61a2")
FONT = "font-family:system-ui,sans-serif"
STYLE = f"""<style>
text {{ {FONT}; font-size: 12px; fill: #6e7781 }}
.title {{ font-size: 13px; font-weight: 600 }}
.grid {{ stroke: #8b949e; stroke-opacity: .3; fill: none }}
.ideal {{ stroke: #8b949e; stroke-dasharray: 4 4; fill: none }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #adbac7 }} }}
</style>"""


class Drawing:
    """SVG elements in the order in which they are drawn."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.elements = [STYLE]

    def text(self, x, y, content, anchor="start", kind=""):
        space = ' xml:space="preserve"' if str(content) != " ".join(str(content).split()) else ""
        self.elements.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}"{space}>'
                             f'{escape(str(content))}</text>')

    def bar(self, x, y, width, height, colour):
        self.elements.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5" '
                             f'fill="{colour}"/>')

    def line(self, points, kind="", colour=None):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = f'style="stroke:{colour};stroke-width:2;fill:none"' if colour else ""
        self.elements.append(f'<polyline points="{path}" class="{kind}" {stroke}/>')

    def dot(self, x, y, colour):
        self.elements.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')

    def legend(self, x, y, names, colours):
        for name in names:
            self.bar(x, y - 9, 10, 10, colours[name])
            self.text(x + 15, y, name)
            x += 30 + 6.6 * len(name)

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}">\n' + "\n".join(self.elements) + "\n</svg>\n")


def number(text):
    """None where the table has none."""
    try:
        return float(text)
    except ValueError:
        return None


def unique(values):
    return list(dict.fromkeys(values))


def short(value):
    """Three digits at the most, as people write them."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


# ---- Peers: bars ----

def speed_ups(rows):
    """{engine: how many times as fast as ONNX Runtime in f32} of one network, by the times of one cell."""
    result = {}
    for row in rows:
        ratio, theirs, int8 = number(row["ratio"]), number(row["ort_f32_ms"]), number(row["ort_int8_ms"])
        if theirs:
            result.setdefault("ONNX Runtime f32", 1.0)
        if theirs and int8:
            result["ONNX Runtime int8"] = theirs / int8
        if ratio:
            result["libresnet " + row["precision"]] = 1 / ratio
    return result


def draw_bars(drawing, left, top, width, height, groups, colours):
    """groups: {network: {engine: value}}; each group is as wide as the others."""
    highest = max((value for bars in groups.values() for value in bars.values()), default=1)
    room = width / max(1, len(groups))
    for place, (network, bars) in enumerate(groups.items()):
        x, step = left + place * room + 0.06 * room, 0.88 * room / max(1, len(bars))
        drawing.text(left + (place + 0.5) * room, top + height + 16, network, "middle")
        for engine, value in bars.items():
            tall = value / highest * (height - 16)
            drawing.bar(x + 1, top + height - tall, step - 2, tall, colours[engine])
            drawing.text(x + step / 2, top + height - tall - 4, short(value), "middle")
            x += step
    drawing.line([(left, top + height), (left + width, top + height)], "grid")


def draw_peers(rows):
    cells = unique((row["threads"], row["batch"]) for row in rows)
    panels = {cell: {} for cell in cells}
    for cell in cells:
        here = [row for row in rows if (row["threads"], row["batch"]) == cell]
        for network in unique(row["network"] for row in here):
            panels[cell][network] = speed_ups([row for row in here if row["network"] == network])
    found = {name for groups in panels.values() for bars in groups.values() for name in bars}
    theirs = ["ONNX Runtime f32", "ONNX Runtime int8"]
    engines = [name for name in theirs + unique("libresnet " + row["precision"] for row in rows) if name in found]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(engines)}
    drawing = Drawing(960, 40 + 210 * len(cells))
    drawing.legend(20, 22, engines, colours)
    for place, (threads, batch) in enumerate(cells):
        top = 70 + 210 * place
        groups = {network: {name: bars[name] for name in engines if name in bars}
                  for network, bars in panels[threads, batch].items()}
        drawing.text(20, top - 16, f"Times as fast as ONNX Runtime in f32; threads: {threads}, batch: {batch}",
                     kind="title")
        draw_bars(drawing, 20, top, 920, 130, groups, colours)
    return drawing


# ---- Scaling: lines ----

TIME = ("ms a run", lambda row: number(row["median_ms"]))
MEMORY = ("resident MB", lambda row: number(row["peak_rss_mb"]))
# What grows, and the power of it that the work goes up with.
AXES = {"depth": ("depth (layers)", None), "batch": ("batch (images)", 1), "size": ("side (pixels)", 2),
        "threads": ("threads", None)}


class Panel:
    """A square of paper with logarithmic axes, and lines of (x, y) to draw on it."""

    def __init__(self, place, size, lines):
        (self.left, self.top), (self.width, self.height) = place, size
        xs = [x for line in lines.values() for x, _ in line]
        ys = [y for line in lines.values() for _, y in line]
        self.xs, self.x_range, self.y_range = unique(sorted(xs)), (min(xs), max(xs)), (min(ys) / 1.3, max(ys) * 1.3)

    @staticmethod
    def share(value, low_high):
        low, high = low_high
        return math.log(value / low) / math.log(high / low) if high > low else 0.5

    def at(self, x, y):
        return (self.left + self.width * self.share(x, self.x_range),
                self.top + self.height * (1 - self.share(y, self.y_range)))

    def ticks(self):
        """1, 2, 5, 10, ... as far as they are in the range; every other one where that would be many."""
        low, high = self.y_range
        all_ticks = [m * 10.0 ** e for e in range(-6, 9) for m in (1, 2, 5) if low <= m * 10.0 ** e <= high]
        return all_ticks if len(all_ticks) < 7 else [t for t in all_ticks if math.log10(t) % 1 < 1e-9]

    def draw_paper(self, drawing):
        for y in self.ticks():
            drawing.line([self.at(self.x_range[0], y), self.at(self.x_range[1], y)], "grid")
            drawing.text(self.left - 6, self.at(self.x_range[0], y)[1] + 4, short(y), "end")
        last = math.inf
        for x in reversed(self.xs):
            place = self.at(x, self.y_range[0])[0]
            if last - place > max(28, 9 * len(short(x)) - 8):  # the width of a number
                drawing.text(place, self.top + self.height + 16, short(x), "middle")
                last = place

    def draw_ideal(self, drawing, start, power):
        """What grows with the work: a line through `start`, cut at the panel's top."""
        x, y = start
        end = min(self.x_range[1], x * (self.y_range[1] / y) ** (1 / power))
        drawing.line([self.at(x, y), self.at(end, y * (end / x) ** power)], "ideal")


def lines_of(rows, axis, measure):
    """{precision: [(x, y), ...]}"""
    lines = {}
    for row in rows:
        x, y = number(row["value"]), measure(row)
        if row["grows"] == axis and x and y:
            lines.setdefault(row["precision"], []).append((x, y))
    return lines


def draw_scaling(rows):
    precisions = unique(row["precision"] for row in rows)
    colours = {name: COLOURS[2 + i % (len(COLOURS) - 2)] for i, name in enumerate(precisions)}
    drawing = Drawing(1080, 540)
    drawing.legend(50, 22, precisions, colours)
    drawing.text(1060, 22, "dashed: in proportion to the work", "end")
    for column, (axis, (title, power)) in enumerate(AXES.items()):
        for row, (name, measure) in enumerate((TIME, MEMORY)):
            lines = lines_of(rows, axis, measure)
            if not lines:
                continue
            panel = Panel((56 + 264 * column, 66 + 240 * row), (206, 176), lines)
            drawing.text(panel.left, panel.top - 12, f"{name} by {title}", kind="title")
            panel.draw_paper(drawing)
            for precision, points in lines.items():
                if power and measure is TIME[1]:
                    panel.draw_ideal(drawing, points[0], power)
                drawing.line([panel.at(*point) for point in points], colour=colours[precision])
                for point in points:
                    drawing.dot(*panel.at(*point), colours[precision])
    return drawing


# ---- Simulation: lines ----

def draw_simulation(rows):
    jobs = unique((row["workers"], row["images"]) for row in rows)
    colours = {"with --resume": COLOURS[2], "without": COLOURS[5]}
    drawing = Drawing(60 + 310 * len(jobs), 280)
    drawing.legend(50, 22, colours, colours)
    for column, job in enumerate(jobs):
        lines = {name: [(number(row["shard"]), number(row["loss_percent"])) for row in rows
                        if (row["workers"], row["images"], row["resume"]) == (*job, resume)]
                 for name, resume in zip(colours, ("yes", "no"))}
        panel = Panel((56 + 310 * column, 66), (236, 176), lines)
        drawing.text(panel.left, panel.top - 12, f"% lost by images a shard, workers: {int(job[0])}", kind="title")
        panel.draw_paper(drawing)
        for name, points in lines.items():
            drawing.line([panel.at(*point) for point in points], colour=colours[name])
            for point in points:
                drawing.dot(*panel.at(*point), colours[name])
    return drawing


# ---- Layers: bars beside their limits ----

def draw_layers(result):
    """What each layer took and, within it, its limit; without those that take less than 0.2 % of the time."""
    layers = [layer for layer in result["layers"] if layer["ms"] > 0.002 * result["median_ms"]]
    longest = max(max(layer["ms"], layer["limit_ms"]) for layer in layers)
    drawing = Drawing(960, 70 + 15 * len(layers))
    drawing.text(20, 20, f"{result['arch'] or result['model']}, {result['precision']}, {result['isa']}, threads: "
                 f"{result['threads']}, batch: {result['batch']}: {result['median_ms']:.2f} ms a run", kind="title")
    colours = {"products": COLOURS[2], "bytes": COLOURS[1]}
    names = {"limit: products": colours["products"], "limit: bytes": colours["bytes"], "time": COLOURS[0]}
    drawing.legend(20, 42, names, names)
    for place, layer in enumerate(layers):
        y = 58 + 15 * place
        drawing.text(166, y + 10, layer["name"], "end")
        drawing.bar(172, y, 560 * layer["ms"] / longest, 11, COLOURS[0])
        drawing.bar(172, y + 2.5, 560 * layer["limit_ms"] / longest, 6, colours[layer["limited_by"]])
        drawing.text(950, y + 10, f"{layer['ms']:.3f} ms, {100 * layer['share_of_limit']:.0f} % of its limit", "end")
    return drawing


# ---- A terminal ----

def draw_terminal(text):
    lines = text.rstrip("\n").split("\n")
    drawing = Drawing(720, 28 + 18 * len(lines))
    drawing.elements.append('<style>.line { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 13px; fill: #c9d1d9 }</style>'
                            f'<rect width="{drawing.width}" height="{drawing.height}" rx="8" fill="#0d1117"/>')
    for place, line in enumerate(lines):
        drawing.text(16, 26 + 18 * place, line, kind="line")
    return drawing


# ---- Program ----

def draw(file):
    """The drawing that belongs to what the open file holds; None where that is none of these."""
    if file.name.endswith(".txt"):
        return draw_terminal(file.read())
    if file.read(1) == "{":
        file.seek(0)
        result = json.load(file)
        return draw_layers(result) if "layers" in result else None
    file.seek(0)
    rows = list(csv.DictReader(file, delimiter="\t"))
    kinds = {"network": draw_peers, "grows": draw_scaling, "workers": draw_simulation}
    return kinds[next(iter(rows[0]))](rows) if rows and next(iter(rows[0])) in kinds else None


def main():
    parser = argparse.ArgumentParser(description="Draw what was measured or said.")
    parser.add_argument("input")
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()
    with open(arguments.input, encoding="utf-8", newline="") as file:
        drawing = draw(file)
    if not drawing:
        sys.exit(f"{arguments.input}: expected a table of bench_peers.sh, bench_scaling.sh or scale/simulate.py, "
                 "resnet bench --layers --json, or a text")
    with open(arguments.output, "w", encoding="utf-8") as file:
        file.write(drawing.svg())


if __name__ == "__main__":
    main()
