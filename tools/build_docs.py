"""Build the site into _docs without Quarto, from the same nbs/_quarto.yml: nbdev's own processing, then smalldocs

A reader's browser asks no other host for anything: formulas are set by KaTeX from the site itself (the npm package, fetched once), and web
fonts give way to the reader's own. `--localise DIR` does that second half alone, on a site that Quarto built."""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nbdev.config import get_config
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs
from smalldocs.config import load
from smalldocs.site import Site

KATEX = '0.16.47'
CDN = re.compile(r'https://cdn\.jsdelivr\.net/npm/katex@[\d.]+/dist')
SCRIPT = re.compile(r'<script\b[^>]*\bsrc="(?:https?:)?//[^"]*"[^>]*>\s*</script>')
STYLE = re.compile(r'<link\b(?=[^>]*\brel="(?:stylesheet|preconnect|preload)")[^>]*\bhref="(?:https?:)?//[^"]*"[^>]*>')
FONT = re.compile(r'@import\s*(?:url\()?\s*["\']?(?:https?:)?//[^"\')]*["\']?\s*\)?[^;]*;')
OUTSIDE = re.compile(r'<(?:img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data)="((?:https?:)?//[^"]*)"')


def katex(
    cache, # a folder to keep it in, so that the next build needs no network
):
    "KaTeX's `dist` folder from the npm package, or None where npm can't fetch it"
    dist = cache/'node_modules/katex/dist'
    if dist.exists() and json.loads((dist.parent/'package.json').read_text())['version'] == KATEX: return dist
    if not shutil.which('npm'): return print('npm is not here: formulas stay as they were written')
    cache.mkdir(parents=True, exist_ok=True)
    cmd = 'npm install --silent --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --prefix'.split()
    if subprocess.run([*cmd, str(cache), f'katex@{KATEX}'], stdin=subprocess.DEVNULL).returncode:
        return print(f'npm could not fetch katex@{KATEX}: formulas stay as they were written')
    return dist


def localise(
    docs, # a built site
    cache, # where KaTeX is kept
):
    "Make a site ask no other host for anything. Returns what it still asks for"
    left, dist, math = [], None, any(CDN.search(p.read_text(encoding='utf-8')) for p in docs.rglob('*.html'))
    if math: dist = katex(cache)
    for o in [p for g in ('katex.min.*s', 'contrib/auto-render.min.js', 'fonts/*.woff2') for p in dist.glob(g)] if dist else []:
        to = docs/'site_libs/katex'/o.relative_to(dist)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(o, to)
    for p in docs.rglob('*.html'):
        old = new = p.read_text(encoding='utf-8')
        if dist: new = CDN.sub(os.path.relpath(docs/'site_libs/katex', p.parent).replace(os.sep, '/'), new)
        for r in SCRIPT, STYLE, FONT: new = r.sub('', new)
        if new != old: p.write_text(new, encoding='utf-8')
        left += [f"{p.relative_to(docs)}: {o}" for o in OUTSIDE.findall(new)]
    for p in docs.rglob('*.css'):
        old = p.read_text(encoding='utf-8')
        new = FONT.sub('', old)
        if new != old: p.write_text(new, encoding='utf-8')
        left += [f"{p.relative_to(docs)}: {o}" for o in re.findall(r'url\(\s*["\']?((?:https?:)?//[^"\')]*)', new)]
    return left


def sources(
    dest, # a new folder
    cfg, # nbdev's config
):
    "Put what smalldocs needs into `dest`: nbdev's processed pages under the names that they are published by, linked to each other"
    shutil.copytree(proc_nbs(n_workers=0), dest, ignore=shutil.ignore_patterns(cfg.doc_path.name))
    names, base = {}, f"{cfg.doc_host}{cfg.doc_baseurl}/"
    for p in dest.glob('*.ipynb'):
        text = p.read_text(encoding='utf-8')
        p.write_text(text.replace(f"]({base}", ']('), encoding='utf-8')   # nbdev links to the published site
        m = re.search(r'^output-file: *(\S+)\.html', ''.join(json.loads(text)['cells'][0]['source']), re.M)
        if m and m[1] != p.stem: names[p.name] = f"{m[1]}.ipynb"
    for a, b in names.items(): (dest/a).rename(dest/b)
    for p in [*dest.glob('*.yml'), *dest.glob('*.ipynb')]:
        text = p.read_text(encoding='utf-8')
        pre = '](' if p.suffix == '.ipynb' else '- '
        for a, b in names.items(): text = text.replace(pre + a, pre + b)
        p.write_text(text, encoding='utf-8')


def build(
    cfg, # nbdev's config
):
    "Build the site. Returns the links that lead nowhere"
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    with tempfile.TemporaryDirectory() as tmp:
        src = Path(tmp)/'src'
        sources(src, cfg)
        site = Site(load(src), quiet=True)
        site.build()
        shutil.rmtree(cfg.doc_path, ignore_errors=True)
        shutil.move(site.out, cfg.doc_path)
    return [f"{page}: {link}" for page, link in site.broken]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--localise', type=Path, metavar='DIR', help='only make this built site independent of other hosts')
    args, cfg = p.parse_args(), get_config()
    broken = [] if args.localise else build(cfg)
    docs = args.localise or cfg.doc_path
    left = localise(docs, cfg.config_path/'.venv/share/slowai')
    for o in broken: print(f"a link that leads nowhere: {o}", file=sys.stderr)
    for o in left: print(f"a request to another host: {o}", file=sys.stderr)
    if broken or left: sys.exit(1)
    print(f"{len(list(docs.rglob('*.html')))} pages in {docs.name}/: open {docs.name}/index.html")


if __name__ == '__main__': main()
