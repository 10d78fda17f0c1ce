"Render nbs/index.ipynb as README.md: `python tools/readme.py`; with `--check`, only say whether the two are equal"
import argparse
import base64
import difflib
import os
import re
import sys
from pathlib import Path

import yaml
from execnb.nbio import read_nb
from nbdev.config import get_config
from nbdev.process import extract_directives

HEAD = '<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook. -->'
LINK = re.compile(r'(\]\(|\b(?:src|href)=")([^)"\s]+)')
ALT = re.compile(r'^\s*#\s*\|\s*fig-alt:\s*(.+)', re.M)


def relink(
    text, # Markdown or HTML, with links as seen from the notebooks' folder
    cfg, # nbdev's config
):
    "Turn links to files beside the notebook into links from the top of the project; a link to a file that isn't there is an error"
    def one(m):
        target, hash_, anchor = m[2].partition('#')
        if not target or re.match(r'[a-z][a-z0-9+.-]*:|//', target): return m[0]
        path = os.path.normpath(cfg.nbs_path/target)
        if not os.path.exists(path): raise ValueError(f"{cfg.readme_nb}: a link leads to {target}, which is not there: mend the link")
        return m[1] + os.path.relpath(path, cfg.config_path).replace(os.sep, '/') + hash_ + anchor
    return LINK.sub(one, text)


def alt_text(
    source, # of a cell
    i, # the number of one of its outputs
):
    "What `#| fig-alt` says of that output: one text for all, or a list with one for each, as Quarto reads it"
    found = ALT.search(source)
    alt = yaml.safe_load(found[1]) if found else ''
    return (alt[i] if i < len(alt) else '') if isinstance(alt, list) else alt


def render_output(
    out, # one output of a cell
    name, # what a picture in it is to be called
    alt, # what one sees on it, for those who don't
    cfg, # nbdev's config
):
    "One output as Markdown, and the pictures to write: {path under the notebooks' folder: bytes}"
    text = lambda x: ''.join(x).rstrip('\n')
    if out['output_type'] == 'stream': return f"```\n{text(out['text'])}\n```", {}
    if out['output_type'] == 'error': raise ValueError(f"{cfg.readme_nb}: a cell failed with {out['ename']}; mend it and run it again")
    data = out['data']
    for mime in 'text/markdown', 'text/html':
        if mime in data: return relink(text(data[mime]), cfg), {}
    for mime, ext in ('image/svg+xml', 'svg'), ('image/png', 'png'):
        if mime not in data: continue
        raw = text(data[mime]).encode() if ext == 'svg' else base64.b64decode(text(data[mime]))
        escaped = re.sub(r'([\\\[\]])', r'\\\1', alt)
        return f"![{escaped}]({cfg.nbs_path.name}/{name}.{ext})", {f"{name}.{ext}": raw}
    return f"```\n{text(data['text/plain'])}\n```", {}


def render_cell(
    cell, # one cell
    cfg, # nbdev's config
):
    "One cell as blocks of Markdown, and the pictures to write"
    if cell.cell_type != 'code': return [relink(''.join(cell.source).strip(), cfg)], {}
    source = cell.source
    direc = {k.rstrip(':'): v for k, v in (extract_directives(cell) or {}).items()}
    off = lambda k: (direc.get(k) or [''])[0].lower() == 'false'
    code = re.sub(r'^\s*#\s*\|.*\n?', '', cell.source, flags=re.M).strip()
    if not code or {'hide', 'exporti', 'default_exp'} & direc.keys() or off('include'): return [], {}
    blocks, pics = [] if off('echo') or 'hide_input' in direc else [f"```python\n{code}\n```"], {}
    if off('output') or 'hide_output' in direc: return blocks, pics
    for i, out in enumerate(cell.get('outputs', [])):
        block, pic = render_output(out, f"images/{Path(cfg.readme_nb).stem}-{cell.id}-{i}", alt_text(source, i), cfg)
        blocks.append(block)
        pics.update(pic)
    return blocks, pics


def render(
    cfg, # nbdev's config
):
    "The whole README, and the pictures that it shows"
    blocks, pics = [HEAD], {}
    for cell in read_nb(cfg.nbs_path/cfg.readme_nb).cells:
        b, p = render_cell(cell, cfg)
        blocks += b
        pics.update(p)
    return '\n\n'.join(o for o in blocks if o) + '\n', {cfg.nbs_path/k: v for k, v in pics.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--check', action='store_true', help='write nothing; fail if README.md or a picture in it is not what the notebook says')
    args, cfg = p.parse_args(), get_config()
    readme, (text, pics) = cfg.config_path/'README.md', render(cfg)
    old = {o: o.read_bytes() for o in (cfg.nbs_path/'images').glob(f"{Path(cfg.readme_nb).stem}-*")}
    if not args.check:
        for o in old.keys() - pics.keys(): o.unlink()
        for o, raw in pics.items():
            o.parent.mkdir(exist_ok=True)
            o.write_bytes(raw)
        return readme.write_text(text, encoding='utf-8')
    was = readme.read_text(encoding='utf-8') if readme.exists() else ''
    diff = list(difflib.unified_diff(was.splitlines(), text.splitlines(), 'README.md', cfg.readme_nb, lineterm=''))
    diff += [f"{o.name}: not the notebook's picture" for o in sorted(old.keys() | pics.keys()) if old.get(o) != pics.get(o)]
    if diff: sys.exit('\n'.join([*diff, 'README.md is not what the index notebook says: run `python tools/readme.py`']))


if __name__ == '__main__': main()
