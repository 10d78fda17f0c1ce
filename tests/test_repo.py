"The project as a stranger finds it: everything made from the notebooks is up to date, the pages keep the house's rules, nothing leaks"
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, project_files
from packaging.requirements import Requirement

BIN = Path(sys.executable).parent
TOP = set('''settings.ini setup.py MANIFEST.in Makefile README.md LICENSE CHANGELOG.md CONTRIBUTING.md CITATION.cff llms.txt
             .gitignore .github .ci nbs slowai results bench tests tools'''.split())
NBS = sorted((ROOT/'nbs').glob('*.ipynb'))
MODULES = sorted(o for o in (ROOT/'slowai').glob('*.py') if o.name not in ('__init__.py', '_modidx.py'))
each_page = pytest.mark.parametrize('nb', NBS, ids=lambda o: o.stem)


def settings():
    c = ConfigParser(delimiters=['='], interpolation=None)
    c.read(ROOT/'settings.ini', encoding='utf-8')
    return c['DEFAULT']


def cells(nb, kind='code'): return [c for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == kind]
def source(cell): return ''.join(cell['source'])
def exported(nb): return [c for c in cells(nb) if re.search(r'^#\s*\|\s*export', source(c), re.M)]
def head(nb): return re.match(r'# (.+)\n+> (.+)', source(json.loads(nb.read_text(encoding='utf-8'))['cells'][0])).groups()
def files(folder): return [o for o in sorted(folder.rglob('*')) if o.is_file() and '__pycache__' not in o.parts]
def snapshot(folder): return {str(o.relative_to(folder)): o.read_bytes() for o in files(folder)}


def parsed(cell):
    "A cell's syntax tree, its magics left out"
    return ast.parse(re.sub(r'^\s*[%!].*$', '', source(cell), flags=re.M))


def slug(heading):
    "The anchor that a heading gets on the site, as pandoc makes it"
    text = re.sub(r'[^\w\s.-]', '', re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower())
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', text.strip()))


def anchors(nb):
    "Where a link into a page may lead: its headings, and the names that it exports"
    found = {slug(h) for c in cells(nb, 'markdown') for h in re.findall(r'^#+ +(.+)', source(c), re.M)}
    names = [re.findall(r'^(?:class|def) +(\w+)', source(c), re.M) for c in exported(nb)]
    return found | {n.lower() for ns in names for n in ns}


def outputs(nb):
    "All text that a notebook's cells have printed or shown"
    for o in (o for c in cells(nb) for o in c.get('outputs', [])):
        yield ''.join(o.get('text', []))
        yield from (''.join(v) for k, v in o.get('data', {}).items() if k.startswith('text/') or k == 'image/svg+xml')


# ---- what is made from the notebooks

def test_export_is_up_to_date(tree, run):
    was = snapshot(tree/'slowai')
    for o in (tree/'slowai').glob('*.py'): o.unlink()
    run(BIN/'nbdev_export', cwd=tree)
    now = snapshot(tree/'slowai')
    assert was.keys() == now.keys(), f"not made by any notebook, or not exported: {sorted(was.keys() ^ now.keys())}"
    assert not [k for k in was if was[k] != now[k]], "run `make export`"


def test_notebooks_are_clean(tree, run):
    was = snapshot(tree/'nbs')
    run(BIN/'nbdev_clean', cwd=tree)
    assert not [k for k, v in snapshot(tree/'nbs').items() if was.get(k) != v], "run `make export`"


def test_site_files_are_up_to_date(tree, run):
    was = snapshot(tree/'nbs')
    run(sys.executable, '-c', 'from nbdev.quarto import *; refresh_quarto_yml(); nbdev_sidebar.__wrapped__()', cwd=tree)
    assert not [k for k, v in snapshot(tree/'nbs').items() if was.get(k) != v], "run `make export`"


def test_readme_is_the_index_page(run):
    run(sys.executable, 'tools/readme.py', '--check', cwd=ROOT)


def test_readme_lists_every_page():
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    lines = [f"| [{title}](nbs/{o.name}) | {sub} |" for o in NBS if o.stem != 'index' for title, sub in [head(o)]]
    assert not [o for o in lines if o not in readme], "run `make notebooks ONLY=nbs/index.ipynb`"


def test_readme_pictures_are_described():
    assert not re.search(r'!\[\]|<img(?![^>]*\balt="[^"]+")', (ROOT/'README.md').read_text(encoding='utf-8'))


def test_llms_txt_is_up_to_date(run):
    run(sys.executable, 'tools/llms.py', '--check', cwd=ROOT)


# ---- the rules of a page

@each_page
def test_page_starts_with_title_and_subtitle(nb):
    first = json.loads(nb.read_text(encoding='utf-8'))['cells'][0]
    alone = "the first cell is `# Title`, `> one line` and nothing else: nbdev makes the page's head of it and drops the rest"
    good = first['cell_type'] == 'markdown' and re.fullmatch(r'# \S.*\n+> \S.*\n*', source(first))
    assert good, alone


@each_page
def test_saved_outputs_are_clean(nb):
    errors = [o['ename'] for c in cells(nb) for o in c.get('outputs', []) if o['output_type'] == 'error']
    assert not errors, f"a published error: {errors}"
    text = '\n'.join(outputs(nb))
    assert '\r' not in text and '\x1b[' not in text, "debris of a progress bar or of colours in the outputs"
    assert not re.search(r'Warning\b', text), "a warning in the outputs"
    if exported(nb): assert any(c.get('outputs') for c in cells(nb)), "no saved output: run `make notebooks`"


@each_page
def test_pictures_are_described(nb):
    """A cell that shows a picture says what one sees on it: `#| fig-alt: "…"` for all of its pictures, or a list with a text for each
    output, which is how Quarto counts; a picture within HTML or Markdown has its `alt`"""
    bad = []
    for c in cells(nb):
        m = re.search(r'^#\s*\|\s*fig-alt:(.+)', source(c), re.M)
        alt, shown = yaml.safe_load(m[1]) if m else None, [o.get('data', {}) for o in c.get('outputs', [])]
        for i, data in enumerate(shown):
            text = alt[i:i + 1] if isinstance(alt, list) else [alt]
            if any(k.startswith('image/') for k in data) and not (text and text[0]): bad.append(source(c)[:80])
            if re.search(r'<img(?![^>]*\balt=)', ''.join(data.get('text/html', []))): bad.append(f"HTML of {source(c)[:80]}")
    bad += [o for c in cells(nb, 'markdown') for o in re.findall(r'!\[\]\([^)]*\)|<img(?![^>]*\balt=)', source(c))]
    assert not bad, f"pictures that nobody describes: {bad}"


@each_page
def test_page_is_under_1_mb(nb): assert nb.stat().st_size < 1_000_000


@each_page
def test_page_fetches_the_project_in_colab(nb):
    "A page that uses the package begins with the cell that gets it there; it is the same on all pages and never runs elsewhere"
    uses = [i for i, c in enumerate(cells(nb)) if re.search(r'^(from|import) slowai', source(c), re.M)]
    colab = [(i, source(c)) for i, c in enumerate(cells(nb)) if 'google.colab' in source(c)]
    if not uses and not colab: return
    first = len(colab) == 1 and (not uses or colab[0][0] < uses[0])
    assert first, 'no such cell before the first import of slowai; copy it from another page'
    assert colab[0][1] == next(source(c) for c in cells(NBS[0]) if 'google.colab' in source(c)), 'not the same as on the first page'
    assert re.search(r'^#\| eval: false$', colab[0][1], re.M)


@each_page
def test_code_cells_are_short(nb):
    long = [source(c).strip().splitlines()[:2] for c in cells(nb) if len(source(c).strip().splitlines()) > 25]
    assert not long, f"over 25 lines: {long}"


@each_page
def test_code_that_readers_see_fits_the_page(nb):
    "100 characters a line: what is longer the site cuts, and it scrolls sideways"
    unseen = re.compile(r'^#\s*\|\s*(hide|exporti?|default_exp|echo: *false|include: *false)\b(?!s)', re.M)
    seen = [source(c) for c in cells(nb) if not unseen.search(source(c))]
    wide = [line for text in seen for line in text.splitlines() if len(line) > 100 and not line.startswith('#|')]
    assert not wide, f"over 100 characters: {wide}"


@pytest.mark.parametrize('page', '01_conv 02_learner 03_resnet 04_tiny_imagenet_preact 05_preactivation 08_own'.split())
def test_exercises_have_solutions(page):
    "Three to five stand before what was learnt, numbered; below each the cells that solve it, which run as tests"
    every = json.loads((ROOT/f'nbs/{page}.ipynb').read_text(encoding='utf-8'))['cells']
    start, end = (next(i for i, c in enumerate(every) if source(c).startswith(h)) for h in ('## Exercises', '## What we learnt'))
    asked = [re.search(r'^\*\*(\d)\. \S', source(c), re.M) for c in every[start:end] if c['cell_type'] == 'markdown']
    assert [m and int(m[1]) for m in asked] == list(range(1, len(asked) + 1)) and 3 <= len(asked) <= 5
    kind = lambda c: 'w' if c['cell_type'] == 'markdown' else 's' if re.match(r'#\| solution\n', source(c)) else '?'
    kinds = ''.join(map(kind, every[start:end]))
    assert re.fullmatch('(ws+)+', kinds), f"words, then cells that begin with `#| solution`, got {kinds}"


@each_page
def test_no_star_imports(nb):
    stars = [ast.unparse(n) for c in cells(nb) for n in ast.walk(parsed(c)) if isinstance(n, ast.ImportFrom) and n.names[0].name == '*']
    assert not stars


@each_page
def test_imports_stand_in_cells_of_their_own(nb):
    "The docs build runs each cell that holds an import: with a training in it, it would train"
    quiet = re.compile(r'warnings\.|logging\.|os\.environ|matplotlib_inline|plt\.rcParams|%|set_matplotlib_formats')
    bad = []
    for c in cells(nb):
        if re.search(r'^#\s*\|\s*exporti?\b', source(c), re.M) or 'nbdev_export(' in source(c): continue
        body = parsed(c).body
        if not any(isinstance(n, ast.Import | ast.ImportFrom) for n in body): continue
        bad += [ast.unparse(n) for n in body if not isinstance(n, ast.Import | ast.ImportFrom) and not quiet.search(ast.unparse(n))]
    assert not bad, f"beside an import: {bad}"


@each_page
def test_checks_are_as_many_as_exported_cells(nb):
    n = sum(len(re.findall(r'\bassert\b|\btest_\w+\(|\bexpect_fail\b', source(c))) for c in cells(nb))
    assert n >= len(exported(nb)), f"{len(exported(nb))} exported cells, {n} checks"


@each_page
def test_links_lead_to_a_file(nb):
    "To another page by the notebook's own name (`01_conv.ipynb`), which works in Jupyter, on GitHub and on the site"
    links = [o for c in cells(nb, 'markdown') for o in re.findall(r'\]\(([^)\s#]+)', source(c))]
    assert not [o for o in links if not re.match(r'[a-z][a-z0-9+.-]*:|//', o) and not (nb.parent/o).exists()]


@each_page
def test_links_lead_to_a_section(nb):
    links = [o for c in cells(nb, 'markdown') for o in re.findall(r'\]\(([\w.-]+\.ipynb)?#([^)\s]+)\)', source(c))]
    assert not [(page, a) for page, a in links if a not in anchors(ROOT/'nbs'/page if page else nb)]


def test_glossary_lists_its_terms():
    nb = ROOT/'nbs/glossary.ipynb'
    terms = [h for c in cells(nb, 'markdown') for h in re.findall(r'^### (.+)', source(c), re.M)]
    said = '\n'.join(outputs(nb))
    assert len(terms) >= 50 and len({slug(t) for t in terms}) == len(terms)
    assert not [t for t in terms if f'[{t}](#{slug(t)})' not in said], "run `make notebooks ONLY=nbs/glossary.ipynb`"


# ---- the package

def ground_floor(stem): return stem[:1] == '9'   # pages 90 and up: small tools that every page may use


def house():
    "Module → the stem of its page, and module → the modules and names of this package that it imports"
    page, uses = {}, {}
    for nb in NBS:
        m = re.search(r'^#\s*\|\s*default_exp\s+(\w+)', '\n'.join(map(source, cells(nb))), re.M)
        if m: page[m[1]] = nb.stem
    for m in MODULES:
        nodes = [n for n in ast.walk(ast.parse(m.read_text(encoding='utf-8'))) if isinstance(n, ast.ImportFrom) and n.module]
        ours = [(n.module.removeprefix('slowai.'), a.name) for n in nodes if n.level or n.module.startswith('slowai.') for a in n.names]
        uses[m.stem] = [o for o in ours if o[0] in {o.stem for o in MODULES}]
    return page, uses


def test_a_page_imports_only_from_earlier_pages():
    page, uses = house()
    assert set(page) == {o.stem for o in MODULES}
    def may(m, n):   # the ground floor stands on nothing but itself
        if ground_floor(page[m]) != ground_floor(page[n]): return ground_floor(page[n])
        return page[n] < page[m]
    assert not [f"{m} uses {n}" for m, ns in uses.items() for n, _ in ns if not may(m, n)]


def test_no_private_name_is_taken_from_another_room():
    assert not [f"{m} takes {n}.{name}" for m, ns in house()[1].items() for n, name in ns if name.startswith('_')]


def test_no_two_pages_have_one_address():
    "The site leaves their numbers out"
    names = Counter(re.sub(r'^\d+\w*?_', '', nb.stem) for nb in NBS)
    assert not [k for k, n in names.items() if n > 1]


def test_a_room_is_seen_in_one_sitting():
    "About 60 code cells a page (solutions apart) and 450 lines a module; a page that needs more holds two ideas"
    cells_of = {nb.stem: sum('#| solution' not in source(c) for c in cells(nb)) for nb in NBS}
    lines_of = {m.stem: len(m.read_text(encoding='utf-8').splitlines()) for m in MODULES}
    assert not {k: n for k, n in cells_of.items() if n > 70} and not {k: n for k, n in lines_of.items() if n > 490}


def test_a_name_is_defined_once():
    def names(tree):
        for n in tree.body:
            if isinstance(n, ast.ClassDef): yield n.name
            elif isinstance(n, ast.FunctionDef) and not any('patch' in ast.unparse(d) for d in n.decorator_list): yield n.name
            elif isinstance(n, ast.Assign): yield from (t.id for t in n.targets if isinstance(t, ast.Name) and t.id != '__all__')
    where = {}
    for m in MODULES:
        for n in names(ast.parse(m.read_text(encoding='utf-8'))): where.setdefault(n, []).append(m.stem)
    twice = {k: v for k, v in where.items() if len(v) > 1}
    assert not {k: v for k, v in twice.items() if not k.startswith('_') or len(set(v)) < len(v)}


def test_what_is_imported_is_required():
    s = settings()
    wanted = ' '.join(s[f'{k}requirements'] for k in ('', *(f'{o}_' for o in s['extras'].split())))
    known = set(re.findall(r'(?:^|\s)([A-Za-z0-9_.-]+)', re.sub(r'[<>=!~][^\s]*', '', wanted)))
    comes_with = dict(IPython='fastprogress', PIL='torchvision', llvmlite='numba')
    comes_with |= dict.fromkeys(('huggingface_hub', 'pyarrow', 'pandas'), 'datasets')
    used = {}
    for m in MODULES:
        nodes = list(ast.walk(ast.parse(m.read_text(encoding='utf-8'))))
        full = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        full += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
        for o in full: used.setdefault(o.split('.')[0], m.name)
    missing = {k: v for k, v in used.items() if k not in {*sys.stdlib_module_names, 'slowai', *known} and comes_with.get(k) not in known}
    assert not missing, f"add to requirements in settings.ini: {missing}"


def test_the_version_is_said_once():
    version = settings()['version']
    assert f'__version__ = "{version}"' in (ROOT/'slowai/__init__.py').read_text(encoding='utf-8')
    assert f"## [{version}]" in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')


def test_citation_is_valid():
    "Citation File Format 1.2.0: the required keys, no unknown one, the version and date of the last release"
    cff, changes = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8')), (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')
    known = """abstract authors cff-version commit contact date-released doi identifiers keywords license license-url message
               preferred-citation references repository repository-artifact repository-code title type url version""".split()
    assert {'authors', 'cff-version', 'message', 'title'} <= cff.keys() <= set(known)
    assert cff['cff-version'] == '1.2.0' and cff['type'] == 'software'
    assert all(o.get('name') or o.get('family-names') for o in cff['authors'])
    assert cff['version'] == settings()['version'] and f"## [{cff['version']}] - {cff['date-released']}" in changes
    assert cff['license'] == 'Apache-2.0' and settings()['license'] == 'apache2' and cff['repository-code'] == settings()['git_url']


# ---- the files around it

def test_nothing_else_lies_at_the_top():
    assert {o.relative_to(ROOT).parts[0] for o in project_files()} <= TOP


def test_no_place_of_one_machine_is_named():
    place = re.compile(r'(?<![\w.~$}-])/(?:home|root|Users|work|opt)/\w|/tmp/\w|[A-Z]:\\\\?Users')
    found = {}
    for o in project_files():
        try: text = o.read_text(encoding='utf-8')
        except UnicodeDecodeError: continue
        hits = place.findall(re.sub(r'"image/png": "[^"]*"', '', text))
        if hits: found[str(o.relative_to(ROOT))] = hits[:3]
    assert not found


def test_no_package_mirror_is_named():
    "The hosts that this machine installs from are its own affair: they slip into lock files and saved outputs"
    asked = ''
    for cmd in ['npm', 'config', 'get', 'registry'], [sys.executable, '-m', 'pip', 'config', 'list']:
        if shutil.which(cmd[0]): asked += subprocess.run(cmd, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    for o in [Path('/etc/apt/sources.list'), *Path('/etc/apt/sources.list.d').glob('*')]:
        if o.is_file() and os.access(o, os.R_OK): asked += o.read_text(errors='ignore')
    hosts = {h.rpartition('@')[2].partition(':')[0] for h in re.findall(r'https?://([^/\s"\']+)', asked)}
    texts = {o.relative_to(ROOT): o.read_bytes() for o in project_files()}
    assert not [(str(o), h) for o, text in texts.items() for h in hosts if h.encode() in text]


def test_issue_forms_are_well_formed():
    "GitHub shows a form only if all of it is in order, and says nothing otherwise"
    folder = ROOT/'.github/ISSUE_TEMPLATE'
    assert yaml.safe_load((folder/'config.yml').read_text(encoding='utf-8')).keys() <= {'blank_issues_enabled', 'contact_links'}
    for o in sorted(folder.glob('[0-9]*.yml')):
        form = yaml.safe_load(o.read_text(encoding='utf-8'))
        needed, other = {'name', 'description', 'body'}, {'title', 'labels', 'assignees', 'projects', 'type'}
        assert needed <= form.keys() <= needed | other, o.name
        fields = [f for f in form['body'] if f['type'] != 'markdown']
        assert fields and len({f['id'] for f in fields}) == len(fields), o.name
        for f in fields:
            assert f['type'] in ('input', 'textarea', 'dropdown', 'checkboxes') and f['attributes']['label'], o.name
            if f['type'] in ('dropdown', 'checkboxes'): assert f['attributes']['options'], o.name
    assert (ROOT/'.github/PULL_REQUEST_TEMPLATE.md').is_file()


def test_no_big_files():
    assert not {str(o.relative_to(ROOT)): o.stat().st_size for o in project_files() if o.stat().st_size > 1_500_000}


def test_make_names_its_targets(run):
    said = run('make', 'help', cwd=ROOT).stdout
    for t in 'train test notebooks export docs bench lint pins clean'.split():
        assert re.search(rf'^  make {t} +\S', said, re.M)
        run('make', '-n', t, cwd=ROOT)


def test_every_requirement_is_pinned():
    """tools/constraints.txt, which `make` installs by, names one version in the range of each requirement, for each Python and platform;
    and each range has a lower end, which the scheduled runs try"""
    pins = {}
    for o in (ROOT/'tools/constraints.txt').read_text(encoding='utf-8').splitlines():
        if o.startswith('#'): continue
        r = Requirement(o)
        assert re.fullmatch(r'==[\w.]+', str(r.specifier)) and not r.url, o
        pins.setdefault(r.name, []).append(r)
    asked = [Requirement(o) for o in f"{settings()['requirements']} {settings()['dev_requirements']}".split()]
    assert not [str(r) for r in asked if not any(s.operator in ('>=', '==') for s in r.specifier)], "without a lower end"
    fits = lambda r: all(r.specifier.contains(str(p.specifier)[2:]) for p in pins.get(r.name, [])) and r.name in pins
    assert not [str(r) for r in asked if not fits(r)], "run `make pins KEEP=1`"
    for v in '3.11.9', '3.12.0', '3.13.0':
        here = {'python_version': v[:4], 'python_full_version': v}
        assert not [k for k, rs in pins.items() if sum(not r.marker or r.marker.evaluate(here) for r in rs) > 1], f"two versions on {v}"
    assert {'setuptools', 'wheel'} <= pins.keys()


def test_ci_scripts_are_well_formed(run):
    run('bash', '-n', ROOT/'.ci/run', cwd=ROOT)
    for o in (ROOT/'.github/workflows').glob('*.yml'):
        jobs = yaml.safe_load(o.read_text(encoding='utf-8'))['jobs']
        uses = [s['uses'] for j in jobs.values() for s in j['steps'] if 'uses' in s]
        assert uses and all(re.search(r'@v\d', u) for u in uses), f"{o.name}: an action without a version"


def test_results_are_records():
    "Each run in results/ has the keys that the pages read; what a benchmark writes (bench_*.json) has keys of its own"
    keys = set("""name seed epochs acc_last acc_best loss_last train_acc_last seconds_per_epoch images_per_second device torch commit
                  params mmacs recipe history""".split())
    looks = set('name seed epochs of lr device torch commit running batch refreshed'.split())   # one checkpoint, evaluated in three ways
    for o in (ROOT/'results').glob('*.json'):
        records, need = json.loads(o.read_text(encoding='utf-8')), looks if o.name == 'tiny_imagenet_norms.json' else keys
        if o.name.startswith('bench_'): continue
        assert isinstance(records, list) and records, o.name
        assert not [need - r.keys() for r in records if need - r.keys()], o.name
