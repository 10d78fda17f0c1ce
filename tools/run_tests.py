"""Run every notebook through nbdev's own test function and every test in tests/, and count both: `python tools/run_tests.py [PATH …]`

Each notebook runs in a process of its own, one after the other: two at once would share the cores and slow each other many times over.
The last line is `N passed, N failed`, a notebook counting as one test; the exit status is 0 only if something passed and nothing failed."""
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENV = dict(MPLBACKEND='Agg', TOKENIZERS_PARALLELISM='false', HF_HUB_DISABLE_TELEMETRY='1', HF_HUB_DISABLE_PROGRESS_BARS='1')


def say(*args): print(*args, flush=True)


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


def run_notebook(
    path, # a notebook
    slow, # run its `#| slow` cells too?
    timeout, # seconds it may take
):
    "Test one notebook in a fresh process; True if it passed"
    start = time.time()
    cmd = [sys.executable, __file__, '--one', *(['--slow'] if slow else []), str(path)]
    try: code = subprocess.run(cmd, env={**os.environ, **ENV}, stdin=subprocess.DEVNULL, timeout=timeout).returncode
    except subprocess.TimeoutExpired: code = f"stopped after {timeout} s"
    end = 'passed' if code == 0 else 'FAILED' if code == 1 else f"FAILED ({code if isinstance(code, str) else f'exit status {code}'})"
    say(f"{path.name:32} {end:8} {time.time()-start:7.1f} s")
    return code == 0


def run_pytest(
    paths, # test files or folders
    timeout, # seconds they may take together
):
    "Run pytest; how many tests passed and failed, and why others were skipped: {reason: how many}. Breaking off is a failure"
    with tempfile.TemporaryDirectory() as tmp:
        xml = Path(tmp)/'junit.xml'
        cmd = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--durations=5', f"--junit-xml={xml}", *map(str, paths)]
        try: code = subprocess.run(cmd, cwd=ROOT, env={**os.environ, **ENV}, stdin=subprocess.DEVNULL, timeout=timeout).returncode
        except subprocess.TimeoutExpired: code = say(f"pytest stopped after {timeout} s")
        root = ET.parse(xml).getroot() if xml.exists() else ET.Element('none')
        n = dict.fromkeys(('tests', 'failures', 'errors', 'skipped'), 0)
        for s in root.iter('testsuite'): n = {k: v + int(s.get(k, 0)) for k, v in n.items()}
        skipped = Counter(o.get('message', '') for o in root.iter('skipped'))
    failed = n['failures'] + n['errors']
    if code != 0 and not failed: failed = 1   # pytest broke off, or found no test
    return n['tests'] - n['failures'] - n['errors'] - n['skipped'], failed, skipped


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('paths', nargs='*', type=Path, help='notebooks and test files; all of both if none is named')
    p.add_argument('--slow', action='store_true', help='run the `#| slow` cells too')
    p.add_argument('--timeout', type=int, default=1800, help='seconds for one notebook, and for all of pytest')
    p.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    args = p.parse_args()
    args.paths = [o.resolve() for o in args.paths]
    # what a script starts in the background is deaf to Ctrl-C, and so is all that it starts; some tests press it
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(ROOT)
    if args.one: sys.exit(not test_one(args.paths[0], args.slow))
    start, passed, failed = time.time(), 0, 0
    is_nb = lambda o: o.suffix == '.ipynb' or (o.is_dir() and any(o.glob('*.ipynb')))
    nbs, tests = [o for o in args.paths if is_nb(o)], [o for o in args.paths if not is_nb(o)]
    if nbs or not args.paths:
        oks = [run_notebook(o, args.slow, args.timeout) for o in notebooks(nbs)]
        passed, failed = sum(oks), len(oks) - sum(oks)
        say(f"{len(oks)} notebooks in {time.time()-start:.0f} s")
    if tests or not args.paths:
        p, f, skipped = run_pytest(tests or [ROOT/'tests'], args.timeout)
        passed, failed = passed + p, failed + f
        for why, n in skipped.items(): say(f"{n} tests of tests/ DID NOT RUN: {why}")
    say(f"{time.time()-start:.0f} s in all")
    say(f"{passed} passed, {failed} failed")
    sys.exit(not passed or failed > 0)


if __name__ == '__main__': main()
