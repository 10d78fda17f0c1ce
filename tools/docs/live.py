"The figures that a reader can play with: where a page wants one, in a cell marked `#| live: NAME`, the site gets what it takes"
import ast
import os
import re
import shutil
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import torch

# The package is imported where a page wants a figure, not before: a site is built of the tree's own package, whatever is installed
FIGURES = Path(__file__).parent/'figures'
WANTED = re.compile(r'<figure\b[^>]*\bdata-live="([\w-]+)"')


def files_behind(
    path, # a Python file
    package, # the folder of the package
):
    "It, the modules of the package that it imports, and those that they import"
    found, todo = set(), [path]
    while todo:
        found.add(now := todo.pop())
        for n in ast.walk(ast.parse(now.read_text(encoding='utf-8'))):
            if not isinstance(n, ast.ImportFrom) or not n.module: continue
            to = package/f"{n.module.removeprefix(f'{package.name}.')}.py"
            if to.exists() and to not in found: todo.append(to)
    return sorted(found)


def key_of(
    figure, # one of `weights.FIGURES`
    sets, # the pictures that it is made from
    package, # the folder of the package
):
    "Names what a figure's data depend on: the code, torch, the pictures and what they show"
    from . import weights
    parts = [o.read_bytes() for o in files_behind(Path(weights.__file__), package)] + [f'{figure} {torch.__version__}'.encode()]
    for k, s in sets.items():
        parts += [f'{k} {s.classes} {tuple(s.images.shape)}'.encode(), s.images[:100].numpy().tobytes(), s.labels.numpy().tobytes()]
    return sha256(b'\n'.join(parts)).hexdigest()[:16]


def made(
    figure, # one of `weights.FIGURES`
    cache, # a folder that outlives the build
    package, # the folder of the package
    quick=False, # train on a thousand pictures? Enough for a test, not for a reader
):
    "The folder with a figure's data: made now, unless it is there already"
    from . import weights
    load, make = weights.FIGURES[figure]
    sets = load()
    if quick: sets = {k: s.subset(slice(None, None, max(1, len(s)//1000))) for k, s in sets.items()}
    folder = cache/f'live-{figure}-{key_of(figure, sets, package)}'
    if folder.exists():
        os.utime(folder)   # still in use: see `tidy`
        return folder
    print(f'{figure}: made for the first time, which may take a minute', flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as tmp:
        (new := Path(tmp)/'new').mkdir()
        make(new, sets)
        try: new.rename(folder)
        except OSError:
            if not folder.exists(): raise   # else another build was faster
    return folder


def tidy(
    cache, # the folder that outlives the builds
    days=30, # after so many without a build that used it, a figure's data go
):
    "Forget data of figures that no build has used for long: each change of the code makes new ones"
    for o in cache.glob('live-*-*'):
        if o.stat().st_mtime < time.time() - days*86400: shutil.rmtree(o, ignore_errors=True)


def possible(
    names, # of figures
    cache, # a folder that outlives the build
    package, # the folder of the package
    quick, # as for `made`
):
    "Those of them that can be had here: {name: folder with its data}, and the engine. What can't is said, and stays a picture"
    from slowai.browser import get_engine
    from slowai.checks import DataError
    try: engine = get_engine(cache=cache)
    except DataError as e: return print(f'the live figures stay pictures: {e}') or ({}, None)
    have = {}
    for o in names:
        try: have[o] = made(o, cache, package, quick)
        except DataError as e: print(f'the live figure {o} stays a picture: {e}')
    tidy(cache)
    return have, engine


def place(
    docs, # a built site
    cache, # a folder that outlives the build
    package, # the folder of the package
    quick=False, # as for `made`
):
    "Put into a site what its live figures need. Returns what is wrong"
    pages = {p: p.read_text(encoding='utf-8') for p in sorted(docs.rglob('*.html'))}
    pages = {p: text for p, text in pages.items() if WANTED.search(text)}
    if not pages: return []
    from slowai.browser import copy_page

    from . import weights
    asked = {o for text in pages.values() for o in WANTED.findall(text)}
    have, engine = possible(sorted(asked & weights.FIGURES.keys()), cache, package, quick)
    if have:
        copy_page(docs/'live', engine, page=False)
        for o in FIGURES.iterdir(): shutil.copy(o, docs/'live')
        for k, o in have.items(): shutil.copytree(o, docs/'live'/k, ignore=shutil.ignore_patterns('expected.json'), dirs_exist_ok=True)
    heavy = sum(o.stat().st_size for o in (docs/'live/web').glob('ort*'))
    says = {k: 'Try it here' for k in have}
    for k, o in have.items():
        if (o/'model.onnx').exists(): says[k] += f" (loads {(heavy + (o/'model.onnx').stat().st_size)/1e6:.0f} MB, once)"
    for p, text in pages.items():
        p.write_text(offered(text, says, os.path.relpath(docs/'live', p.parent).replace(os.sep, '/')), encoding='utf-8')
    return [f"{p.name}: no live figure is called {o}" for p, text in pages.items() for o in WANTED.findall(text)
            if o not in weights.FIGURES]


def offered(
    text, # a page
    says, # {name of a figure: what its button says}
    live, # the folder of the figures, as seen from the page
):
    "The page with what makes its figures live; those that can't be had are pictures as any others"
    def one(m): return f'{m[0]} data-says="{says[m[1]]}"' if m[1] in says else m[0].replace(f' data-live="{m[1]}"', '')
    text = WANTED.sub(one, text)
    if 'data-says=' not in text: return text
    styles = ''.join(f'<link rel="stylesheet" href="{live}/{o}">\n' for o in ('web/show.css', 'figures.css'))
    script = f'<script type="module" src="{live}/start.js"></script>\n'
    return text.replace('</head>', f'{styles}</head>', 1).replace('</body>', f'{script}</body>', 1)
