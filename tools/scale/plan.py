#!/usr/bin/env python3
"""Print the planning page's tables from what measure.sh has measured; with -o tools/scale/README.md, put them into the page.

All that is assumed is in the constants: how many cores a machine has, and what its link to the storage carries.
"""
import argparse
import pathlib
import re

import simulate

CORES = 32  # of a machine, each as fast as those measured
LINK = 125e6  # bytes a second that a machine's link to the storage carries: 1 Gbit/s
JOBS = ((100_000_000, "100 million", (1, 10, 100)), (1_000_000_000, "a billion", (1, 10, 100)))  # images, machines
SETS = {"val": "small", "photos": "large"}  # folders of measure.sh, as the page calls them
BLOCK = re.compile(r"(<!-- tables of plan.py -->\n).*(<!-- end of the tables -->\n)", re.S)


def read_figures():
    """{model or set: {figure: value}}"""
    figures = {}
    for row in simulate.read_table(simulate.MEASURED / "scale.tsv"):
        figures.setdefault(row["of"], {})[row["figure"]] = float(row["value"])
    return figures


def short(value):
    """Three digits, as people write them."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_table(heads, rows):
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)] + rows
    return "\n".join("| " + " | ".join(cell if isinstance(cell, str) else short(cell) for cell in line) + " |"
                     for line in lines)


# ---- Tables ----

def photographs_table(sets):
    return format_table(["photographs", "bytes an image", "decode, ms", "resize, ms"],
                        [[SETS[name], figures["bytes"], figures["decode_ms"], figures["resize_ms"]]
                         for name, figures in sets.items()])


def preparation_share(model, photographs):
    """What decoding takes of a core's time, and resizing."""
    parts = photographs["decode_ms"], photographs["resize_ms"]
    whole = sum(parts) + 1e3 / model["network"]
    return [part / whole for part in parts]


def models_table(models, sets):
    rows = []
    for name, model in models.items():
        shares = [" + ".join(f"{100 * share:.0f}" for share in preparation_share(model, photographs)) + " %"
                  for photographs in sets.values()]
        rows.append([name, model["network"], *(model[of] for of in sets), *shares, model["memory_mb"], model["start_s"]])
    return format_table(["images a second a core", "network alone", *(f"worker, {SETS[name]}" for name in sets),
                         *(f"decode + resize, {SETS[name]}" for name in sets), "MB a worker", "start, s"], rows)


def limits_table(models, sets):
    """What takes most of a core, and when the storage does not keep up."""
    rows = []
    for name, model in models.items():
        for of, photographs in sets.items():
            times = {"decoding": photographs["decode_ms"], "resizing": photographs["resize_ms"],
                     "the network": 1e3 / model["network"]}
            rate = model[of] * photographs["bytes"]
            rows.append([f"{name}, {SETS[of]}", max(times, key=times.get), rate / 1e6, LINK / rate])
    return format_table(["model, photographs", "a core is busiest with", "MB/s a core reads", "cores that fill 1 Gbit/s"],
                        rows)


def jobs_table(models, sets):
    """Hours of each job by machines, and how much they read."""
    heads = ["model, photographs"]
    for _, name, machines in JOBS:
        heads += [f"{name}: TB to read", *(f"hours on {count:,} machine{'s' * (count > 1)}" for count in machines)]
    rows = []
    for name, model in models.items():
        for of, photographs in sets.items():
            row = [f"{name}, {SETS[of]}"]
            for images, _, machines in JOBS:
                row += [images * photographs["bytes"] / 1e12,
                        *(images / (model[of] * CORES * count * 3600) for count in machines)]
            rows.append(row)
    return format_table(heads, rows)


def make_tables():
    figures = read_figures()
    models = {name: values for name, values in figures.items() if "network" in values}
    sets = {name: figures[name] for name in SETS}
    tables = {"What an image takes before the network, on a core:": photographs_table(sets),
              "Workers of one thread, one for each core at the same time:": models_table(models, sets),
              "What limits first:": limits_table(models, sets),
              f"The job, on machines of {CORES} such cores, before losses:": jobs_table(models, sets),
              "Time lost, in per cent of the ideal, with `--resume` / without:":
                  simulate.markdown(simulate.read_table(simulate.MEASURED / "simulation.tsv"))}
    return "".join(f"\n{caption}\n\n{table}\n" for caption, table in tables.items()) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Print the tables of the planning page.")
    parser.add_argument("-o", "--output", help="the page to put them into")
    output, tables = parser.parse_args().output, make_tables()
    print(tables)
    if output:
        page = pathlib.Path(output)
        text = BLOCK.sub(lambda found: found[1] + tables + found[2], page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
