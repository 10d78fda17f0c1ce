"""Build the site into _docs without Quarto, from the same nbs/_quarto.yml: our own pages (tools/docs), then smalldocs

A reader's browser asks no other host for anything: formulas are set by KaTeX from the site itself (the npm package, fetched once), web
fonts give way to the reader's own, and live figures run onnxruntime-web from the site, with weights that the first build trains and keeps.
With `--sources DIR` the pages are only written, for `quarto render DIR`; `--finish DIR` does the last steps on a site that Quarto built."""
import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import yaml
from docs import live, modmap, reference
from docs.finish import broken, localise, named, notebooks, pictures, undate
from docs.links import Links
from docs.pages import notebook_page, relink
from docs.symbols import page_name, read_package
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from smalldocs.config import load
from smalldocs.site import Site


class Known:
    "What is known of the whole site while its pages are written"
    def __init__(self,
        cfg, # nbdev's config
    ):
        self.cfg, self.modules, self.notebooks = cfg, read_package(cfg), sorted(nbglob(as_path=True))
        self.links = Links(self.modules, cfg.lib_path.name)
        self.symbols = {o.name: o for m in reversed(self.modules) for s in m.symbols for o in [s, *s.methods]}
        self.names = {o.name: f"{page_name(o.name)}.ipynb" for o in self.notebooks}
        self.base = f"{cfg.doc_host}{cfg.doc_baseurl}/"   # where it is published
        self.lacking = []   # what pages should have and have not
        self.records, path = {}, cfg.config_path/'results/bench_pages.json'
        for r in json.loads(path.read_text(encoding='utf-8')) if path.exists() else []: self.records.setdefault(r['page'], []).append(r)

    def module_of(self, notebook):
        "The module that a notebook builds, or None"
        return next((m.name for m in self.modules if m.notebook == notebook), None)


def sidebar(
    text, # nbdev's sidebar.yml
    site, # what is known of the whole site
    ref, # the reference's pages
):
    "The sidebar with the pages' own names, and the reference below them"
    def named(o):
        if isinstance(o, dict): return {k: named(v) for k, v in o.items()}
        return [named(x) for x in o] if isinstance(o, list) else site.names.get(o, o)
    d = named(yaml.safe_load(text))
    if ref: d['website']['sidebar']['contents'].append({'section': 'Reference', 'contents': ['map.qmd', *(f"reference/{o}" for o in ref)]})
    return yaml.safe_dump(d, sort_keys=False)


def sources(
    dest, # a new folder
    cfg, # nbdev's config
):
    "Write the site's sources into `dest`: pages under the names that they are published by, the reference, the map, the settings"
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    site, ref = Known(cfg), []
    skip = lambda folder, names: [o for o in names if o.endswith('.ipynb') or o.startswith('.') or o == cfg.doc_path.name]
    shutil.copytree(cfg.nbs_path, dest, ignore=skip)
    os.environ['IN_TEST'] = '1'   # as nbdev has it while it makes pages
    for o in site.notebooks: notebook_page(o, dest/o.parent.relative_to(cfg.nbs_path)/site.names[o.name], site)
    del os.environ['IN_TEST']
    for o in dest.rglob('*.qmd'):
        o.write_text(site.links.markdown(relink(o.read_text(encoding='utf-8'), site.names, site.base)), encoding='utf-8')
    if site.modules:
        ref = reference.Pages(site.modules, site.links, cfg).write(dest/'reference')
        (dest/'map.qmd').write_text(modmap.page(site.modules, cfg.lib_path.name), encoding='utf-8')
    side = dest/'sidebar.yml'
    side.write_text(sidebar(side.read_text(encoding='utf-8'), site, ref), encoding='utf-8')
    return site


def build(
    cfg, # nbdev's config
):
    "Build the site, all but the last steps. Returns what its pages should have and have not"
    with tempfile.TemporaryDirectory() as tmp:
        src = Path(tmp)/'src'
        known = sources(src, cfg)
        site = Site(load(src), quiet=True)
        site.build()
        shutil.rmtree(cfg.doc_path, ignore_errors=True)
        shutil.move(site.out, cfg.doc_path)
    notebooks(cfg.doc_path, known.notebooks)
    return known.lacking


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sources', type=Path, metavar='DIR', help='only write the sources of the pages there, for Quarto')
    p.add_argument('--finish', '--localise', type=Path, metavar='DIR', help='only do the last steps on this built site')
    p.add_argument('--quick', action='store_true', help='train the networks of the live figures on a few pictures only, as a test does')
    args, cfg = p.parse_args(), get_config()
    if args.sources:
        if args.sources.exists(): sys.exit(f"--sources {args.sources}: expected a folder that is not there yet; remove it first")
        return sources(args.sources, cfg)
    bad = [] if args.finish else build(cfg)
    docs = args.finish or cfg.doc_path
    cache = cfg.config_path/'.venv/share/slowai'
    left = localise(docs, cache)
    pictures(docs)
    bad += live.place(docs, cache, cfg.lib_path, args.quick)
    named(docs)
    undate(docs)
    if args.finish: notebooks(docs, sorted(nbglob(as_path=True)))
    else: bad += broken(docs)   # Quarto names some places on a page in its own way
    for o in bad: print(f"to mend: {o}", file=sys.stderr)
    for o in left: print(f"to mend, a request to another host: {o}", file=sys.stderr)
    if bad or left: sys.exit(1)
    print(f"{len(list(docs.rglob('*.html')))} pages in {docs.name}/: open {docs.name}/index.html")


if __name__ == '__main__': main()
