"Runs of `faults_child` in processes that are forked off one that has imported torch already: a few tenths of a second each, not seconds"
import atexit
import multiprocessing
import os
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import faults_child
import pytest
import torch

HERE = Path(__file__).parent
SETTINGS = dict(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='PASSIVE', MPLBACKEND='Agg', IN_TEST='', PYTHONHASHSEED='random',
    PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parent.parent), os.environ.get('PYTHONPATH', '')]))
LIMIT = 1200   # seconds after which something counts as hung, on the slowest of machines; what works never waits for it
context = multiprocessing.get_context('forkserver')


class Ended(NamedTuple):
    code: int       # exit status; negative: the signal that ended it
    said: str       # stdout and stderr together
    final: dict     # what `train` left, None if it didn't get there


def _child(log, name, args, kwargs):
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for n in (1, 2): os.dup2(fd, n)
    getattr(faults_child, name)(*args, **kwargs)


def fork(f, *args):
    "A process that calls `f`, forked off a server that has imported what any of them need; the first of them starts it, for all tests"
    before = {k: os.environ.get(k) for k in SETTINGS}
    os.environ.update(SETTINGS)
    try:
        context.set_forkserver_preload(['teams', 'faults_child', 'accelerate', 'slowai.runs'])
        p = context.Process(target=f, args=args)
        p.start()
        atexit.register(lambda: p.is_alive() and p.kill())   # of a test that has failed; Python would wait for it
        return p
    finally:
        for k, v in before.items():
            if v is None: os.environ.pop(k, None)
            else: os.environ[k] = v


def start(name, log, *args, **kwargs):
    "A process that runs `faults_child.<name>`; what it says goes to the file `log`"
    return fork(_child, str(log), name, [str(o) if isinstance(o, Path) else o for o in args], kwargs)


def wait_for(ready, alive):
    "Until `ready()`; a failure where that can't come any more, since `alive()` is false, or doesn't"
    until = time.monotonic() + LIMIT
    while not ready():
        if not alive() or time.monotonic() > until: pytest.fail('what was waited for never came')
        time.sleep(.02)


def finish(p, log, out=None):
    p.join(LIMIT)
    if p.is_alive():
        p.kill(); p.join()
        pytest.fail(f'still running after {LIMIT} s:\n{Path(log).read_text()}')
    if p.exitcode == faults_child.SKIP: pytest.skip('needs the right to mount a disk of its own (root, or user namespaces)')
    return Ended(p.exitcode, Path(log).read_text(), torch.load(out, weights_only=True) if out and Path(out).exists() else None)


def run(name, folder, *args, out=True, **kwargs):
    "Run `faults_child.<name>(folder, out, …)` to its end"
    number = len(list(Path(folder).parent.glob('log*')))
    log, out = Path(folder).parent/f'log{number}', [Path(folder).parent/f'out{number}']*out
    return finish(start(name, log, Path(folder), *out, *args, **kwargs), log, *out)


def resume(folder, **kwargs): return run('train', folder, resume=True, **kwargs)


@cache
def undisturbed():
    "What the run computes that nobody disturbs, and that is never saved"
    with tempfile.TemporaryDirectory() as d:
        res = run('train', Path(d)/'run', every=10**6)
        assert res.code == 0, res.said
        return res.final


def assert_same(final, ref=None):
    "Weights, average, statistics, history and random state, all of them equal to the bit"
    ref = undisturbed() if ref is None else ref
    assert final is not None and final.keys() == ref.keys()
    for k in ('model', 'ema'):
        assert final[k].keys() == ref[k].keys()
        for nm, t in ref[k].items(): assert torch.equal(final[k][nm], t), f'{k}.{nm} differs'
    assert all(torch.equal(a, b) for a, b in zip(final['means'], ref['means'], strict=True)), 'activation statistics differ'
    assert torch.equal(final['random'], ref['random']), 'random state differs'
    for k in ('history', 'lrs', 'best', 'epochs'): assert final[k] == ref[k], f'{k} differs'


def saved(folder, kind='checkpoint'): return sorted(p.name for p in Path(folder).glob(f'{kind}-*.pt'))


def python(*args, **kwargs): return [sys.executable, '-W', 'ignore::FutureWarning', str(HERE/'faults_child.py'), *map(str, args)]
