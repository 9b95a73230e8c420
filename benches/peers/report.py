"""Figures as a page (docs/benchmarks.md between two marks) and as a plot of ratios (SVG)."""

import math
import platform
import subprocess
import time

PAGE = "docs/benchmarks.md"
PLOT = "docs/benchmarks.svg"
BEGIN = "<!-- benches/peers writes from here -->"
END = "<!-- to here -->"
# Whom each of ours is compared with: the peer that promises the same.
COMPARED = {
    "RabbitMQ, classic durable queue": "understudy",
    "ActiveMQ, KahaDB synced": "understudy",
    "RabbitMQ, quorum queue on three nodes": "understudy, pair in-sync",
}
# Key, heading, unit, whether more is better.
RATIOS = [
    ("rate", "throughput", True),
    ("cpu", "CPU per message", False),
    ("confirm_p50", "confirm p50", False),
    ("confirm_p99", "confirm p99", False),
    ("end_p50", "end to end p50", False),
    ("end_p99", "end to end p99", False),
]


def write(results):
    with open(PAGE) as file:
        text = file.read()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    with open(PAGE, "w") as file:
        file.write(f"{before}{BEGIN}\n{page(results)}{END}{after}")
    with open(PLOT, "w") as file:
        file.write(plot(results["works"]))
    print(f"wrote {PAGE} and {PLOT}")


def number(value, digits=None):
    if value is None:
        return "–"
    if digits is None:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def ratios(work):
    """Peer → {key: how many times better we are}."""
    found = {}
    for peer, ours in COMPARED.items():
        if peer in work["brokers"] and ours in work["brokers"]:
            theirs, mine = work["brokers"][peer], work["brokers"][ours]
            found[peer] = {
                key: (mine[key] / theirs[key] if more else theirs[key] / mine[key])
                for key, _, more in RATIOS if theirs.get(key) and mine.get(key)}
    return found


def versions():
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}, ", "rabbitmq-server", "activemq"]
    packages = subprocess.run(query, capture_output=True, text=True).stdout.strip(", ")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return packages, commit


def page(results):
    packages, commit = versions()
    cores = subprocess.run(["nproc"], capture_output=True, text=True).stdout.strip()
    day = time.strftime("%Y-%m-%d")
    lines = [
        f"Taken {day} at {commit} on {cores} cores ({platform.machine()}), {packages}. "
        "All brokers run, and take turns; medians of the rounds. Latencies in milliseconds. CPU is user and system time of all the broker's "
        "processes for each message published, confirmed, delivered and acknowledged; memory is their "
        "resident peak.",
        "",
        "![How many times better than the peer that promises the same](benchmarks.svg)",
        "",
    ]
    for work in results["works"]:
        lines += [f"### {work['title']}", "", f"{work['rounds']} rounds of {work['seconds']:g} s for each.", "",
                  "| broker | msg/s (spread) | CPU µs | confirm p50 / p99 | end to end p50 / p99 | memory MB (without file pages) |",
                  "|---|---|---|---|---|---|"]
        for name, row in work["brokers"].items():
            ms = [number(row[key] / 1e3 if row[key] else None) for key in
                  ("confirm_p50", "confirm_p99", "end_p50", "end_p99")]
            low, high = row["spread"]
            lines.append(
                f"| {name} | {number(row['rate'])} ({number(low)}–{number(high)}) | {number(row['cpu'])} | "
                f"{ms[0]} / {ms[1]} | {ms[2]} / {ms[3]} | {number(row['memory'])} ({number(row['anonymous'])}) |")
        for peer, found in ratios(work).items():
            text = ", ".join(f"{heading} {number(found[key], 1)}" for key, heading, _ in RATIOS if key in found)
            lines.append(f"\nTimes better than {peer}: {text}.")
        bad = [name for name, row in work["brokers"].items() if row["bad"]]
        if bad:
            lines.append(f"\nNot everything was delivered once and in order, or in time: {', '.join(bad)}.")
        lines.append("")
    return "\n".join(lines) + "\n"


def plot(works):
    """Bars on a logarithmic scale, 1 in the middle of nothing: the peer itself."""
    rows = []
    for work in works:
        for peer, found in ratios(work).items():
            rows.append((work["title"], peer, [(heading, found[key]) for key, heading, _ in RATIOS if key in found]))
    left, width, bar, top = 330, 520, 13, 60
    highest = max([value for _, _, bars in rows for _, value in bars] + [10])
    decades = math.ceil(math.log10(highest))

    def x(value):
        return left + width * (math.log10(max(value, 0.1)) + 1) / (decades + 1)

    body, y = [], top
    for title, peer, bars in rows:
        body.append(f'<text x="10" y="{y + 11}" class="t">{title}</text>')
        body.append(f'<text x="10" y="{y + 26}" class="p">against {peer}</text>')
        y += 34
        for heading, value in bars:
            start, end = sorted((x(1), x(value)))
            better = "b" if value >= 1 else "w"
            body.append(f'<text x="{left - 8}" y="{y + 10}" class="h">{heading}</text>'
                        f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{bar - 3}" class="{better}"/>'
                        f'<text x="{end + 5:.1f}" y="{y + 10}" class="v">{value:.1f}</text>')
            y += bar
        y += 14
    grid = []
    for power in range(-1, decades + 1):
        at = x(10.0 ** power)
        grid.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 12}" y2="{y}" class="g"/>'
                    f'<text x="{at:.1f}" y="{top - 18}" class="a">{10.0 ** power:g}</text>')
    style = ("text{font:11px sans-serif;fill:#222}.t{font-weight:bold}.p{fill:#666}.h,.a{fill:#444}.h{text-anchor:end}"
             ".a{text-anchor:middle}.b{fill:#2b7a4b}.w{fill:#b5482e}.g{stroke:#ccc}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{y + 10}">'
            f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="10" y="20" class="t">How many times better than the peer (logarithmic; 1 is the peer)</text>'
            + "".join(grid) + "".join(body) + "</svg>\n")
