"A map of the modules, drawn from the imports between them, that reads in light and dark mode and on a phone"
import html
import re

from .symbols import ground_floor

BOX, LANE, LINE, GAP, PAD = 262, 15, 18, 22, 8 # pixels: width of a box, between two lines, a line of text, between boxes, round the drawing
CHARS = 32 # of a line of text in a box


def wrap(
    text, # one sentence
):
    "Lines of a text that fit into a box"
    lines = ['']
    for w in re.sub('`', '', text).split():
        if len(lines[-1]) + len(w) + 1 > CHARS and lines[-1]: lines.append('')
        lines[-1] = f"{lines[-1]} {w}".strip()
    return lines


def lanes(
    spans, # {a module's number: the number of the last module that imports it}, counted from the top
):
    "A lane for each line, so that no two lie on one another: {module: lane}, short ones near the boxes"
    out = {}
    for a, b in sorted(spans.items(), key=lambda s: (s[1] - s[0], s)):
        busy = {n for c, n in out.items() if max(a, c) <= min(b, spans[c])}
        out[a] = next(i for i in range(len(spans)) if i not in busy)
    return out


def draw(
    modules, # in the order of their notebooks
):
    "The map as SVG: a box per module, the first on top; a line leads up to each module from all those that import it"
    num, texts = {m.name: i for i, m in enumerate(modules)}, [wrap(m.doc) for m in modules]
    heights = [38 + LINE*len(t) for t in texts]
    tops = [PAD + sum(heights[:i]) + GAP*i for i in range(len(modules))]
    uses = [sorted({num[o] for o in m.imports if o in num}) for m in modules]
    users = {i: [j for j, u in enumerate(uses) if i in u] for i in range(len(modules))}
    lane, parts = lanes({i: max(u) for i, u in users.items() if u}), []
    def leaves(j, i): # the height at which the line from j to i leaves the box of j: the lower half, the nearest lane first
        order = sorted(uses[j], key=lane.get)
        return tops[j] + heights[j]*(.4 + .5*(order.index(i) + 1)/(len(order) + 1))
    for i, n in lane.items():
        x, y = BOX + 24 + LANE*n, tops[i] + heights[i]*.25
        for j in users[i]:
            end = leaves(j, i)
            way = f"M{BOX + 1} {end:.1f}H{x - 6}Q{x} {end:.1f} {x} {end - 6:.1f}V{y + 6:.1f}Q{x} {y:.1f} {x - 6} {y:.1f}H{BOX + 8}"
            parts.append(f'<path class="edge from-{modules[j].name} to-{modules[i].name}" d="{way}" marker-end="url(#arrow)"/>')
    for m, t, top, h in zip(modules, texts, tops, heights):
        lines = ''.join(f'<text class="job" x="14" y="{top + 44 + LINE*i}">{html.escape(o)}</text>' for i, o in enumerate(t))
        parts.append(f'<a href="{m.page}.html" class="node" id="map-{m.name}"><rect x="2" y="{top}" width="{BOX - 2}" height="{h}" rx="7"/>'
                     f'<text class="name" x="14" y="{top + 23}">{m.name}</text>{lines}</a>')
    width, height = BOX + 34 + LANE*max(lane.values(), default=0), tops[-1] + heights[-1] + PAD
    bold = '{stroke:var(--sl-accent);stroke-width:2.5}'
    hover = ''.join(f".sl-map:has(#map-{m.name}:is(:hover,:focus)) .from-{m.name}{bold}" for m in modules)
    said = '; '.join(f"{m.name} imports {', '.join(m.imports) or 'none of the others'}" for m in modules)
    arrow = '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse"' \
            ' orient="auto"><path d="M0 0 8 4 0 8z"/></marker>'
    return f'<svg class="sl-map" viewBox="0 0 {width} {height}" role="group" aria-label="{said}">' \
           f'<style>{hover}</style><defs>{arrow}</defs>\n' + '\n'.join(parts) + '\n</svg>'


def page(
    modules, # in the order of their notebooks
    package, # the package's name
):
    "The map's page, as Quarto Markdown"
    modules = sorted(modules, key=lambda m: not ground_floor(m.notebook))   # what everybody stands on comes first
    rows = [f"| [`{m.name}`](reference/{m.name}.qmd) | [{m.page}]({m.page}.ipynb) | {m.doc} | {', '.join(f'`{o}`' for o in m.imports)} |"
            for m in modules]
    return f"""---
title: Map of the modules
description: What stands on what in {package}, and what each module is for
---

Each box is one module of the package and leads to the page that builds it. The line that enters a box from
the right comes from all modules that import it. Every line leads up, since a page uses only what earlier pages have built; the ground
floor, small tools that every page may use, stands at the top. Point at a
box to see what it imports.

```{{=html}}
<figure class="sl-mapbox">
{draw(modules)}
</figure>
```

The same in words, with a link to each module's reference:

::: {{.sl-scroll}}
| module | page | what it is for | imports |
|--|--|--|--|
{chr(10).join(rows)}
:::
"""
