# SPDX-License-Identifier: MIT
"""What was measured, as text or as Markdown, and beside the goals."""
from slowdown import MODES, geometric_mean

# Medians of interleaved runs, geometric mean over the loops; by the kind of build.
SLOWDOWN_GOALS = {"plain": {"pyleak-1": 1.6, "pyleak-16": 2.0}, "PGO": {"pyleak-1": 1.8, "pyleak-16": 2.3}}
LESS_ADDED = 4
SAMPLE_BEYOND_HOOK = 0.10
SERVICE = 1.05
# By what the name of the loop begins with: all domains, and only Python's, in which the objects around the data are.
NATIVE_GOALS = {"native_arrays": {"pyleak-16": 1.10, "pyleak-domain-python": 1.05},
                "native_maps": {"pyleak-16": 2.0, "pyleak-domain-python": 1.03}}
ADDED_MEMORY = 0.35
FLAT = 1.2
SNAPSHOT_MS, STOP_MS, FIRST_ROW_MS = 50, 10, 300


class Writer:
    def __init__(self, markdown):
        self.markdown = markdown

    def heading(self, text):
        print("\n%s%s\n" % ("### " if self.markdown else "== ", text))

    def table(self, rows):
        """The first row is the head; the first column is left-aligned."""
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [cell.ljust(width) if i == 0 else cell.rjust(width)
                     for i, (cell, width) in enumerate(zip(row, widths))]
            print("| %s |" % " | ".join(cells) if self.markdown else "  ".join(cells).rstrip())
            if self.markdown and number == 0:
                print("|%s|" % "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)))

    def line(self, text):
        print("%s%s" % ("- " if self.markdown else "", text))


def ratio(summary, clock="cpu"):
    form = "%.2f (%.2f-%.2f)" if summary[clock] < 100 else "%.0f (%.0f-%.0f)"
    return form % (summary[clock], summary[clock + "_min"], summary[clock + "_max"])


def means(slowdown, clock="cpu"):
    return {mode: geometric_mean([s[clock] for s in loops.values()]) for mode, loops in slowdown["modes"].items()}


def print_slowdown(writer, python, part="slowdown"):
    slowdown = python.get(part, {"modes": {}, "left_out": {}})
    modes = [mode for mode in MODES if mode in slowdown["modes"]]
    if modes:
        loops = list(slowdown["modes"][modes[0]])
        what = "native memory: time" if part == "native" else "time"
        writer.heading("%s: %s over bare time, median (smallest-largest)" % (python["name"], what))
        rows = [["loop"] + [MODES[mode][0] for mode in modes]]
        # A process that is stopped at breakpoints takes no CPU time meanwhile.
        clocks = ["wall"] if part == "breakpoint" else ["cpu", "wall"]
        rows += [[loop.replace("_", " ")] + [ratio(slowdown["modes"][mode][loop], clocks[0]) for mode in modes]
                 for loop in loops]
        for clock in clocks:
            mean = means(slowdown, clock)
            rows.append(["geometric mean, %s time" % clock] + ["%.2f" % mean[mode] for mode in modes])
        if part == "breakpoint":
            added = [summary["us_per_event"] for summary in slowdown["modes"]["breakpoint"].values()]
            rows.append(["added for each allocation or free", "%.1f us" % geometric_mean(added)])
        writer.table(rows)
    print_left_out(writer, slowdown["left_out"])


def print_summary(writer, pythons):
    """A row for each Python: geometric means over the loops, and the range of the loops."""
    pythons = [python for python in pythons if python.get("slowdown", {}).get("modes")]
    modes = [mode for mode in MODES if any(mode in python["slowdown"]["modes"] for python in pythons)]
    if not modes:
        return
    writer.heading("Time over bare time: geometric mean over %d loops (best loop-worst loop)" %
                   max(len(loops) for python in pythons for loops in python["slowdown"]["modes"].values()))
    rows = [[""] + [python["name"] for python in pythons]]
    for mode in modes:
        row = [MODES[mode][0]]
        for python in pythons:
            values = [summary["cpu"] for summary in python["slowdown"]["modes"].get(mode, {}).values()]
            row.append("%.2f (%.2f-%.2f)" % (geometric_mean(values), min(values), max(values)) if values else "")
        rows.append(row)
    writer.table(rows)


def print_left_out(writer, left_out):
    for mode, reason in left_out.items():
        writer.line("left out: %s: %s" % (MODES[mode][0] if mode in MODES else mode, reason))


def print_service(writer, python):
    service = python.get("service")
    if service is None:
        return
    if service["modes"]:
        writer.heading("%s: a Flask service under load, over bare" % python["name"])
        rows = [["", "requests per second", "CPU time per request"]]
        for mode, found in service["modes"].items():
            rows.append([MODES[mode][0]] + ["%.3f (%.3f-%.3f)" % (v["median"], v["min"], v["max"]) for v in
                                            (found["rate"], found["cpu"])])
        writer.table(rows)
        writer.line("bare: %.0f requests per second" % service["bare_rate"])
    print_left_out(writer, service["left_out"])


def print_costs(writer, python):
    costs = python.get("costs")
    if not costs:
        return
    writer.heading("%s: other costs" % python["name"])
    rows = [["", "median", "smallest-largest"]]

    def row(name, unit, value):
        rows.append([name, "%.1f %s" % (value["median"], unit), "%.1f-%.1f" % (value["min"], value["max"])])
    row("start of pyleak to hooks in place", "ms", costs["attaching"]["planted"])
    row("start of pyleak to first row, removal included", "ms", costs["attaching"]["first row"])
    for threads, value in costs["stops"].items():
        row("longest stop, %s thread%s" % (threads, "" if threads == "1" else "s"), "ms", value)
    if "snapshot" in costs:
        row("snapshot and difference, {:,} live blocks".format(costs["snapshot"]["blocks"]), "ms", costs["snapshot"])
    for memory in costs["memory"]:
        for mode in "pyleak-1", "pyleak-16":
            found = memory[mode]
            live = "{:,}".format(memory["blocks"])
            rows.append(["memory added, %s blocks of 48 bytes, %s" % (live, MODES[mode][0]),
                         "%.1f %%" % (100 * found["added"]), ""])
            rows.append(["time per allocation and free, %s live over 10,000 live, %s" % (live, MODES[mode][0]),
                         "%.2f" % (found["ns_many"] / found["ns_few"]),
                         "bare %.2f" % (memory["bare"]["ns_many"] / memory["bare"]["ns_few"])])
            rows.append(["blocks counted, %s" % MODES[mode][0], str(found["counted"]["count"]), ""])
    writer.table(rows)


def goals(python):
    """[(what, measured, goal, met)]"""
    found = []
    modes = python.get("slowdown", {"modes": {}})["modes"]
    mean = means(python["slowdown"]) if modes else {}
    for mode, goal in SLOWDOWN_GOALS[python["build"]].items():
        if mode in mean:
            found.append(("%s, geometric mean" % MODES[mode][0], mean[mode], "<= %.1f" % goal, mean[mode] <= goal))
    for frames in "1", "16":
        ours, theirs = modes.get("pyleak-" + frames), modes.get("tracemalloc-" + frames)
        if ours and theirs:
            loop, least = min(((loop, (theirs[loop]["cpu"] - 1) / max(ours[loop]["cpu"] - 1, 0.001)) for loop in ours),
                              key=lambda pair: pair[1])
            found.append(("tracemalloc's added time over pyleak's, %s frame(s), worst loop (%s)" % (frames, loop),
                          least, ">= %d" % LESS_ADDED, least >= LESS_ADDED))
    if "hook" in modes and "pyleak-sample" in modes:
        loop, most = max(((loop, modes["pyleak-sample"][loop]["cpu"] - modes["hook"][loop]["cpu"])
                          for loop in modes["hook"]), key=lambda pair: pair[1])
        found.append(("--sample 512KiB beyond an empty hook, worst loop (%s)" % loop, most,
                      "<= %.2f" % SAMPLE_BEYOND_HOOK, most <= SAMPLE_BEYOND_HOOK))
    for mode, values in python.get("service", {}).get("modes", {}).items():
        # Of a service that is busy all the time; the rate also depends on what else the machine does.
        if not mode.startswith("pyleak"):
            continue
        slower = values["cpu"]["median"]
        found.append(("Flask, %s: CPU time per request over bare" % MODES[mode][0], slower, "<= %.2f" % SERVICE,
                      slower <= SERVICE))
    for mode, loops in python.get("native", {}).get("modes", {}).items():
        for loop, summary in loops.items():
            goal = next(goals for start, goals in NATIVE_GOALS.items() if loop.startswith(start)).get(mode)
            if goal:
                found.append(("%s, %s" % (loop.replace("_", " "), MODES[mode][0]), summary["cpu"], "<= %.2f" % goal,
                              summary["cpu"] <= goal))
    costs = python.get("costs")
    if costs:
        row, stop = costs["attaching"]["first row"]["median"], costs["stops"]["50"]["median"]
        found.append(("first row, ms", row, "<= %d" % FIRST_ROW_MS, row <= FIRST_ROW_MS))
        found.append(("longest stop with 50 threads, ms", stop, "<= %d" % STOP_MS, stop <= STOP_MS))
        if "snapshot" in costs:
            took = costs["snapshot"]["median"]
            found.append(("snapshot, ms", took, "<= %d" % SNAPSHOT_MS, took <= SNAPSHOT_MS))
        for memory in costs["memory"]:
            for mode in "pyleak-1", "pyleak-16":
                at = "%s, {:,} blocks".format(memory["blocks"]) % MODES[mode][0]
                value = memory[mode]
                flat = value["ns_many"] / value["ns_few"]
                found.append(("memory added, " + at, value["added"], "<= %.2f" % ADDED_MEMORY,
                              value["added"] <= ADDED_MEMORY))
                found.append(("time per allocation over that at 10,000 live, " + at, flat, "<= %.1f" % FLAT, flat <= FLAT))
                found.append(("counted exactly, " + at, value["counted"]["count"], "%d" % memory["blocks"],
                              value["counted"] == {"count": memory["blocks"], "size": 48 * memory["blocks"]}))
    return found


def print_all(results, markdown):
    writer = Writer(markdown)
    for python in results["pythons"]:
        print_slowdown(writer, python)
        print_slowdown(writer, python, "native")
        print_slowdown(writer, python, "breakpoint")
        print_service(writer, python)
        print_costs(writer, python)
        rows = [[what, "%.2f" % value if isinstance(value, float) else str(value), goal, "met" if met else "MISSED"]
                 for what, value, goal, met in goals(python)]
        if rows:
            writer.heading("%s: goals" % python["name"])
            writer.table([["", "measured", "goal", ""]] + rows)
    print_summary(writer, results["pythons"])
