"""Run every notebook through nbdev's own test function and every test in tests/, and count both: `python tools/run_tests.py [PATH …]`

What a machine has decides which way some of them go: a data set or drawn shapes, bf16 or not. `--bare` runs those, found by what they
call, as on a machine that has nothing, apart from tests marked `same_everywhere`; `--both` runs everything as it is here, those a second
time like that, and ruff, in one count.
Each notebook runs in a process of its own, and so does each folder of tests: as many at once as there are cores, up to four, which share
the cores' threads among them (two processes of two threads on two cores would slow each other many times over).
The last line is `N passed, N failed`, a notebook counting as one test; the exit status is 0 only if something passed and nothing failed."""
import argparse
import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ENV = dict(MPLBACKEND='Agg', TOKENIZERS_PARALLELISM='false', HF_HUB_DISABLE_TELEMETRY='1', HF_HUB_DISABLE_PROGRESS_BARS='1')


def say(*args): print(*args, flush=True)


# The functions that look at what this machine has
LOOK = {'load_fashion_mnist', 'load_tiny_imagenet', 'has_fast_bf16'}


def bare(
    tmp, # an empty folder
):
    "The environment of a machine without a data set, without a hub and whatever was cached from it, and without fast bf16"
    for o in 'data', 'system', 'cache', 'hub': (Path(tmp)/o).mkdir()
    return dict(SLOWAI_DATA=f'{tmp}/data', XDG_DATA_DIRS=f'{tmp}/system', SLOWAI_CACHE=f'{tmp}/cache', HF_HOME=f'{tmp}/hub',
        HF_HUB_OFFLINE='1', SLOWAI_BF16='0')


def uses(
    tree, # a syntax tree
):
    "The names that code uses: its variables, what it imports, from where, and attributes of that"
    nodes = list(ast.walk(tree))
    imported = {(n.asname or n.name).split('.')[0] for n in nodes if isinstance(n, ast.alias)}
    names = imported | {n.id for n in nodes if isinstance(n, ast.Name)} | {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    for n in nodes:
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in imported: names.add(n.attr)
    return names


def two_ways():
    "Names of the package's functions and classes that come to one of `LOOK`, directly or through others"
    parts = []
    for o in sorted((ROOT/'slowai').glob('[!_]*.py')):
        for n in ast.parse(o.read_text(encoding='utf-8')).body:
            if not isinstance(n, ast.FunctionDef | ast.ClassDef): continue
            patched = any('patch' in ast.unparse(d) for d in n.decorator_list)   # belongs to the class that it is added to
            parts.append((ast.unparse(n.args.args[0].annotation) if patched else n.name, uses(n)))
    names, more = set(), set(LOOK)
    while more - names:
        names |= more
        more = {name for name, used in parts if used & names}
    return names


def goes_two_ways(
    path, # a notebook or a test file
    names, # from `two_ways`
):
    "Does this page, or this test with the helpers that lie beside it, come to something that depends on the machine?"
    path = path.with_name(path.name.partition('::')[0])
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.ipynb':
        text = '\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'code')
        return bool(uses(ast.parse(re.sub(r'^\s*[%!].*$', 'pass', text, flags=re.M))) & names)
    used = uses(ast.parse(text))
    beside = [path.with_name(f'{o}.py') for o in used if o]
    return bool(used & names) or any(goes_two_ways(o, names) for o in beside if o.exists() and o != path)


def notebooks(
    paths, # notebooks or folders; none: all of the project's
):
    "The notebooks to test, in the order of their names"
    from nbdev.doclinks import nbglob
    return sorted({Path(o).resolve() for p in paths for o in (nbglob(p, as_path=True) if p.is_dir() else [p])} if paths else
                  {o.resolve() for o in nbglob(as_path=True)})


def test_one(
    path, # a notebook
    slow, # run its `#| slow` cells too?
):
    "Test one notebook in this process, with the flags that settings.ini names; a failure's traceback goes to stderr"
    from nbdev.config import get_config
    from nbdev.test import test_nb
    cfg = get_config()
    return test_nb(path, skip_flags=[] if slow else cfg.tst_flags.split(), basepath=cfg.config_path)[0]


def test_files(
    paths, # test files and folders, `FILE::TEST` too
):
    "All test files among them, in the order of their names"
    return sorted({o for p in paths for o in (p.rglob('test_*.py') if p.is_dir() else [p])})


def groups(
    paths, # from `test_files`
):
    "Those of a folder together, to share what they set up"
    return [[o for o in paths if o.parent == d] for d in sorted({o.parent for o in paths}, reverse=True)]


class Result(NamedTuple):
    passed: int     # tests
    failed: int
    skipped: Counter = Counter()   # why a test was skipped: how many were


class Runner:
    "Runs commands, several at once, and shows what each has said when it ends"
    def __init__(self,
        jobs, # how many at once
        timeout, # seconds that one may take
    ): self.jobs, self.timeout, self.threads, self.lock, self.running = jobs, timeout, 1, threading.Lock(), set()

    def command(self,
        name, # what it is called on the screen
        cmd, # a list
        env, # what its environment has more than ours
    ):
        "Run it to the end; its exit status, None if it had to be stopped"
        start = time.time()
        env = {'OMP_NUM_THREADS': str(self.threads), **os.environ, **ENV, **env}
        with tempfile.TemporaryFile() as out:
            p = subprocess.Popen(cmd, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            self.running.add(p)
            try: code = p.wait(self.timeout)
            except subprocess.TimeoutExpired: p.kill(); p.wait(); code = None
            self.running.discard(p)
            out.seek(0)
            said = out.read().decode(errors='replace')
        end = 'passed' if code == 0 else 'FAILED' if code == 1 else f"FAILED (stopped after {self.timeout} s)" if code is None else \
            f"FAILED (exit status {code})"
        with self.lock: say(f"{said if code != 0 or 'pytest' in cmd else ''}{name:40} {end:8} {time.time()-start:7.1f} s")
        return code

    def notebook(self, path, slow, env):
        "Test one notebook"
        cmd = [sys.executable, __file__, '--one', *(['--slow'] if slow else []), str(path)]
        code = self.command(path.name + ' bare'*bool(env), cmd, env)
        return Result(int(code == 0), int(code != 0))

    def pytest(self, paths, env):
        "Run pytest; breaking off is a failure"
        with tempfile.TemporaryDirectory() as tmp:
            xml = Path(tmp)/'junit.xml'
            cmd = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--durations=5', f"--junit-xml={xml}", *map(str, paths)]
            if env: cmd += ['-m', 'not same_everywhere']
            code = self.command(paths[0].parent.name + ' bare'*bool(env), cmd, env)
            root = ET.parse(xml).getroot() if xml.exists() else ET.Element('none')
        n = Counter()
        for s in root.iter('testsuite'): n.update({k: int(s.get(k, 0)) for k in ('tests', 'failures', 'errors', 'skipped')})
        failed = n['failures'] + n['errors']
        if code != 0 and not failed and not (env and code == 5): failed = 1   # pytest broke off, or found no test
        skipped = Counter(o.get('message', '') for o in root.iter('skipped'))
        return Result(n['tests'] - n['failures'] - n['errors'] - n['skipped'], failed, skipped)

    def ruff(self):
        "What `make lint` asks, as one test"
        where = [o for o in 'setup.py slowai nbs tools tests bench'.split() if (ROOT/o).exists()]
        code = self.command('ruff', [sys.executable, '-m', 'ruff', 'check', '--quiet', '--config', 'tools/ruff.toml', *where], {})
        return Result(int(code == 0), int(code != 0))

    def run(self,
        jobs, # a list of functions
    ):
        "Run them all; a `Result` for each"
        n = max(1, min(self.jobs, len(jobs)))
        self.threads = max(1, (os.cpu_count() or 1)//n)
        with ThreadPoolExecutor(n) as pool:
            try: return [o.result() for o in [pool.submit(f) for f in jobs]]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for p in list(self.running): p.kill()
                raise


def costs():
    "Seconds that each notebook took when its outputs were saved, by name: the longest start first"
    try: return {o['page']: o['seconds'] for o in json.loads((ROOT/'results/bench_pages.json').read_text()) if not o['slow']}
    except (OSError, ValueError): return {}


def main():
    cores = os.cpu_count() or 1
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('paths', nargs='*', type=Path, help='notebooks and test files; all of both if none is named')
    p.add_argument('--slow', action='store_true', help='run the `#| slow` cells too')
    p.add_argument('--bare', action='store_true', help='as on a machine without data, hub and bf16, what could go another way there')
    p.add_argument('--both', action='store_true', help='all of it as this machine is, that too, and ruff')
    p.add_argument('--jobs', type=int, default=min(cores, 4), help='notebooks and folders of tests at once')
    p.add_argument('--timeout', type=int, default=3600, help='seconds after which a notebook, or a folder of tests, counts as hung')
    p.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    args = p.parse_args()
    args.paths = [o.resolve() for o in args.paths]
    # what a script starts in the background is deaf to Ctrl-C, and so is all that it starts; some tests press it
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(ROOT)
    if args.one: sys.exit(not test_one(args.paths[0], args.slow))
    start, run = time.time(), Runner(args.jobs, args.timeout)
    is_nb = lambda o: o.suffix == '.ipynb' or (o.is_dir() and any(o.glob('*.ipynb')))
    nbs, tests = [o for o in args.paths if is_nb(o)], [o for o in args.paths if not is_nb(o)]
    if nbs or not args.paths: nbs = sorted(notebooks(nbs), key=lambda o: -costs().get(o.name, 0))
    if not args.paths: tests = [ROOT/'tests']
    tests, todo = test_files(tests), []
    with tempfile.TemporaryDirectory() as tmp:
        if not args.bare:
            todo += [partial(run.pytest, o, {}) for o in groups(tests)] + [partial(run.notebook, o, args.slow, {}) for o in nbs]
        if args.bare or args.both:
            env, names = bare(tmp), two_ways()
            nbs, tests = ([o for o in these if goes_two_ways(o, names)] for these in (nbs, tests))
            todo += [partial(run.pytest, o, env) for o in groups(tests)] + [partial(run.notebook, o, False, env) for o in nbs]
        if args.both: todo.append(run.ruff)
        got = run.run(todo)
    if not got: got = [Result(0, 1)]   # no test at all is a failure
    skipped = sum((o.skipped for o in got), Counter())
    for why, n in skipped.items(): say(f"{n} tests of tests/ DID NOT RUN: {why}")
    passed, failed = sum(o.passed for o in got), sum(o.failed for o in got)
    say(f"{time.time()-start:.0f} s in all")
    say(f"{passed} passed, {failed} failed")
    sys.exit(not passed or failed > 0)


if __name__ == '__main__': main()
