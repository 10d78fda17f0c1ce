"""Write llms.txt (https://llmstxt.org), a map of the project for machines that read: pages, public names with a line each.

`python tools/llms.py`; with `--check`, only say whether it is what the notebooks and the package say"""
import argparse
import ast
import difflib
import re
import sys
from pathlib import Path

from execnb.nbio import read_nb
from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html, nbglob

ABOUT = """The pages are Jupyter notebooks, to be read in the order of their numbers; nbdev exports their marked cells to the Python package
`slowai`, so the notebooks are the source and the package is made from them. A page imports only from pages before it and from the ground
floor (90 and up). Images are uint8 tensors (N, C, H, W), labels int64 (N,). Every parameter is documented by a comment on its line; bad
input raises ValueError or TypeError before the first step. Results of runs are JSON records in `results/`. Python 3.11 or newer;
`make train`, `make test` and `make docs` each work on a fresh clone."""
OPTIONAL = {'CHANGELOG.md': 'what changed from version to version', 'results': 'the records of all runs that are quoted',
    'CONTRIBUTING.md': 'how to change a page, and the rules that the tests enforce'}


def plain(
    text, # Markdown
):
    "One line of text, links replaced by their words"
    return ' '.join(re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', text).split())


def heading(
    nb, # path of a notebook
):
    "Title and subtitle of a page"
    m = re.match(r'# (.+)\n+> (.+)', read_nb(nb).cells[0].source)
    if not m: raise ValueError(f"{nb.name}: expected a first cell with `# Title` and `> one line`")
    return m.groups()


def public(
    module, # path of a module
):
    "The names in a module's `__all__`, each with the first line of its docstring ('' for a constant)"
    tree = ast.parse(module.read_text(encoding='utf-8'))
    said = {n.name: ast.get_docstring(n) or '' for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
    alls = [n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__']
    return {k: said.get(k, '').split('\n')[0] for v in alls for k in ast.literal_eval(v)}


def module_of(
    nb, # path of a notebook
):
    "The name of the module that a page exports, or None"
    code = '\n'.join(c.source for c in read_nb(nb).cells if c.cell_type == 'code')
    m = re.search(r'^#\s*\|\s*default_exp\s+(\w+)', code, re.M)
    return m[1] if m else None


def render(
    cfg, # nbdev's config
):
    "All of llms.txt"
    site, pages, names = f"{cfg.doc_host}{cfg.doc_baseurl}", [], []
    for nb in sorted(nbglob(as_path=True)):
        (title, sub), module, url = heading(nb), module_of(nb), f"{site}/{_nbpath2html(Path(nb.name)).name}"
        if nb.name == cfg.readme_nb: top = [f"# {title}", f"> {plain(sub)}", ABOUT]
        else: pages.append(f"- [{title}]({url}): {plain(sub)}{f'. Exports `{cfg.lib_name}.{module}`' if module else ''}")
        if not module: continue
        known = public(cfg.lib_path/f'{module}.py')
        line = lambda k, said: f"- [{k}]({url}#{k.lower()}): {plain(said)}" if said else f"- `{k}`"   # a constant has no entry on the site
        names += [f"## {cfg.lib_name}.{module}", '\n'.join(line(k, said) for k,said in known.items())]
    source = f"{cfg.git_url}/tree/{cfg.branch}"
    more = [f"- [{f}]({source}/{f}): {what}" for f,what in OPTIONAL.items()]
    return '\n\n'.join([*top, '## Pages', '\n'.join(pages), *names, '## Optional', '\n'.join(more)]) + '\n'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='write nothing; fail if llms.txt is not what it would be')
    args, cfg = p.parse_args(), get_config()
    path, text = cfg.config_path/'llms.txt', render(cfg)
    if not args.check: return path.write_text(text, encoding='utf-8')
    was = path.read_text(encoding='utf-8') if path.exists() else ''
    diff = list(difflib.unified_diff(was.splitlines(), text.splitlines(), 'llms.txt', 'as it would be', lineterm=''))
    if diff: sys.exit('\n'.join([*diff, 'llms.txt is not up to date: run `python tools/llms.py`']))


if __name__ == '__main__': main()
