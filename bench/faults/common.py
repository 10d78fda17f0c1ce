"What the cases of all frameworks share: the data, the network, and how an observation is put into words"
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

torch.set_num_threads(1)
BS, N, EPOCHS = 16, 128, 3   # 8 batches an epoch, 24 in all
DIE_AT = 13                  # in the middle of the second epoch


def images(n=N, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, generator=g), torch.arange(n) % 10


def network(n=10):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(.2), nn.Linear(32, n))


def digest(model):
    return hashlib.sha256(b''.join(v.detach().cpu().contiguous().numpy().tobytes() for v in model.state_dict().values())).hexdigest()


class Step:
    "Counts training batches over the whole run; the blow falls at `at`"
    def __init__(self, at=DIE_AT, blow=None): self.at, self.blow, self.n = at, blow, 0
    def __call__(self):
        self.n += 1
        if self.n == self.at and self.blow: self.blow()


def kill_self(): os.kill(os.getpid(), signal.SIGKILL)
def term_self(): os.kill(os.getpid(), signal.SIGTERM)


class Hostile:
    "Unpickling it makes a file, as it could delete one"
    def __init__(self, mark): self.mark = str(mark)
    def __reduce__(self): return open, (self.mark, 'w')


def words(e):
    "An exception as its type, its first two lines and its notes"
    first = ' '.join([o.strip() for o in re.sub(r'\x1b\[[0-9;]*m', '', str(e)).splitlines() if o.strip()][:2])
    if len(first) > 200: first = first[:200].rsplit(' ', 1)[0] + ' …'
    return f"{type(e).__name__}: {first}" + ''.join(f' [note: {o.splitlines()[0]}]' for o in getattr(e, '__notes__', []))


def attempt(f, *args, **kwargs):
    "What `f` raised, or None, and what it returned"
    try: return None, f(*args, **kwargs)
    except BaseException as e: return words(e), None  # noqa: B036 - SystemExit and KeyboardInterrupt are observations, too


def said(f, *args, **kwargs):
    "What a user would see of `f`: its exception, or else its warnings about saving, or nothing"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        err, _ = attempt(f, *args, **kwargs)
    told = [' '.join(str(o.message).split()) for o in w if re.search('checkpoint|save|space', str(o.message), re.I)]
    return err or (f'warning: {told[0]}' if told else 'silent')


def phase(file, name, *args, timeout=150):
    "Run function `name` of a case file in a process of its own; its exit status and the last line that it printed"
    r = subprocess.run([sys.executable, file, name, *map(str, args)], capture_output=True, text=True, timeout=timeout)
    out = r.stdout.strip().splitlines()
    err = [o for o in r.stderr.strip().splitlines() if re.match(r'^[\w.]+(Error|Exception|Interrupt|Exit)\b', o)]
    return r.returncode, out[-1] if out else '', err[-1] if err else ''


def ended(rc): return f'killed by signal {-rc}' if rc < 0 else f'exit status {rc}'


def resumed(file, work, blow):
    "Train undisturbed; train with a blow in mid-epoch; go on; compare"
    _, whole, err = phase(file, 'train', work/'whole', 'none', 'fresh')
    if not whole: return f'not even undisturbed: {err}'
    rc, _, _ = phase(file, 'train', work/'broken', blow, 'fresh')
    rc2, after, err = phase(file, 'train', work/'broken', 'none', 'resume')
    if rc2 or not after: return f'{ended(rc)}; going on failed: {err or ended(rc2)}'
    same = json.loads(whole)['digest'] == json.loads(after)['digest']
    return f"{ended(rc)}; went on at {json.loads(after)['from']}; weights equal to the undisturbed run's: {same}"


def fill(folder):
    "Leave room for half a checkpoint"
    size = max(o.stat().st_size for o in Path(folder).rglob('*') if o.is_file())
    free = os.statvfs(folder)
    with open(Path(folder)/'ballast', 'wb') as f: f.write(b'x'*max(free.f_bavail*free.f_frsize - size//2, 0))


def trip(model, at=5):
    "Let the network fail in its training batch number `at`"
    step = Step(at, fail)
    model.register_forward_hook(lambda m, x, y: step() if m.training else None)


def fail(): raise RuntimeError('tripped')


def main(cases, version):
    "`case.py FAULT FOLDER` prints what happened; `case.py PHASE …` runs a part of a case"
    name, work = sys.argv[1], Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    f = cases[name]
    out = f(work, *sys.argv[3:])
    if name == 'train': print(json.dumps(out))
    else: print(json.dumps(dict(version=version, what_happened=re.sub(re.escape(str(work.resolve())), '…', str(out)))))
