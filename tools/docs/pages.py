"A notebook as a page of the site: what it is about, how long it takes, its code folded, its names linked"
import ast
import html
import json
import re
from itertools import groupby

import yaml
from execnb.nbio import mk_cell, read_nb, write_nb
from nbdev.processors import FilterDefaults

from .cells import EXPORTED, HIDDEN, first_check, imported, kinds, statements

LONG = 15 # lines of code; a longer cell is folded
WORDS_A_MINUTE, LINES_A_MINUTE = 220, 25 # reading English prose; following code that one means to understand
COLAB = 'https://colab.research.google.com/github/'
GITHUB = 'https://github.com/'
REPLACED = 'insert_warning exec_show_docs add_links add_fold mv_exports'.split() # what we do in our own way; nothing is executed
SHOW_DOC = re.compile(r'^show_doc\(([\w.]+)', re.M)
OPTION = re.compile(r'^#\| *([\w-]+): *(.*)$', re.M)
LINK = re.compile(r'(\]\()([^)\s#]+)(#[^)\s]*)?(\))')


class Procs(FilterDefaults):
    "nbdev's processing of a page, without running anything"
    def base_procs(self): return [p for p in super().base_procs() if p.__name__ not in REPLACED]


def is_lesson(notebook): return notebook[0].isdigit()   # the others are the index and the glossary


def minutes(
    seconds, # how long something takes
):
    "A duration for people"
    if seconds < 90: return f"{max(1, round(seconds))} s"
    return f"{seconds/60:.0f} min" if seconds < 5400 else f"{seconds/3600:.1f} hours"


def reading_minutes(
    cells, # a page's cells
):
    "How long a page takes to read: its words, and its lines of code"
    words = sum(len(c.source.split()) for c in cells if c.cell_type == 'markdown')
    code = [c for c in cells if c.cell_type == 'code' and c.get('kind') != 'imports']
    lines = sum(1 for c in code for o in c.source.splitlines() if o.strip() and not o.startswith('#|'))
    return words/WORDS_A_MINUTE + lines/LINES_A_MINUTE


def running_time(
    records, # what tools/run_notebooks.py has written about this page
):
    "How long the page takes to run on two cores and on a GPU, in words; no words where that has not been measured"
    def one(r): return minutes(r['seconds']) + (' with its long runs' if r['slow'] else '')
    def said(rs): return ', '.join(map(one, sorted(rs, key=lambda r: r['slow'])))
    cpu = [r for r in records if r['device'] == 'cpu' and r['cores'] == 2]
    return said(cpu), said([r for r in records if r['device'] != 'cpu'])


def head(
    notebook, # the notebook's file name
    mins, # reading time, minutes
    times, # running times in words: on two cores, on a GPU
    cfg, # nbdev's config
):
    "The row under a page's title: times, and what one can do with the page"
    colab = f"{cfg.git_url.replace(GITHUB, COLAB)}/blob/{cfg.branch}/{cfg.nbs_path.name}/{notebook}"
    facts = [('To read', f"about {max(1, round(mins))} min")]
    if is_lesson(notebook): facts += [('To run on two cores', times[0]), ('On a GPU', times[1])]
    said = ''.join(f'<div><dt>{k}</dt><dd>{v}</dd></div>' for k, v in facts if v)
    return raw(f"""<div class="sl-head"><dl>{said}</dl><div class="sl-do">
<a class="sl-colab" href="{colab}">Open in Colab</a>
<a class="sl-download" href="notebooks/{notebook}" download>Download the notebook</a>
<button type="button" class="sl-unfold" hidden>Show all code</button>
</div></div>""")


def raw(
    text, # HTML
):
    "A cell of HTML, passed through as it is"
    return mk_cell(f"```{{=html}}\n{text}\n```", 'markdown')


def definition(
    name, # a name that the next cell defines
    symbols, # {name: symbol}
    cfg, # nbdev's config
):
    "The line above a definition: its name, linked to the reference, and to the line on GitHub"
    s = symbols.get(name)
    if s is None: return f"::: {{#{name.lower()} .sl-def}}\n`{name}`\n:::"
    ref = f"reference/{s.module}.qmd#{s.name}"
    return f"::: {{#{s.anchor} .sl-def}}\n[`{name}`]({ref}){{.sl-name}} [source]({source_url(s, cfg)}){{.sl-source}}\n:::"


def source_url(
    symbol, # a public name
    cfg, # nbdev's config
):
    "Its lines on GitHub"
    a, b = symbol.lines
    return f"{cfg.git_url}/blob/{cfg.branch}/{cfg.lib_path.name}/{symbol.module}.py#L{a}-L{b}"


def is_private(name): return name.startswith('_') and not name.startswith('__')


def summary(
    code, # lines of a code cell
):
    "What a folded cell says: what the first thing that it defines is for, or the names that it sets, and its length"
    text = '\n'.join(code)
    try: defs = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    except SyntaxError: defs = []   # a magic
    docs = [ast.get_docstring(n) for n in sorted(defs, key=lambda n: is_private(n.name)) if ast.get_docstring(n)]
    names = list(dict.fromkeys(a or b for a, b in re.findall(r'^(?:class|def) (\w+)|^(\w+) *=(?!=)', text, re.M)))
    what = docs[0].partition('\n')[0].replace('`', '') if docs else ', '.join(names[:3]) + (' …' if len(names) > 3 else '')
    return f"{what}{' · ' if what else ''}{len(code)} lines"


def fold(
    cell, # a code cell
):
    "Fold a long cell"
    code = [o for o in cell.source.strip().splitlines() if not o.startswith('#|')]
    if len(code) <= LONG or 'code-fold' in dict(OPTION.findall(cell.source)): return
    cell.source = f"#| code-fold: true\n#| code-summary: {json.dumps(summary(code), ensure_ascii=False)}\n{cell.source}"


def folded(
    kind, # 'imports', 'checks' or 'solution'
    said, # what the one line says that is left to see: HTML
    cells, # what it hides
):
    "Cells behind a line that opens them"
    every = '' if kind == 'solution' else 'code-fold '   # what the page's switch opens: all but solutions
    return [raw(f'<details class="{every}sl-{kind}"><summary>{said}</summary>'), *cells, raw('</details>')]


def fold_kinds(
    cells, # a page's cells; each that is more than story knows its `kind`
    package, # this package's name
):
    "Fold imports to one line, checks to their first, and solutions; cells of imports that stand together become one"
    out = []
    for kind, group in groupby(cells, key=lambda c: c.get('kind')):
        group = list(group)
        if kind is None: out += group
        elif kind == 'solution': out += folded(kind, 'Solution', group)
        elif kind == 'imports':
            one = group[0]
            one.source = '\n\n'.join(c.source.strip() for c in group)
            names = ', '.join(imported(statements(one.source), package))
            out += folded(kind, f'imports <code>{html.escape(names)}</code>', [one])
        else:
            for c in group:
                line = c.source.splitlines()[first_check(statements(c.source)).lineno - 1].strip()
                out += folded(kind, f'checks <code>{html.escape(line)}</code>', [c])
    return out


def describe(
    cell, # a code cell
    section, # the title of its section
):
    """Give each picture its description: the cell's `fig-alt`, one text or a list of one per picture, or else at least where it belongs;
    and mark the one that `live` is about"""
    pics = [o for o in cell.get('outputs', []) if 'image/png' in o.get('data', {}) or 'image/svg+xml' in o.get('data', {})]
    options = dict(OPTION.findall(cell.source))
    if not pics or 'fig-cap' in options: return
    alts = yaml.safe_load(options.get('fig-alt', '')) or f"A picture in the section “{section}”; the text around it says what it shows"
    alts = [alts]*len(pics) if isinstance(alts, str) else alts + alts[-1:]*len(pics)
    live = [options.get('live', '')] + ['']*len(pics)   # the first picture of a cell is what `live` is about
    for o, alt, name in zip(pics, alts, live): o['data'] = {'text/html': [picture(o['data'], html.escape(str(alt)), name)]}
    cell.source = re.sub(r'^#\| *(fig-alt|live):.*\n', '', cell.source, flags=re.M)


def picture(
    data, # a cell's output: {type: what it holds}
    alt, # what it shows
    live='', # the name of the figure that it can become
):
    "A picture as HTML; tools/docs/finish.py moves it to a file, tools/docs/live.py makes it live"
    figure = f'<figure class="figure" data-live="{live}"' if live else '<figure class="figure"'
    if 'image/svg+xml' in data: return f'{figure} role="img" aria-label="{alt}">{"".join(data["image/svg+xml"])}</figure>'
    png = ''.join(data['image/png']).replace('\n', '')
    return f'{figure}><img alt="{alt}" src="data:image/png;base64,{png}" class="img-fluid"></figure>'


def arrange(
    cells, # a page's cells
    symbols, # {name: symbol}
    cfg, # nbdev's config
):
    "Put one line per definition above the cell that defines it, where nbdev puts its tables after it"
    out, waiting = [], []
    for c in reversed(cells):
        m = c.cell_type == 'code' and SHOW_DOC.search(c.source)
        if m:
            waiting.insert(0, m[1])
            continue
        out.append(c)
        if c.cell_type == 'code' and waiting and defines(c, waiting):
            out += [mk_cell(definition(n, symbols, cfg), 'markdown') for n in reversed(waiting)]
            waiting = []
        elif waiting:   # the cell that defines them is not shown
            out.pop()
            out += [mk_cell(definition(n, symbols, cfg), 'markdown') for n in reversed(waiting)] + [c]
            waiting = []
    out += [mk_cell(definition(n, symbols, cfg), 'markdown') for n in reversed(waiting)]
    return out[::-1]


def defines(cell, names): return any(re.search(rf'^(?:class|(?:async )?def) {n.rpartition(".")[2]}\b', cell.source, re.M) for n in names)


def lift_intro(
    cells, # a page's cells, without its front matter
):
    "Take out what the page says of itself before its first section, and put it first, marked as what the reader will learn"
    for i, c in enumerate(cells):
        if c.cell_type != 'markdown' or c.source.startswith((':::', '```{=html}')): continue
        m = re.search(r'^##+ ', c.source, re.M)
        intro, rest = (c.source[:m.start()].strip(), c.source[m.start():]) if m else (c.source.strip(), '')
        if not intro: return None, cells
        left = [mk_cell(rest, 'markdown')] if rest else []
        box = f"::: {{.sl-learn}}\n[What you will learn]{{.sl-title}}\n\n{intro}\n:::"
        return mk_cell(box, 'markdown'), [*cells[:i], *left, *cells[i+1:]]
    return None, cells


def relink(
    text, # Markdown
    names, # {a notebook's file name: what its page is called}
    base, # where the site is published, with a slash at the end
):
    "Links to other notebooks, by the names that their pages go by; links to the published site lead into this one"
    return LINK.sub(lambda m: f"{m[1]}{names.get(m[2], m[2])}{m[3] or ''}{m[4]}", text.replace(f"]({base}", ']('))


def notebook_page(
    path, # a notebook
    dest, # where the page's source goes
    site, # what is known of the whole site
):
    "Write one notebook as the source of a page"
    nb = read_nb(path)
    module = site.module_of(path.name)
    for c, kind in zip(nb.cells, kinds(nb.cells)):
        if kind: c['kind'] = kind
        if kind == 'imports' and not HIDDEN.search(c.source): c.source = EXPORTED.sub('', c.source)   # who reads `F.relu` may ask
    Procs()(nb)
    front, cells = (nb.cells[:1], nb.cells[1:]) if nb.cells and nb.cells[0].cell_type == 'raw' else ([], nb.cells)
    mins, section = reading_minutes(cells), path.stem
    cells = arrange(cells, site.symbols, site.cfg)
    intro, cells = lift_intro(cells) if is_lesson(path.name) else (None, cells)
    if is_lesson(path.name) and intro is None:
        site.lacking.append(f"{path.name}: no words before its first section say what the reader will learn")
    for c in [*([intro] if intro else []), *cells]:
        if c.cell_type == 'markdown':
            c.source = site.links.markdown(relink(c.source, site.names, site.base), module)
            for m in re.finditer(r'^##+ +(.*)$', c.source, re.M): section = m[1]
        elif c.cell_type == 'code':
            describe(c, section)
            if 'kind' not in c: fold(c)
            for o in c.get('outputs', []):
                md = o.get('data', {}).get('text/markdown')
                if md: o['data']['text/markdown'] = site.links.markdown(relink(''.join(md), site.names, site.base), module).splitlines(True)
    row = head(path.name, mins, running_time(site.records.get(path.name, [])), site.cfg)
    nb.cells = [*front, row, *([intro] if intro else []), *fold_kinds(cells, site.cfg.lib_path.name)]
    for i, c in enumerate(nb.cells):
        c['id'] = f"{path.stem}-{i}"[-64:]
        c.pop('kind', None)
    write_nb(nb, dest)
