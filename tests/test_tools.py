"The project's own tools, on a project of two pages"
import base64
import importlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from hashlib import sha1

import pytest
from conftest import ROOT
from PIL import Image, ImageDraw


def cell(kind, source, **kw):
    return dict(cell_type=kind, id=sha1(source.encode()).hexdigest()[:8], metadata={}, source=source.splitlines(True), **kw)
def code(source, *outputs): return cell('code', source, execution_count=None, outputs=list(outputs))
def words(source): return cell('markdown', source)
def stream(text): return dict(name='stdout', output_type='stream', text=[text])
def shown(**data): return dict(output_type='display_data', metadata={}, data={k.replace('_', '/'): v for k, v in data.items()})


def write(path, *cells):
    spec = dict(display_name='python3', language='python', name='python3')
    nb = dict(cells=list(cells), metadata=dict(kernelspec=spec), nbformat=4, nbformat_minor=5)
    path.write_text(json.dumps(nb, indent=1, sort_keys=True) + '\n')


def read(path): return json.loads(path.read_text())['cells']
def text(cell): return ''.join(''.join(o.get('text', [])) for o in cell['outputs'])


@pytest.fixture
def project(tmp_path):
    "Settings, tools and an empty package of a small project"
    for o in 'nbs', 'slowai', 'tests': (tmp_path/o).mkdir()
    shutil.copytree(ROOT/'tools', tmp_path/'tools', ignore=shutil.ignore_patterns('__pycache__'))
    for o in 'settings.ini', 'setup.py': shutil.copy(ROOT/o, tmp_path/o)
    (tmp_path/'slowai/__init__.py').write_text('')
    return tmp_path


def test_runner_saves_outputs_and_leaves_skipped_cells(project, run):
    nb = project/'nbs/00_a.ipynb'
    write(nb, words('# A'), code('x = 6*7\nprint("old" if False else x)', stream('stale')), code('#| eval: false\n1/0', stream('kept')),
          code('#| slow\nprint("long run")', stream('saved last week')), code('x'))
    run(sys.executable, 'tools/run_notebooks.py', cwd=project)
    _, first, never, slow, last = read(nb)
    assert (text(first), text(never), text(slow)) == ('42\n', 'kept', 'saved last week')
    assert last['outputs'][0]['data']['text/plain'] == ['42'] and last['outputs'][0]['execution_count'] is None
    was = nb.read_bytes()
    run(os.path.join(os.path.dirname(sys.executable), 'nbdev_clean'), cwd=project)
    assert nb.read_bytes() == was
    run(sys.executable, 'tools/run_notebooks.py', '--slow', 'nbs/00_a.ipynb', cwd=project)
    assert text(read(nb)[3]) == 'long run\n'
    file = project/'results/bench_pages.json'
    file.write_text(json.dumps([*json.loads(file.read_text()), {**json.loads(file.read_text())[0], 'page': '00_gone.ipynb'}]))
    run(sys.executable, 'tools/run_notebooks.py', '--slow', cwd=project)
    rows = json.loads(file.read_text())
    assert [(r['page'], r['slow']) for r in rows] == [('00_a.ipynb', False), ('00_a.ipynb', True)]
    assert all(r['seconds'] > 0 and r['cores'] >= 1 and r['device'] for r in rows)


def test_runner_saves_drawings_light_and_photographs_as_they_are(monkeypatch):
    monkeypatch.syspath_prepend(ROOT/'tools')
    runner = importlib.import_module('run_notebooks')

    def png(image):
        image.save(buf := io.BytesIO(), 'png')
        return base64.b64encode(buf.getvalue()).decode()
    drawing = Image.new('RGBA', (200, 100), 'white')
    ImageDraw.Draw(drawing).ellipse((20, 10, 150, 90), outline='red', width=3)
    photo = Image.frombytes('RGB', (100, 100), random.Random(0).randbytes(30_000))
    before = [png(drawing), png(photo)]
    nb = dict(cells=[dict(outputs=[dict(data={'image/png': o}) for o in before]), dict()])
    runner.lighten(nb)
    light, same = (o['data']['image/png'] for o in nb['cells'][0]['outputs'])
    assert same == before[1] and len(light) < len(before[0])
    assert Image.open(io.BytesIO(base64.b64decode(light))).convert('RGB').tobytes() == drawing.convert('RGB').tobytes()


def test_runner_leaves_a_failing_notebook_as_it_was(project, run):
    bad, good = project/'nbs/00_bad.ipynb', project/'nbs/01_good.ipynb'
    write(bad, words('# Bad'), code('print(1)', stream('before')), code('raise ValueError("no such thing")'))
    write(good, words('# Good'), code('print(2)'))
    was = bad.read_bytes()
    res = run(sys.executable, 'tools/run_notebooks.py', '--no-record', cwd=project, ok=False)
    assert not (project/'results').exists()
    assert res.returncode == 1 and 'no such thing' in res.stderr and 'failed: 00_bad.ipynb' in res.stderr
    assert bad.read_bytes() == was and text(read(good)[1]) == '2\n'
    assert sorted(o.name for o in (project/'nbs').iterdir()) == ['00_bad.ipynb', '01_good.ipynb']


def test_every_test_is_counted(project, run):
    write(project/'nbs/00_good.ipynb', words('# Good'), code('assert 1'), code('#| slow\nassert 0'), code('#| eval: false\nassert 0'))
    write(project/'nbs/01_bad.ipynb', words('# Bad'), code('assert 1 == 2, "what went wrong"'))
    write(project/'nbs/02_gone.ipynb', words('# Gone'), code('import os\nos._exit(9)'))
    three = 'import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip\ndef test_c(): pass\n'
    (project/'tests/test_a.py').write_text(three)
    res = run(sys.executable, 'tools/run_tests.py', cwd=project, ok=False)
    assert res.returncode == 1 and res.stdout.splitlines()[-1] == '2 passed, 3 failed'
    assert 'what went wrong' in res.stdout and 'exit status 9' in res.stdout
    res = run(sys.executable, 'tools/run_tests.py', 'nbs/00_good.ipynb', cwd=project)
    assert res.stdout.splitlines()[-1] == '1 passed, 0 failed'
    res = run(sys.executable, 'tools/run_tests.py', '--slow', 'nbs/00_good.ipynb', cwd=project, ok=False)
    assert res.stdout.splitlines()[-1] == '0 passed, 1 failed'


def test_no_test_at_all_is_a_failure(project, run):
    res = run(sys.executable, 'tools/run_tests.py', cwd=project, ok=False)
    assert res.returncode == 1 and res.stdout.splitlines()[-1] == '0 passed, 1 failed'
    (project/'tests/test_a.py').write_text('import nothing_of_that_name\n')
    res = run(sys.executable, 'tools/run_tests.py', cwd=project, ok=False)
    assert res.returncode == 1 and res.stdout.splitlines()[-1] == '0 passed, 1 failed'


def test_what_depends_on_the_machine_runs_both_ways(project, run):
    "Found through functions of the package and through helpers of a test; counted together with the rest and with ruff"
    (project/'slowai/data.py').write_text('def load_fashion_mnist(): pass\n\n\ndef pictures(): return load_fashion_mnist()\n')
    bare = "import os\n\nassert (os.environ.get('SLOWAI_BF16') == '0') is {}"
    write(project/'nbs/00_same.ipynb', words('# Same'), code(bare.format(False)))
    write(project/'nbs/01_two.ipynb', words('# Two'), code('from slowai.data import pictures'), code('pictures()\n' + bare.format(True)))
    (project/'tests/helper.py').write_text('from slowai.data import pictures\n\n\ndef look(): return pictures()\n')
    same = f'@pytest.mark.same_everywhere\ndef test_same(): {bare.splitlines()[-1].format(False)}\n'
    (project/'tests/test_a.py').write_text(
        f'import os\n\nimport pytest\nfrom helper import look\n\n\ndef test_a(): assert not look()\n\n\n{same}')
    (project/'tests/test_b.py').write_text(bare.format(False) + '\n\n\ndef test_b(): pass\n')
    env = dict(PYTHONPATH=str(project), SLOWAI_BF16='')
    res = run(sys.executable, 'tools/run_tests.py', '--bare', cwd=project, **env)
    assert res.stdout.splitlines()[-1] == '2 passed, 0 failed'   # 01_two, test_a
    res = run(sys.executable, 'tools/run_tests.py', '--both', cwd=project, ok=False, **env)
    assert res.stdout.splitlines()[-1] == '7 passed, 1 failed', res.stdout + res.stderr   # all six, those two again, and ruff
    (project/'tools/run_tests.py').write_text((ROOT/'tools/run_tests.py').read_text() + 'import os\n')
    res = run(sys.executable, 'tools/run_tests.py', '--both', cwd=project, ok=False, **env)
    assert res.stdout.splitlines()[-1] == '6 passed, 2 failed' and 'F811' in res.stdout


def test_readme_is_rendered_and_checked(project, run):
    png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII='
    (project/'LICENSE').write_text('')
    write(project/'nbs/00_a.ipynb', words('# A'))
    write(project/'nbs/index.ipynb', words('# slowai\n\n> small'),
          words('[a page](00_a.ipynb#top), [licence](../LICENSE), [site](https://example.org/x)'),
          code('#| hide\nprint("never")', stream('never')),
          code('#| echo: false\nshow()', shown(text_markdown=['| a |\n|---|\n| 1 |'], text_plain=['no'])),
          code('d["k"](1)', stream('one\n')),
          code('#| echo: false\nplot()', shown(image_png=png, text_plain=['<Figure>'])),
          code('#| hide\nimport nbdev; nbdev.nbdev_export()'))
    readme = [sys.executable, 'tools/readme.py']
    assert run(*readme, '--check', cwd=project, ok=False).returncode == 1
    run(*readme, cwd=project)
    run(*readme, '--check', cwd=project)
    said = (project/'README.md').read_text()
    assert '[a page](nbs/00_a.ipynb#top), [licence](LICENSE), [site](https://example.org/x)' in said
    assert '| a |\n|---|\n| 1 |' in said and '```python\nd["k"](1)\n```\n\n```\none\n```' in said
    assert 'never' not in said and 'show()' not in said and 'nbdev.nbdev_export' not in said
    pic = project/re.search(r'!\[\]\((.*?\.png)\)', said)[1]
    assert pic.read_bytes().startswith(b'\x89PNG')
    pic.write_bytes(b'')
    assert run(*readme, '--check', cwd=project, ok=False).returncode == 1
    write(project/'nbs/index.ipynb', words('# slowai\n\n[gone](09_gone.ipynb)'))
    assert '09_gone.ipynb, which is not there' in run(*readme, cwd=project, ok=False).stderr


def site_project(project):
    "Two pages, one of them with a module"
    for o in '_quarto.yml', 'styles.css', 'favicon.svg': shutil.copy(ROOT/'nbs'/o, project/'nbs'/o)
    write(project/'nbs/index.ipynb', words('# Index\n\n> first'), words('See [A](00_a.ipynb) and `six`. $a^2$'))
    six = '#| exports\ndef six(\n    n:int=6, # how many, above 0\n)->int: # as many\n    "Six, by `Half`"\n    return n'
    half = '#| exports\nclass Half:\n    "One half"\n    def of(self,\n        n, # of what\n    ):\n        "A half of it"\n' + \
           ''.join(f'        x{i} = n\n' for i in range(12)) + '        return n/2'
    png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII='
    write(project/'nbs/00_a.ipynb', words('# A\n\n> one'), code('#| default_exp a'), words('You will know `six`.\n\n## Numbers'),
          code('#| export\nimport math'), code('import os\nfrom a.b import c'), code(six), code('x = 6\nassert six() == x > 5'),
          words('## Halves\n\nOf `six()` and `Half.of`, not of `nothing`.'), code(half),
          code('plot()', shown(image_png=png)),
          code('#| fig-alt: ["one", "a < b"]\nplot()', shown(image_png=png), shown(image_png=png)),
          words('## Exercises\n\nSeven?'), code('#| solution\n#| fig-alt: "seven"\nplot()', shown(image_png=png)))
    return project


def built(project, run, **kw):
    run(os.path.join(os.path.dirname(sys.executable), 'nbdev_export'), cwd=project)
    res = run(sys.executable, 'tools/build_docs.py', cwd=project, **kw)
    if 'could not fetch' in res.stdout: pytest.skip('npm reaches no registry')
    return res


def test_site_is_built_and_asks_no_other_host(project, run):
    if not shutil.which('npm'): pytest.skip('no npm')
    site = site_project(project)/'_docs'
    built(project, run)
    index = (site/'index.html').read_text()
    assert 'href="a.html"' in index.replace('./', '') and 'href="reference/a.html#six"' in index
    assert (site/'site_libs/katex/katex.min.js').exists() and 'site_libs/katex/katex.min.js' in index
    asks = r'<(?:script|img)[^>]+src="https?:|<link[^>]+rel="stylesheet"[^>]+href="https?:'
    asks += r'|@import\s*(?:url\()?["\']?(?:https?:)?//|url\(["\']?https?:'
    for o in site.rglob('*'): assert o.suffix not in ('.html', '.css') or not re.search(asks, o.read_text())
    was = {str(o.relative_to(site)): o.read_bytes() for o in site.rglob('*') if o.is_file()}
    built(project, run)
    assert {str(o.relative_to(site)): o.read_bytes() for o in site.rglob('*') if o.is_file()} == was
    write(project/'nbs/index.ipynb', words('# Index\n\n> first'), words('[gone](00_gone.ipynb), [A](00_a.ipynb#nowhere)'))
    write(project/'nbs/01_b.ipynb', words('# B\n\n> two'), words('## At once'))
    res = built(project, run, ok=False)
    assert res.returncode == 1 and 'index.html: 00_gone' in res.stderr and 'index.html: a.html#nowhere' in res.stderr
    assert '01_b.ipynb: no words before its first section' in res.stderr


def test_page_tells_what_it_takes_and_folds_its_code(project, run):
    if not shutil.which('npm'): pytest.skip('no npm')
    site = site_project(project)/'_docs'
    (project/'results').mkdir()
    rows = [dict(page='00_a.ipynb', slow=s, device=d, cores=c, seconds=n)
            for s, d, c, n in [(False, 'cpu', 2, 200), (True, 'cpu', 2, 7200), (False, 'cpu', 1, 999), (True, 'Some GPU', 8, 60)]]
    (project/'results/bench_pages.json').write_text(json.dumps(rows))
    built(project, run)
    page = (site/'a.html').read_text()
    facts = dict(re.findall(r'<dt>([^<]*)</dt><dd>([^<]*)</dd>', page))
    cpu, gpu = '3 min, 2.0 hours with its long runs', '60 s with its long runs'
    assert facts == {'To read': 'about 1 min', 'To run on two cores': cpu, 'On a GPU': gpu}
    assert 'https://colab.research.google.com/github/slowai/slowai/blob/main/nbs/00_a.ipynb' in page
    assert (site/'notebooks/00_a.ipynb').read_bytes() == (project/'nbs/00_a.ipynb').read_bytes()
    assert 'href="notebooks/00_a.ipynb" download' in page
    learn = r'class="sl-learn">\s*<p><span class="sl-title">What you will learn</span></p>\s*'
    assert re.search(learn + '<p>You will know <a href="reference/a.html#six"><code>six</code></a>', page)
    assert '<summary>One half · 19 lines</summary>' in page and page.count('class="code-fold"') == 1
    folds = re.findall(r'<details class="([^"]*)"><summary>(.*?)</summary>', page)
    assert folds == [('code-fold sl-imports', 'imports <code>math, os, a</code>'),
                     ('code-fold sl-checks', 'checks <code>assert six() == x &gt; 5</code>'), ('sl-solution', 'Solution')]
    assert re.search(r'id="six" class="sl-def">\s*<p><a href="reference/a.html#six"', page)
    assert '<code>nothing</code>' in page and 'href="reference/a.html#Half.of"><code>Half.of</code></a>' in page
    alts = re.findall(r'<img alt="([^"]*)"[^>]*src="pictures/\w+\.png" width="1" height="1" loading="lazy"', page)
    assert alts[0].startswith('A picture in the section “Halves”') and alts[1:] == ['one', 'a &lt; b', 'seven']
    assert page.index('sl-solution') < page.index('alt="seven"') < page.rindex('</details>')
    (project/'results/bench_pages.json').unlink()
    built(project, run)
    assert re.findall(r'<dt>([^<]*)</dt><dd>([^<]*)</dd>', (site/'a.html').read_text()) == [('To read', 'about 1 min')]


@pytest.fixture
def kinds(monkeypatch):
    "What tools/docs/cells.py says that cells are; a cell is its source, or its source and an output"
    monkeypatch.syspath_prepend(str(ROOT/'tools'))
    kinds = importlib.import_module('docs.cells').kinds
    return lambda *cs: kinds([dict(cell_type='code', source=c[0], outputs=c[1:]) if isinstance(c, tuple) else
                              dict(cell_type='code', source=c, outputs=[]) for c in cs])


@pytest.mark.parametrize('source', [
    'test_eq(1, 1)', 'assert f(2) == 3', 'test_fail(lambda: f(0), contains="n: expected")', 'for n in (1, 2): test_eq(f(n), n)',
    'x = torch.ones(2)\ntorch.manual_seed(0)\ntest_eq(f(x), x)', 'with quiet() as err: assert f(1)\ntest_eq(err.text, "")',
    'def bad():\n    "A helper"\n    raise ValueError("no")\ntest_fail(bad)', 'm = Net()\nm.train()\nm.x = 1\nassert f(m)',
    'found = 0\nfor i in range(3):\n    try: f(i)\n    except ValueError: found += 1\ntest_eq(found, 3)'])
def test_checks_are_told_from_the_story(source, kinds):
    assert kinds('import torch\nfrom x import Net', source, 'f(5)') == ['imports', 'checks', None]


@pytest.mark.parametrize('cell', [
    'f(2)', 'x = 1', '#| exports\ndef f(): return 1\nassert f() == 1', ('assert f(2) == 3', 'what it shows'), 'import os\nassert os.name',
    'def long(x):\n    a = x\n    b = a\n    c = b\n    return c\nassert long(1) == 1'])
def test_what_shows_or_builds_something_is_story(cell, kinds): assert kinds(cell) == [None]


def test_what_the_story_takes_up_again_is_no_check(kinds):
    "Names decide, and not the cell's looks: what it sets or changes, and what cells further down read before they set it anew"
    check = 'x = g()\nassert x > 0'
    assert kinds(check, 'plot(x)') == [None, None]
    assert kinds(check, 'x = 3\nplot(x)') == ['checks', None]
    assert kinds(check, 'x = x + 1') == [None, None]
    assert kinds(check, 'def later(): return x') == [None, None]
    assert kinds(check, 'def later(x): return [x for x in x]') == ['checks', None]
    assert kinds(check, 'for x in (1, 2): plot(x)') == ['checks', None] and kinds(check, 'for y in x: plot(y)') == [None, None]
    assert kinds(check, 'assert x < 9', 'plot(y)') == ['checks', 'checks', None]
    assert kinds(check, '#| hide\nclean_up(x)') == ['checks', None]
    assert kinds('model = Net()', 'model.train()\nassert model.training', 'plot(model)') == [None, None, None]
    assert kinds('model = Net()', 'model.n = 3\nassert model.n', 'plot(model)') == [None, None, None]
    assert kinds('model = Net()', 'fit(model)\nassert model.n', 'plot(model)') == [None, None, None]
    assert kinds('model = Net()', 'fit(model)\nassert model.n', 'plot(1)') == [None, 'checks', None]


def test_imports_and_solutions_are_known(kinds):
    quiet = 'import warnings\nwarnings.filterwarnings("ignore")\n%matplotlib inline\nfrom torch import nn'
    assert kinds('#| export\nimport torch', quiet, '#| solution\nassert 1', '#| solution\nplot(x)') == ['imports']*2 + ['solution']*2
    cells = importlib.import_module('docs.cells')
    body = cells.statements('import torch.nn.functional as F, os\nfrom torch import nn\nfrom slowai.data import a\nfrom . import b')
    assert cells.imported(body, 'slowai') == ['torch', 'os', 'slowai.data']


def test_reference_and_map_are_made_from_the_package(project, run):
    src = site_project(project)/'build/site'
    run(os.path.join(os.path.dirname(sys.executable), 'nbdev_export'), cwd=project)
    run(sys.executable, 'tools/build_docs.py', '--sources', 'build/site', cwd=project)
    ref = (src/'reference/a.qmd').read_text()
    assert '## six {#six}' in ref and 'six(n=6) -> int' in ref
    assert 'Six, by [`Half`](a.qmd#Half)' in ref and '**Returns** `int`: as many' in ref
    row = '<th scope="row"><code>n</code></th><td><code>int</code></td><td><code>6</code></td><td>how many, above 0</td>'
    assert row in ref and '### Half.of {#Half.of}' in ref and '[Halves](../a.ipynb#half)' in ref
    line = (project/'slowai/a.py').read_text().splitlines().index('def six(') + 1
    assert f'[source](https://github.com/slowai/slowai/blob/main/slowai/a.py#L{line}-L{line+4})' in ref
    assert 'id="map-a"' in (src/'map.qmd').read_text() and (src/'reference/index.qmd').exists()
    assert 'reference/a.qmd' in (src/'sidebar.yml').read_text() and '- 00_a.ipynb' in (project/'nbs/sidebar.yml').read_text()
    res = run(sys.executable, 'tools/build_docs.py', '--sources', 'build/site', cwd=project, ok=False)
    assert res.returncode == 1 and 'a folder that is not there yet' in res.stderr


def test_site_of_quarto_is_made_to_ask_no_other_host(project, run):
    site = project/'_docs'
    (site/'libs').mkdir(parents=True)
    own = '<link rel="canonical" href="https://example.org/a.html"><script src="libs/own.js"></script>'
    (site/'a.html').write_text('<link href="https://cdn.example.org/x.css" rel="stylesheet">' + own +
                               '<script src="https://cdn.example.org/require.min.js" integrity="sha" crossorigin="anonymous"></script>')
    (site/'libs/theme.css').write_text('@import"https://fonts.example.org/css2?family=Some+Font:wght@300;400&display=swap";body{color:red}')
    run(sys.executable, 'tools/build_docs.py', '--finish', '_docs', cwd=project)
    assert (site/'a.html').read_text() == own
    assert (site/'libs/theme.css').read_text() == 'body{color:red}'
    (site/'a.html').write_text('<img src="https://example.org/a.png">')
    res = run(sys.executable, 'tools/build_docs.py', '--finish', '_docs', cwd=project, ok=False)
    assert res.returncode == 1 and 'a.html: https://example.org/a.png' in res.stderr


def test_apt_is_asked_only_where_it_is(project, run, tmp_path):
    debian = [sys.executable, project/'tools/debian.py', 'some-package']
    res = run(*debian, cwd=project, ok=False, PATH=str(tmp_path/'nothing'))
    assert res.returncode == 1 and 'no apt-get' in res.stderr
    fake = tmp_path/'bin'
    fake.mkdir()
    for name in 'apt-get', 'sudo':
        (fake/name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/log\n' + ('shift; exec "$@"\n' if name == 'sudo' else ''))
        (fake/name).chmod(0o755)
    run(*debian, cwd=project, PATH=f'{fake}:{os.environ["PATH"]}')
    asked = [o for o in (tmp_path/'log').read_text().splitlines() if o.startswith('apt-get')]
    assert asked == ['apt-get -qq update', 'apt-get -qq install -y some-package']


def test_wrong_python_is_named(tmp_path):
    if not shutil.which('make'): pytest.skip('no make')
    old = tmp_path/'python3'
    pretend = "import sys; sys.version_info = (3, 9); sys.version = '3.9.1 x'; exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{pretend}" "$2"\n')
    old.chmod(0o755)
    res = subprocess.run(['make', f'VENV={tmp_path}/venv', f'PYTHON={old}', 'lint'], cwd=ROOT, capture_output=True, text=True)
    assert res.returncode and 'wants Python 3.11 or newer; this is 3.9.1' in res.stderr


@pytest.fixture
def runner(monkeypatch):
    "tools/run_preactivation.py as a module"
    monkeypatch.syspath_prepend(str(ROOT/'tools'))
    return importlib.import_module('run_preactivation')


def test_runner_of_the_answer_passes_over_what_is_done(tmp_path, runner):
    "Parts are the same whatever is done already, so that two processes never run the same recipe"
    results = tmp_path/'answer.json'
    names = lambda *args: [(s, r.name) for s, r in runner.todo([0, 1], ['failing', 'post'], results, *args)]
    whole = names()
    assert whole == [(0, 'failing'), (0, 'post'), (1, 'failing'), (1, 'post')]
    results.write_text(json.dumps([dict(name='failing', seed=0, epochs=4)]))
    assert names() == whole[1:]
    assert names('1/2') == [(1, 'failing')] and names('2/2') == [(0, 'post'), (1, 'post')]
    every = {r.name: r for r in runner.every_recipe}
    assert [runner.file_of(every[k]).name for k in ('post', 'post, fp32')] == ['preact_answer.json', 'preact_seventeen.json']
    assert runner.file_of(every['post'], results) == results


def test_runner_of_the_answer_says_what_is_wrong(tmp_path, runner, run):
    "Before the first step, and without a record"
    out = tmp_path/'answer.json'
    with pytest.raises(SystemExit, match=r"--only: \['nothing\*'\] is none of failing, post"): runner.todo([0], ['nothing*'], out)
    for part in ('3/2', '0/2', 'x'):
        with pytest.raises(SystemExit, match=f"--part: expected something like 1/2, got '{part}'"): runner.todo([0], ['*'], out, part)
    where = ['--results', out, '--data', tmp_path/'nowhere']
    res = run(sys.executable, ROOT/'tools/run_preactivation.py', *where, cwd=tmp_path, ok=False, PYTHONPATH=str(ROOT))
    assert res.returncode and 'nowhere' in res.stderr and 'Traceback' not in res.stderr and not out.exists()


@pytest.fixture
def full_size(monkeypatch, tmp_path, capsys):
    "tools/run_full_size.py as a function of its arguments, which returns what it printed"
    monkeypatch.syspath_prepend(str(ROOT/'tools'))
    tool = importlib.import_module('run_full_size')
    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['run_full_size', *map(str, args)])
        tool.main()
        return capsys.readouterr().out
    return call


def test_the_full_size_list_goes_its_whole_way_at_a_tiny_size(tmp_path, full_size, capsys):
    there = tmp_path/'try.json'
    few = '--try', '--results', there, '--only', '*start and order*', 'repaired, full size'
    assert 'All 3 runs are finished' in full_size(*few)
    records = json.loads(there.read_text())
    assert len(records) == 3
    assert {o['recipe']['init'] for o in records} == {'leaky', 'kaiming'} and all(o['recipe']['epochs'] == 1 for o in records)
    before = there.read_bytes()
    assert 'held-out' not in full_size(*few) and there.read_bytes() == before    # what is finished is not run again
    assert '1 runs are left' in full_size(*few[:3], '--only', 'post, full size', '--minutes', '-1')
    with pytest.raises(SystemExit, match='none of'): full_size('--only', 'nobody')
    with pytest.raises(SystemExit): full_size('--try')
    assert '--results' in capsys.readouterr().err


def test_the_full_size_list_is_estimated_whole(tmp_path, run):
    "As a program of its own, from another folder; page 05a adds up all that it lists"
    few = '--only', '*start and order*', '--results', tmp_path/'none.json'
    tool = sys.executable, ROOT/'tools/run_full_size.py', '--estimate', *few
    said = run(*tool, cwd=tmp_path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1').stdout
    assert 'H100-class' in said and said.count(' min ') == said.count(' in all ') == 2 and len(said.splitlines()) == 3


@pytest.fixture
def records(monkeypatch, tmp_path):
    "tools/run_records.py as a function of its arguments, its list cut down to drawn shapes"
    monkeypatch.syspath_prepend(str(ROOT/'tools'))
    tool = importlib.import_module('run_records')
    shapes = tool.RECIPES['shapes_4']
    monkeypatch.setattr(tool, 'PLAN', [(shapes, dict(epochs=1), 'to see that it runs'), (shapes, dict(epochs=1, lr=.02), 'twice the rate')])
    def call(*args):
        where = '--runs', tmp_path/'runs', '--results', tmp_path/'results'
        monkeypatch.setattr(sys, 'argv', ['run_records', *map(str, (*args, *where))])
        tool.main()
    call.tool, call.file = tool, tmp_path/'results/records_trials.json'
    return call


def test_runner_of_records_runs_what_is_not_on_file(records, capsys):
    records('trials', '--estimate')
    said = capsys.readouterr().out
    assert 'shapes_4: epochs 1 · to see that it runs' in said and 'shapes_4: epochs 1, lr 0.02 · twice the rate' in said
    assert not records.file.exists()
    records('trials', '--seeds', 0, 1, '--only', 'shapes_4: epochs 1')
    made = json.loads(records.file.read_text())
    assert [(o['name'], o['seed'], o['why'], o['evaluated_on']) for o in made] == [
        ('shapes_4: epochs 1', s, 'to see that it runs', 'held-out images') for s in (0, 1)]
    assert all(o['hours'] > 0 and o['macs'] > 0 and 0 <= o['acc_tta'] <= 1 for o in made)
    was = records.file.read_bytes()
    records('trials', '--only', 'shapes_4: epochs 1')
    assert records.file.read_bytes() == was and 'All 1 runs are finished' in capsys.readouterr().out


def test_runner_of_records_says_what_is_wrong(records):
    with pytest.raises(SystemExit, match=r"--only: \['nothing'\] is none of shapes_4: epochs 1, shapes_4: epochs 1, lr 0.02"):
        records('trials', '--only', 'nothing')
    with pytest.raises(SystemExit, match='run_records: path: '): records('records', '--only', 'fashion_3', '--data', 'nowhere')
    old = dict(name='shapes_4: epochs 1', seed=0, epochs=1, recipe=dict(lr=.5))
    records.file.parent.mkdir(parents=True)
    records.file.write_text(json.dumps([old]))
    with pytest.raises(SystemExit, match="has a record of 'shapes_4: epochs 1' with another lr; give the new recipe a name of its own"):
        records('trials')


def test_runner_of_records_measures_what_a_step_takes(records, monkeypatch, capsys):
    tool = records.tool
    shapes = tool.RECIPES['shapes_4']
    monkeypatch.setattr(tool, 'RECIPES', {k: replace(shapes, name=k) for k in ('sprint_90', 'sprint_915')})
    monkeypatch.setattr(tool, 'reference', replace(shapes, name='reference'))
    monkeypatch.setattr(tool, 'pace', partial(tool.pace, rounds=2, steps=20))
    records('pace')
    made = json.loads((records.file.parent/'bench_pace.json').read_text())
    assert [(o['name'], len(o['seconds_a_step'])) for o in made] == [('reference', 2), ('sprint_90', 2), ('sprint_915', 2)]
    assert all(s > 0 for o in made for s in o['seconds_a_step']) and 'sprint_90: ' in capsys.readouterr().out
    for more in ('--estimate',), ('--only', 'sprint_90'):
        with pytest.raises(SystemExit, match='pace: it takes no --only and no --estimate'): records('pace', *more)


def test_every_run_of_records_has_a_name_of_its_own_and_keeps_to_its_budget(records):
    tool = importlib.reload(records.tool)
    for kind in 'trials', 'ladder', 'records', 'seconds':
        runs = [r for r, _, _ in tool.jobs(kind)]
        assert len({r.name for r in runs}) == len(runs) > 2
        for r in runs: r.check()
