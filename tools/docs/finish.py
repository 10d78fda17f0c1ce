"The last steps on a built site: no request to another host, pictures in files of their own, links that lead somewhere"
import base64
import html
import json
import os
import re
import shutil
import struct
import subprocess
from hashlib import sha256
from urllib.parse import unquote

KATEX = '0.16.47'
CDN = re.compile(r'https://cdn\.jsdelivr\.net/npm/katex@[\d.]+/dist')
SCRIPT = re.compile(r'<script\b[^>]*\bsrc="(?:https?:)?//[^"]*"[^>]*>\s*</script>')
STYLE = re.compile(r'<link\b(?=[^>]*\brel="(?:stylesheet|preconnect|preload)")[^>]*\bhref="(?:https?:)?//[^"]*"[^>]*>')
FONT = re.compile(r'@import\s*(?:url\()?\s*["\']?(?:https?:)?//[^"\')]*["\']?\s*\)?[^;]*;')
OUTSIDE = re.compile(r'<(?:img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data)="((?:https?:)?//[^"]*)"')
PICTURE = re.compile(r'(<img\b[^>]*?\b)src="data:image/png;base64,([^"]+)"')
LINK = re.compile(r'<(?:a|area|link|img|script|source|use)\b[^>]*?\s(?:href|src)="([^"]*)"')
ID = re.compile(r'<[a-z][^>]*?\s(?:id|name)="([^"]*)"', re.I)
SKIPPED = re.compile(r'<(script|style)\b[^>]*>.*?</\1>|<!--.*?-->', re.S)


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
    for p in sorted(docs.rglob('*.html')):
        old = new = p.read_text(encoding='utf-8')
        if dist: new = CDN.sub(os.path.relpath(docs/'site_libs/katex', p.parent).replace(os.sep, '/'), new)
        for r in SCRIPT, STYLE, FONT: new = r.sub('', new)
        if new != old: p.write_text(new, encoding='utf-8')
        left += [f"{p.relative_to(docs)}: {o}" for o in OUTSIDE.findall(new)]
    for p in sorted(docs.rglob('*.css')):
        old = p.read_text(encoding='utf-8')
        new = FONT.sub('', old)
        if new != old: p.write_text(new, encoding='utf-8')
        left += [f"{p.relative_to(docs)}: {o}" for o in re.findall(r'url\(\s*["\']?((?:https?:)?//[^"\')]*)', new)]
    return left


def pictures(
    docs, # a built site
):
    "Move the pictures that are written into the pages to files: a quarter smaller, and fetched when the reader comes near"
    for p in sorted(docs.rglob('*.html')):
        def one(m):
            data = base64.b64decode(m[2])
            to = docs/'pictures'/f"{sha256(data).hexdigest()[:16]}.png"
            to.parent.mkdir(exist_ok=True)
            to.write_bytes(data)
            w, h = struct.unpack('>II', data[16:24])
            size = '' if ' width=' in m[0] else f' width="{w}" height="{h}"'
            return f'{m[1]}src="{os.path.relpath(to, p.parent)}"{size} loading="lazy"'
        old = p.read_text(encoding='utf-8')
        new = PICTURE.sub(one, old)
        if new != old: p.write_text(new, encoding='utf-8')


NAMED = [   # what smalldocs leaves without a name for those who don't see it, or without a way in for those who use the keyboard
    (r'<a class="quarto-color-scheme-toggle([^"]*)" href="" title="([^"]*)"([^>]*)>(.*?)</a>',
     r'<button type="button" class="quarto-color-scheme-toggle\1" title="\2" aria-label="\2"\3>\4</button>'),
    (r'<button title="([^"]*)" class="code-copy-button">', r'<button type="button" title="\1" aria-label="\1" class="code-copy-button">'),
    (r'<nav class="navbar ', '<nav aria-label="Site" class="navbar '),
    (r'<nav class="quarto-secondary-nav"', '<nav aria-label="Where this page is" class="quarto-secondary-nav"'),
    (r'<nav id="quarto-sidebar"', '<nav id="quarto-sidebar" aria-label="All pages"'),
    (r'<nav id="TOC"', '<nav id="TOC" aria-label="On this page"'),
    (r'<nav class="page-navigation"', '<nav class="page-navigation" aria-label="Previous and next"'),
    (r'<div class="toc-actions">', '<div class="toc-actions" role="navigation" aria-label="This page on GitHub">')]


def named(
    docs, # a built site
):
    "Give buttons and landmarks the names that a screen reader says"
    for p in sorted(docs.rglob('*.html')):
        old = new = p.read_text(encoding='utf-8')
        for a, b in NAMED: new = re.sub(a, b, new, flags=re.S)
        if new != old: p.write_text(new, encoding='utf-8')


def notebooks(
    docs, # a built site
    paths, # the notebooks
):
    "Put the plain notebooks into the site, for readers to download"
    (docs/'notebooks').mkdir(exist_ok=True)
    for o in paths: shutil.copy(o, docs/'notebooks'/o.name)


def undate(
    docs, # a built site
):
    "Take the files' dates out of the site map: a fresh clone has no dates worth telling, and equal sources make equal sites"
    path = docs/'sitemap.xml'
    if path.exists(): path.write_text(re.sub(r'\s*<lastmod>.*?</lastmod>', '', path.read_text(encoding='utf-8')), encoding='utf-8')


def broken(
    docs, # a built site
):
    "Links within the site, to pages, files and places on a page, that lead nowhere; and ids that a page has twice"
    pages = {p.relative_to(docs).as_posix(): SKIPPED.sub('', p.read_text(encoding='utf-8')) for p in sorted(docs.rglob('*.html'))}
    ids, bad = {k: ID.findall(v) for k, v in pages.items()}, []
    for k, v in pages.items():
        bad += [f"{k}: two places are called #{i}" for i in sorted({i for i in ids[k] if ids[k].count(i) > 1})]
        for href in dict.fromkeys(LINK.findall(v)):
            path, _, anchor = unquote(html.unescape(href)).partition('#')
            if re.match(r'[a-z][a-z0-9+.-]*:|//', path, re.I): continue
            to = os.path.normpath(os.path.join(os.path.dirname(k), path.partition('?')[0])) if path else k
            if to in ('', '.'): to = 'index.html'
            if not (docs/to).exists(): bad.append(f"{k}: {href} is not there")
            elif anchor and to in ids and anchor not in ids[to]: bad.append(f"{k}: {href}: the page is there, the place isn't")
    return bad
