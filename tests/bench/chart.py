"""A picture of the measured paths: bars of requests per second, drawn as SVG.

A line at the end of a bar goes from the slowest to the fastest round. The colors are chosen so
that the picture can be read on light and on dark ground.
"""
from html import escape

WIDTH = 900
NAME_WIDTH = 150
BAR_WIDTH = 430
ROW = 22
TITLE = 40
MARGIN = 20

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; }
  .quiet { fill: #59636e; }
  .other { fill: #8c959f; }
  .ours { fill: #2f81f7; }
  .range { stroke: #1f2328; stroke-width: 1.5; }
  .ground { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .other { fill: #6e7681; }
    .range { stroke: #e6edf3; }
    .ground { fill: #0d1117; }
  }
"""


def draw(summary, titles, is_ours):
    """`summary` as report.summary() has it; paths without requests per second are left out."""
    paths = {path: {name: figures for name, figures in rows.items()
                    if "requests_per_s" in figures} for path, rows in summary.items()}
    body = []
    top = MARGIN
    for path, rows in paths.items():
        if rows:
            body += draw_path(titles.get(path, path), rows, top, is_ours)
            top += TITLE + ROW * len(rows) + MARGIN
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
            f'viewBox="0 0 {WIDTH} {top}">\n<style>{STYLE}</style>\n'
            f'<rect class="ground" width="100%" height="100%"/>\n' + "\n".join(body) + "\n</svg>\n")


def draw_path(title, rows, top, is_ours):
    longest = max(figures["requests_per_s"]["max"] for figures in rows.values())
    parts = [text(MARGIN, top + 14, title, "title"),
             text(MARGIN, top + 30, "requests per second; processor time of a request", "quiet")]
    for index, (name, figures) in enumerate(sorted(rows.items())):
        y = top + TITLE + index * ROW
        found = figures["requests_per_s"]
        left, scale = MARGIN + NAME_WIDTH, BAR_WIDTH / longest
        kind = "ours" if is_ours(name) else "other"
        parts += [
            text(MARGIN, y + 13, name),
            f'<rect class="{kind}" x="{left}" y="{y}" height="{ROW - 6}" '
            f'width="{found["median"] * scale:.1f}"/>',
            f'<line class="range" x1="{left + found["min"] * scale:.1f}" y1="{y + 8}" '
            f'x2="{left + found["max"] * scale:.1f}" y2="{y + 8}"/>',
            text(left + BAR_WIDTH + 10, y + 13, label_of(figures))]
    return parts


def label_of(figures):
    label = f"{figures['requests_per_s']['median']:,.0f}"
    costs = [f"{figures[key]['median']:.2f} µs {who}"
             for key, who in (("proxy_us", "proxy"), ("server_us", "server")) if key in figures]
    return "; ".join([label, ", ".join(costs)])


def text(x, y, content, kind=""):
    mark = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{mark}>{escape(content)}</text>'
