"""The site in a reader's browser: every page in headless Chromium, what a reader does there, each check on a page broken on purpose

The site is built once, from a copy of the project; `SLOWAI_SITE=_docs` looks at one that is built already. `browser.js` does the looking.
Without Chromium, Node or npm the tests are skipped, and say why; `SLOWAI_BROWSER=required` makes that a failure."""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from broken import FAULTS
from conftest import ROOT, copy_project, run_command

HERE = Path(__file__).parent
CACHE = ROOT/'.venv/share/slowai'
NBS = sorted((ROOT/'nbs').glob('*.ipynb'))
CHROMIUMS = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
BASE = 'slowai'   # the site lies in a folder of its host, as it does where it is published
PUBLISHED = 'https://slowai.github.io/'
LOOKS = dict(console='nothing is logged as an error or a warning', requests='every request is answered', hosts='no other host is asked',
             images='every picture is there and described', tables='every table has a head and rows', mathematics='every formula is set',
             headings='one h1, and no level is jumped', axe="axe-core's rules for all readers", contrast='text stands out in light mode',
             dark='and in dark mode', phone='nothing sticks out of a phone of 360 pixels', weight='a page is under 2 MB')

DOES = 'search', 'search_dark', 'search_keys', 'scheme', 'keyboard', 'copying', 'phone_menu', 'print'


# ---- what is needed

def missing():
    "What these tests need and this machine has not, in words; None if all is there"
    if not (os.environ.get('CHROMIUM') or any(map(shutil.which, CHROMIUMS))): return 'no Chromium (Debian: apt install chromium)'
    if not shutil.which('node'): return 'no Node.js (Debian: apt install nodejs)'
    version = subprocess.run(['node', '--version'], capture_output=True, text=True).stdout.strip()
    if int(re.match(r'v?(\d+)', version)[1]) < 18: return f'Node.js 18 or newer is wanted, this is {version}'
    modules, want = CACHE/'site/node_modules', json.loads((HERE/'package.json').read_text())['dependencies']
    have = {k: json.loads((modules/k/'package.json').read_text())['version'] for k in want if (modules/k/'package.json').exists()}
    if have == want: return None
    if not shutil.which('npm'): return 'no npm (Debian: apt install npm)'
    modules.parent.mkdir(parents=True, exist_ok=True)
    cmd = 'npm install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --prefix'.split()
    cmd += [modules.parent, *(f'{k}@{v}' for k, v in want.items())]
    res = subprocess.run(cmd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return f"npm could not fetch {' and '.join(want)}: {res.stderr.strip()[-200:]}" if res.returncode else None


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass


def browser_env():
    "The environment that tells Node where Chromium is, and the packages from npm"
    chromium = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, CHROMIUMS)))
    return {**os.environ, 'CHROMIUM': chromium, 'NODE_PATH': str(CACHE/'site/node_modules')}


def look(
    script, # beside this file, one that `run`s checks as tests/site/common.js has it
    job, # url, files, checks: {name: arguments}
):
    "What each check finds wrong: {name: [words]}"
    res = subprocess.run(['node', HERE/script], env=browser_env(), input=json.dumps(job), capture_output=True, text=True, timeout=1800)
    assert res.returncode == 0, res.stderr[-2000:]
    print(res.stderr)
    return json.loads(res.stdout)


class Browser:
    "A child process with headless Chromium: `ask` it about pages"
    def __init__(self, url):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url, self.child = url, subprocess.Popen(['node', HERE/'browser.js'], env=browser_env(), **pipes)

    def ask(self,
        jobs, # {page: [checks of browser.js]}, a page being an address below `url`
    ):
        "What each check finds wrong with each page: {page: {check: [words]}}"
        pages = list(jobs)
        for i, o in enumerate(pages): self.child.stdin.write(json.dumps(dict(id=i, url=self.url + o, checks=jobs[o])) + '\n')
        self.child.stdin.flush()
        res = {}
        for _ in pages:
            line = self.child.stdout.readline()
            assert line, f"the browser is gone, exit status {self.child.wait(10)}"
            got = json.loads(line)
            assert 'error' not in got, f"{pages[got['id']]}: {got['error']}"
            res[pages[got.pop('id')]] = got
        return {o: res[o] for o in pages}

    def close(self):
        self.child.stdin.close()
        try: self.child.wait(20)
        except subprocess.TimeoutExpired: self.child.kill()


def skip_unless(why):
    "Skip if anything is missing, or fail where a browser is required"
    if why and os.environ.get('SLOWAI_BROWSER') == 'required': pytest.fail(why)
    if why: pytest.skip(why)


@pytest.fixture(scope='session')
def needs(): skip_unless(missing())


@cache
def built_site(
    base, # the session's folder of temporary ones
):
    "A folder to serve, with the site in it under the name `slowai`, and what the build had to complain of"
    root, ready = base/'served', os.environ.get('SLOWAI_SITE')
    root.mkdir()
    if ready: shutil.copytree(ready, root/BASE)
    if ready: return root, ''
    tree = copy_project(root.parent/'tree')
    CACHE.mkdir(parents=True, exist_ok=True)
    (tree/'.venv/share').mkdir(parents=True)
    (tree/'.venv/share/slowai').symlink_to(CACHE)
    res = run_command(sys.executable, 'tools/build_docs.py', '--quick', cwd=tree, ok=False, PYTHONPATH=str(tree))
    assert (tree/'_docs/index.html').exists(), res.stderr[-4000:]
    (tree/'_docs').rename(root/BASE)
    return root, res.stderr if res.returncode else ''


@contextmanager
def serving(folder):
    "Serve a folder to this machine; gives the address"
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}/'
    finally: server.shutdown()


@pytest.fixture(scope='session')
def built(needs, tmp_path_factory): return built_site(tmp_path_factory.getbasetemp())


@pytest.fixture(scope='session')
def served(built): return built[0]


@pytest.fixture(scope='session')
def browser(served):
    with serving(served) as url:
        browser = Browser(url)
        yield browser
        browser.close()


@pytest.fixture(scope='session')
def asked(request):
    "What the tests of this session are about, as `-k` may have left only some: {parameter: {values}}"
    res = {}
    for o in request.session.items:
        for k, v in getattr(getattr(o, 'callspec', None), 'params', {}).items(): res.setdefault(k, set()).add(str(v))
    return res


@pytest.fixture(scope='session')
def report(served, browser, asked):
    "What every page's checks say: {page: {check: [words]}}, and under `facts` what is on it"
    wanted = {*asked.get('check', ()), *(FAULTS[int(i)][0] for i in asked.get('fault', ()))}
    pages = sorted(str(o.relative_to(served)) for o in (served/BASE).rglob('*.html'))
    return browser.ask({o: ['facts', *(c for c in LOOKS if c in wanted)] for o in pages})


def told(
    wrong, # {page: [words]}
):
    "The same, by what is wrong: one line each, with the pages"
    by = {}
    for page, words in wrong.items():
        for o in words: by.setdefault(o, []).append(page.removeprefix(f'{BASE}/'))
    return ''.join(f"\n  {o}\n      on {', '.join(p[:6])}{f' and {len(p)-6} more' if len(p) > 6 else ''}" for o, p in by.items())


def page_of(nb): return f"{BASE}/{re.sub(r'^[0-9]+[a-z]*_', '', nb.stem)}.html"
def cells(nb): return json.loads(nb.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])


# ---- every page

def test_site_is_built(built):
    said = built[1]
    assert not said


@pytest.mark.parametrize('check', LOOKS)
def test_every_page(check, report):
    wrong = told({page: o[check] for page, o in report.items()})
    assert not wrong, f"{LOOKS[check]}? Not so:{wrong}"


def test_every_notebook_has_its_page(report):
    assert {page_of(o) for o in NBS} <= report.keys()


def dead_links(
    served, # the folder that is served
    report, # what has been seen on each page
    base, # its address
    pages=None, # those whose links are looked at; all if None
):
    "Links that lead to no file, to no place on a page, or to one of two places"
    ids = {page: o['facts']['ids'] for page, o in report.items()}
    def why(href, url):
        if not href or href == '#' or url.startswith('javascript:'): return 'leads nowhere'
        if not url: return 'is no address'
        if not url.startswith(base): return 'names the published site' if url.startswith(PUBLISHED) else None
        path, frag = urldefrag(url.removeprefix(base))
        path = unquote(path.partition('?')[0])
        if path.endswith('/'): path += 'index.html'
        if not path.startswith(f'{BASE}/'): return 'leaves the folder of the site'
        if not (served/path).is_file(): return 'leads to no file'
        n = ids.get(path, []).count(unquote(frag)) if frag and path in ids else 1
        return None if n == 1 else 'leads to no place on that page' if not n else f'leads to {n} places at once'
    return {page: [f"{href} {w}" for href, url in o['facts']['links'] for w in [why(href, url)] if w]
            for page, o in report.items() if pages is None or page in pages}


def test_every_link_leads_somewhere(served, report, browser):
    wrong = told(dead_links(served, report, browser.url))
    assert not wrong, wrong


def test_every_search_result_leads_somewhere(served, report):
    index = json.loads((served/BASE/'search.json').read_text(encoding='utf-8'))
    assert len({o['href'].partition('#')[0] for o in index}) >= len(NBS)
    def there(href):
        path, _, frag = href.partition('#')
        page = report.get(f'{BASE}/{path}')
        return page and (not frag or unquote(frag) in page['facts']['ids'])
    assert not [o['href'] for o in index if not there(o['href'])]


def test_every_link_to_the_repository_names_a_file(report):
    "Source links, edit links, notebooks to open elsewhere: to a file that is there, and has that line"
    bad = {}
    for page, o in report.items():
        for _, url in o['facts']['links']:
            m = re.search(r'github(?:\.com|usercontent\.com)?/slowai/slowai/(?:(?:blob|edit|raw|tree)/)?main/([^#?]+)(?:#L(\d+))?', url)
            file = m and ROOT/unquote(m[1])
            if not m or file.is_dir() or (file.is_file() and int(m[2] or 0) <= len(file.read_text(encoding='utf-8').splitlines())): continue
            bad.setdefault(page, []).append(url)
    assert not bad, told(bad)


def shown(nb):
    "What a page must show for its notebook: at least so many pictures, tables, and formulas"
    n = dict(images=0, tables=0, formulas=0)
    for c in cells(nb):
        text = source(c)
        if re.search(r'^#\s*\|\s*(hide\b|include: *false|output: *false|hide_output)', text, re.M): continue
        for o in c.get('outputs', []):
            data = o.get('data', {})
            if any(k in data for k in ('image/png', 'image/svg+xml', 'image/jpeg')): n['images'] += 1
            elif '<table' in ''.join(data.get('text/html', [])): n['tables'] += 1
            text += ''.join(data.get('text/markdown', []))
        if c['cell_type'] != 'markdown': text = text.removeprefix(source(c))
        words = re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.S)
        n['images'] += len(re.findall(r'!\[[^\]]*\]\(|<img\b', words))
        n['tables'] += len(re.findall(r'^\s*\|[ :|-]+\|\s*$', words, re.M))
        n['formulas'] += len(re.findall(r'\$\$.+?\$\$|(?<![\\$\w])\$[^\s$](?:[^$\n]*[^\s$])?\$', words, re.S))
    return n


@pytest.mark.parametrize('nb', NBS, ids=lambda o: o.stem)
def test_page_shows_what_its_notebook_shows(nb, report):
    want, page = shown(nb), report[page_of(nb)]['facts']
    assert not {k: f"{page[k]}, the notebook has {v}" for k, v in want.items() if page[k] < v}


@pytest.mark.parametrize('nb', [o for o in NBS if o.stem[0].isdigit()], ids=lambda o: o.stem)
def test_page_says_what_to_expect(nb, report):
    "What you will learn, how long it takes to read and (where that has been measured) to run, where to open it, what is on it"
    page = report[page_of(nb)]['facts']
    links, has = [o[0] for o in page['links']], page['head'].lower()
    ran = [r for r in json.loads((ROOT/'results/bench_pages.json').read_text(encoding='utf-8')) if r['page'] == nb.name]
    assert 'to read' in has and ' min' in has, page['head']
    assert ('two cores' in has) == any(r['device'] == 'cpu' and r['cores'] == 2 for r in ran), page['head']
    assert ('gpu' in has) == any(r['device'] != 'cpu' for r in ran) and 'not measured' not in has, page['head']
    assert len(page['learn']) > 80 and page['outline']
    assert [o for o in links if o.startswith('https://colab.research.google.com/') and o.endswith(f'/nbs/{nb.name}')]
    assert f'notebooks/{nb.name}' in links


def test_pages_can_be_turned(report, browser):
    "From the first page to the last of a part and back, each notebook once"
    def short(url): return (url or '').removeprefix(f'{browser.url}{BASE}/')
    turn = {page.removeprefix(f'{BASE}/'): {k: short(o['facts'].get(k)) for k in ('next', 'previous')} for page, o in report.items()}
    seen, page = [], 'index.html'
    while page and page not in seen:
        seen.append(page)
        page = turn[page]['next']
    assert [page_of(o).removeprefix(f'{BASE}/') for o in NBS if o.stem != 'index'] == seen[1:len(NBS)]
    assert not [f"{a} → {o['next']}, which goes back to {turn[o['next']]['previous']}" for a, o in turn.items()
                if o['next'] and turn[o['next']]['previous'] != a]


def public():
    "The package's public names and what they take: {module: {name: [parameters]}}"
    def takes(n):
        if isinstance(n, ast.ClassDef): n = next((o for o in n.body if isinstance(o, ast.FunctionDef) and o.name == '__init__'), None)
        if not isinstance(n, ast.FunctionDef): return []
        return [a.arg for a in (*n.args.posonlyargs, *n.args.args, *n.args.kwonlyargs) if a.arg not in ('self', 'cls')]
    for o in sorted((ROOT/'slowai').glob('[a-z]*.py')):
        body = ast.parse(o.read_text(encoding='utf-8')).body
        names = next((ast.literal_eval(n.value) for n in body if isinstance(n, ast.Assign) and n.targets[0].id == '__all__'), [])
        defined = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        yield o.stem, {k: takes(defined.get(k)) for k in names if '.' not in k}


@pytest.mark.parametrize('module,names', list(public()))
def test_reference_is_complete(module, names, report):
    "Each public name has its entry: where its source is, and a line for each parameter"
    entries = report[f'{BASE}/reference/{module}.html']['facts']['entries']
    assert names and not names.keys() - entries.keys()
    assert not [o for o in names if not entries[o]['source']]
    assert not {o: takes for o, takes in names.items() if entries[o]['parameters'] < len(takes)}


def test_names_of_the_package_lead_to_their_reference(report):
    known = {o for _, names in public() for o in names}
    pages = {page_of(o) for o in NBS}
    bare = {page: sorted({n for n in o['facts']['names'] if n.removesuffix('()') in known}) for page, o in report.items() if page in pages}
    assert not any(bare.values()), told(bare)


def test_long_code_is_folded(report): assert any(o['facts']['folds'] for o in report.values()), 'no page folds any code'


# ---- what a reader does

READ = 'index', '03_resnet'


@pytest.fixture(scope='session')
def read(browser, asked):
    "What each check of what a reader does says of the pages where it is done: {page: {check: [words]}}"
    checks = [o for o in DOES if o in asked['check']]
    return browser.ask({page_of(ROOT/f'nbs/{o}.ipynb'): checks for o in READ if o in asked['nb']})


@pytest.mark.parametrize('check', DOES)
@pytest.mark.parametrize('nb', READ)
def test_reader(check, nb, read):
    page = page_of(ROOT/f'nbs/{nb}.ipynb')
    wrong = read[page][check]
    assert not wrong, told({page: wrong})


def test_folded_code_unfolds(report, browser):
    pages = [page for page, o in report.items() if o['facts']['folds']]
    assert pages, 'no page folds any code'
    wrong = browser.ask({pages[0]: ['folding']})[pages[0]]['folding']
    assert not wrong, told({pages[0]: wrong})


def test_one_switch_shows_all_code(browser):
    page = page_of(ROOT/'nbs/03_resnet.ipynb')
    wrong = browser.ask({page: ['switching']})[page]['switching']
    assert not wrong, told({page: wrong})


# ---- no check is blind: each finds what is broken on purpose, in a copy of the smallest page of a notebook

@pytest.fixture(scope='session')
def broken(served, report, browser, asked):
    "What the checks say of the broken pages that are asked for: {number of the fault: (words, words on the good page)}"
    cli, folds = page_of(ROOT/'nbs/14_cli.ipynb'), next((page for page, o in report.items() if o['facts']['folds']), None)
    good, bad = {}, {}
    for i in sorted(map(int, asked['fault']), key=lambda i: (FAULTS[i][0] not in DOES, i)):   # those that wait longest come first
        good[i] = folds if FAULTS[i][0] == 'folding' else cli
        text = (served/good[i]).read_text(encoding='utf-8')
        assert text.count('</main>') == 1
        bad[i] = good[i].replace('.html', f'-broken-{i}.html')
        (served/bad[i]).write_text(text.replace('</main>', FAULTS[i][1] + '</main>'), encoding='utf-8')
    check = {i: FAULTS[i][0] for i in bad}
    said = browser.ask({bad[i]: ['facts' if check[i] == 'links' else check[i]] for i in bad})
    links = [bad[i] for i in bad if check[i] == 'links']
    dead = dead_links(served, {**report, **{o: said[o] for o in links}}, browser.url, {*links, cli})
    for o in bad.values(): (served/o).unlink()
    def words(i): return said[bad[i]][check[i]], report[good[i]].get(check[i], [])
    return {i: (dead[bad[i]], dead[cli]) if check[i] == 'links' else words(i) for i in bad}


@pytest.mark.parametrize('fault', range(len(FAULTS)), ids=[f'{o[0]}-{i}' for i, o in enumerate(FAULTS)])
def test_check_finds_the_fault(fault, broken):
    says, (words, before) = FAULTS[fault][2], broken[fault]
    assert any(says in o for o in words), f"not found in {FAULTS[fault][1][:200]}, only {words}"
    assert not any(says in o for o in before), f"the page has this fault without our help: {says}"


def test_every_check_has_a_fault():
    assert {o[0] for o in FAULTS} == {'links', 'folding', 'switching', *LOOKS, *DOES}
