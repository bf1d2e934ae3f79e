"""Pictures of the file of results: python3 tests/bench/plots.py [RESULTS [FOLDER]] draws them into docs/.

Each picture that figures.py names is drawn by the function of its name; one whose rows were never measured is left as it
is. The same results give the same bytes, whenever they are drawn with the same matplotlib: no date, no random names;
letters stay letters.
"""
import pathlib
import sys

import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

import results  # noqa: E402
from figures import NAMES, PICTURES, median  # noqa: E402

plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "echovault", "font.family": "sans-serif", "font.size": 8,
                     "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
                     "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
                     "axes.axisbelow": True, "grid.color": "#e4e4e4", "axes.titlesize": 9, "legend.frameon": False})
COLOURS = {"redis": "#c0392b", "memcached": "#7f8c3d", "echovault": "#1f5fa8", "echovault-plain": "#7fb2e5",
           "bare": "#555555", "bare-batched": "#aaaaaa"}


def panels(count, height=2.5, **options):
    figure, axes = plt.subplots(1, count, figsize=(7.4, height), squeeze=False, **options)
    return figure, list(axes[0])


def finish(figure, axes):
    """One legend for all panels, below them."""
    shown = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels())}
    figure.legend(shown.values(), shown.keys(), loc="lower center", ncol=len(shown), handlelength=1.2, columnspacing=1.2,
                  handletextpad=0.4)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    return figure


def bars(axes, groups):
    """groups: {group: {server: number}}."""
    names = list(dict.fromkeys(name for each in groups.values() for name in each))
    width = 0.84 / len(names)
    for i, name in enumerate(names):
        at = [(g + (i - (len(names) - 1) / 2) * width, each[name]) for g, each in enumerate(groups.values()) if name in each]
        axes.bar([x for x, _ in at], [y for _, y in at], width * 0.92, color=COLOURS[name], label=NAMES[name])
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)


def lines(axes, points):
    """points: {server: [(x, y), ...]}."""
    for name, each in points.items():
        axes.plot([x for x, _ in each], [y for _, y in each], "-o", markersize=3, linewidth=1.3, label=NAMES[name],
                  color=COLOURS[name])


def by_server(cases, x, y):
    """For lines(): x of a case and y of its runs, for every server."""
    points = {}
    for case in cases:
        for name, each in case["runs"].items():
            points.setdefault(name, []).append((case[x], y(case, each)))
    return points


def short(number, _=None):
    """1000000 as 1M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:g}{letter}"
    return f"{number:g}"


def short_bytes(number, _=None):
    for unit, letter in ((1 << 20, " MB"), (1 << 10, " KB")):
        if number >= unit:
            return f"{number / unit:g}{letter}"
    return f"{number:g} B"


def by_pipeline(rows, field, title):
    cases = [case for case in rows["cpu"] if case["generator"] == "load"]
    pipelines = list(dict.fromkeys(case["pipeline"] for case in cases))
    figure, axes = panels(len(pipelines))
    for one, pipeline in zip(axes, pipelines):
        bars(one, {case["op"].upper(): {name: median(each, field) for name, each in case["runs"].items()}
                   for case in cases if case["pipeline"] == pipeline})
        one.set_title("no pipeline" if pipeline == 1 else f"{pipeline} in a pipeline")
    axes[0].set_ylabel(title)
    return figure, axes


def cpu(rows):
    """CPU time an operation."""
    return finish(*by_pipeline(rows, "cpu_us", "CPU microseconds an operation"))


def throughput(rows):
    """Operations a second."""
    figure, axes = by_pipeline(rows, "rps", "operations a second, one core")
    for one in axes:
        one.yaxis.set_major_formatter(FuncFormatter(short))
    return finish(figure, axes)


def memory(rows):
    """Memory a key, and over a table's growth."""
    figure, (still, growing) = panels(2)
    bars(still, {label: rows["memory"][op] for op, label in (("set", "without TTL"), ("setex", "with TTL"))})
    still.set_title("resident bytes a key above 16+16")
    steps = rows["footprint"]
    lines(growing, {name: [(one["keys"], one["bytes"][name]) for one in steps] for name in steps[0]["bytes"]})
    growing.set_title("as a table grows, without TTL")
    growing.set_ylim(bottom=0)
    growing.set_xlabel("keys")
    growing.xaxis.set_major_formatter(FuncFormatter(short))
    return finish(figure, [still, growing])


def latency(rows):
    """Latency percentiles under load."""
    figure, axes = panels(len(rows["latency"]), sharey=True)
    points = ("p50", "p99", "p99.9", "max")
    for one, case in zip(axes, rows["latency"]):
        lines(one, {name: [(point, median(each, point) / 1000) for point in points]
                    for name, each in case["runs"].items() if name in NAMES})
        one.set_title(case["phase"].replace(", ", ",\n"))
        one.set_yscale("log")
        one.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes[0].set_ylabel("milliseconds")
    return finish(figure, axes)


def values(rows):
    """Bytes a second by the length of values."""
    figure, axes = panels(2, sharey=True)
    for one, op in zip(axes, ("set", "get")):
        lines(one, by_server([case for case in rows["values"] if case["op"] == op], "size",
                             lambda case, each: median(each, "rps") * case["size"] / 1e6))
        one.set_title(op.upper())
        one.set_xscale("log", base=2)
        one.set_yscale("log")
        one.set_xticks(sorted({case["size"] for case in rows["values"]}))
        one.xaxis.set_major_formatter(FuncFormatter(short_bytes))
        one.yaxis.set_major_formatter(FuncFormatter(short))
    axes[0].set_ylabel("megabytes a second")
    return finish(figure, axes)


def keys(rows):
    """CPU time of a GET by the number of keys."""
    cases = [case for case in rows["keys"] if case["op"] == "get"]
    kinds = list(dict.fromkeys((case["pipeline"], case["zipf"]) for case in cases))
    figure, axes = panels(len(kinds), height=2.6)
    for one, (pipeline, zipf) in zip(axes, kinds):
        lines(one, by_server([case for case in cases if (case["pipeline"], case["zipf"]) == (pipeline, zipf)], "keys",
                             lambda _, each: median(each, "cpu_us")))
        one.set_title(f"GET, {f'{pipeline} in a pipeline' if pipeline > 1 else 'no pipeline'}{f', Zipf {zipf}' if zipf else ''}")
        grow_from_zero(one, "keys")
    axes[0].set_ylabel("CPU microseconds")
    return finish(figure, axes)


def grow_from_zero(axes, label):
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.minorticks_off()


def connections(rows):
    """CPU time of a GET, and GETs a second, by the number of connections."""
    cases = [case for case in rows["connections"] if case["op"] == "get"]
    figure, axes = panels(2)
    for one, (field, title) in zip(axes, (("cpu_us", "CPU microseconds of a GET, no pipeline"), ("rps", "GETs a second"))):
        lines(one, by_server(cases, "connections", lambda _, each, field=field: median(each, field)))
        one.set_title(title)
        grow_from_zero(one, "connections, all busy")
    axes[1].yaxis.set_major_formatter(FuncFormatter(short))
    return finish(figure, axes)


def draw_all(entries, folder):
    folder.mkdir(exist_ok=True)
    for name, (_, _, rows) in PICTURES.items():
        if set(rows) <= set(entries):
            figure = globals()[name]({row: entries[row]["figures"] for row in rows})
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            plt.close(figure)


if __name__ == "__main__":
    given = [pathlib.Path(word) for word in sys.argv[1:]]
    draw_all(results.read(given[0] if given else results.FILE),
             given[1] if len(given) > 1 else results.FILE.parents[2] / "docs")
