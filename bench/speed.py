"""How long training takes: against bare loops, fastai and Lightning, and where the time goes. Writes results/bench_speed.json, and a
picture of it into runs/.

`python bench/speed.py [--only PART …] [--rounds 5]`. The other frameworks live in a virtual environment of their own, .venv/others, which
the script makes: fastai wants another fastcore than slowai. Page 09 draws what is in the file."""
import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
import venv
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import Queue

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from slowai import convolutions
from slowai.batches import Normalize
from slowai.cpu import fused, keep_memory, settle
from slowai.files import write_atomically
from slowai.records import device_name, git_commit
from slowai.resnet import Conv, DeeperCNN, ResidualConvBlock
from slowai.speed import against, in_turn, layer_costs, machine_rates, spread, step_profile, training_step
from slowai.steps import has_fast_bf16

ROOT = Path(__file__).resolve().parent.parent
OUT, CASE, OTHERS = ROOT/'results/bench_speed.json', ROOT/'bench/_speed_case.py', ROOT/'.venv/others'
WANTED = 'fastai==2.8.12', 'lightning==2.6.6', f"torch=={torch.__version__.split('+')[0]}"
ALL = dict(channels_last=True, keep=True, bf16=True, fuse=True, one_pass=True)


def others():
    "The interpreter that has the other frameworks"
    python = OTHERS/'bin/python'
    if not python.exists(): venv.create(OTHERS, with_pip=True)
    if subprocess.run([python, '-c', 'import fastai, lightning'], capture_output=True).returncode:
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', *WANTED], check=True)
    return str(python)


class Contestant:
    "A process that waits for its turn; call it for a round's seconds"
    def __init__(self, case, steps):
        python = others() if case.split('_')[-1] in ('fastai', 'lightning') else sys.executable
        env = {**os.environ, 'PYTHONWARNINGS': 'ignore', 'PYTHONPATH': '' if python != sys.executable else str(ROOT)}
        self.process = subprocess.Popen([python, CASE, case, str(steps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=env)
    def __call__(self):
        self.process.stdin.write('\n'); self.process.stdin.flush()
        return float(self.process.stdout.readline())
    def close(self): self.process.stdin.close(); self.process.wait(60)


def contest(cases, steps, rounds):
    "Seconds of each contestant's rounds, in turn; a first round that doesn't count"
    members, seconds = {k: Contestant(k, steps) for k in cases}, {k: [] for k in cases}
    try:
        for i in range(rounds + 1):
            for k in list(cases)[::-1 if i % 2 else 1]:
                t = members[k]()
                if i: seconds[k].append(t)
            print('.', end='', flush=True)
        print()
    finally:
        for m in members.values(): m.close()
    return seconds


def epoch(rounds, steps=30):
    cases = 'bare tuned tuned_bf16 fastai lightning slowai slowai_bf16'.split()
    return dict(what=f'{steps} steps of 512 images, 28×28', seconds=contest(cases, steps, rounds))


def tiny(rounds, steps=4):
    cases = 'tiny_before tiny_now tiny_before_fp32 tiny_now_fp32'.split()
    return dict(what=f'{steps} steps of 256 images, 64×64', seconds=contest(cases, steps, rounds))


def step(rounds, steps=1000):
    names = 'bare slowai fastai lightning'.split()
    seconds = contest([f'one_{k}' for k in names], steps, 3*rounds)   # short rounds, so more of them
    v = dict(zip(names, seconds.values(), strict=True))
    added = {k: spread([1e6*(a - b)/steps for a, b in zip(s, v['bare'], strict=True)]) for k, s in v.items() if k != 'bare'}
    return dict(bare_us=spread([1e6*s/steps for s in v['bare']]), added_us=added)


def residual(): return DeeperCNN.kaiming(block=ResidualConvBlock)


def batch(bs=512): return torch.randn(bs, 1, 28, 28), torch.randint(10, (bs,))


def roofline(rounds):
    out = {}
    for bf16 in (False, True):
        rates = machine_rates(torch.bfloat16 if bf16 else torch.float32, 2048, 256)
        net = residual().to(memory_format=torch.channels_last)
        out['bfloat16' if bf16 else 'float32'] = dict(rates=rates,
            costs=layer_costs(net, batch()[0].contiguous(memory_format=torch.channels_last), bf16, rounds))
    return out


def profiles(rounds):
    cases = dict(bare={}, channels_last=dict(channels_last=True), bf16=dict(channels_last=True, bf16=True), fast=ALL)
    steps = {k: partial(training_step(residual(), *batch(), **kw), rounds) for k, kw in cases.items()}   # of several steps, memory is kept
    return {k: {kind: ms/rounds for kind, ms in step_profile(f, 1).items()} for k, f in steps.items()}


def water(rounds, bf16=True, steps=10):
    "One setting after the other; memory is kept from one step to the next, not from turn to turn"
    order = [('channels last', 'channels_last'), ('bf16', 'bf16'), ('memory kept', 'keep'), ('kernels', 'fuse'),
        ('Adam in one pass', 'one_pass')]
    cases, kw = dict(plain=training_step(residual(), *batch())), {}
    for name, k in order:
        if k == 'bf16' and not bf16: continue
        kw = {**kw, k: True}
        cases[name] = training_step(residual(), *batch(), **kw)
    seconds = in_turn({k: partial(f, steps) for k, f in cases.items()}, rounds)
    return {k: spread([s/steps for s in v]) for k, v in seconds.items()}


def prefetching(fetch, step, n=4):
    "The next batch is made by a thread while a step runs"
    queue = Queue(1)
    thread = threading.Thread(target=lambda: [queue.put(fetch()) for _ in range(n)])
    thread.start()
    for _ in range(n): step(*queue.get())
    thread.join()


def for_nothing(rounds):
    "On top of all settings: does it help?"
    net = residual().to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)
    images, labels, norm = torch.randint(256, (8192, 1, 28, 28), dtype=torch.uint8), torch.randint(10, (8192,)), Normalize([.3], [.35])
    def fetch():
        i = torch.randint(8192, (512,))
        return norm(images[i]).contiguous(memory_format=torch.channels_last), labels[i]
    def one(x, y, model=net, fuse=True):
        with torch.autocast('cpu', torch.bfloat16):
            with fused(fuse): preds = settle(model(x))
            loss = F.cross_entropy(preds, y)
        loss.backward(); opt.step(); opt.zero_grad()
    def usual(): [one(*fetch()) for _ in range(4)]
    def flushed():
        torch.set_flush_denormal(True); usual(); torch.set_flush_denormal(False)
    compiled = torch.compile(net)
    cases = {'all settings': usual, 'the next batch made by a thread': lambda: prefetching(fetch, one),
        'denormal numbers flushed': flushed,
        'torch.compile instead of the kernels': lambda: [one(*fetch(), compiled, False) for _ in range(4)]}
    with keep_memory(): seconds = in_turn(cases, rounds)
    return {k: v for k, v in against(seconds, 'all settings').items() if k != 'all settings'}


def pairs(rounds):
    "Convolutions between pairs of pixels, forward and backward, against torch's own"
    out, rule, convolutions._gains = {}, convolutions._gains, lambda *shape: True
    for c, o, ks in ((1, 8, 5), (4, 8, 5), (8, 8, 5), (8, 8, 3), (8, 16, 5), (16, 16, 5)):
        row = out[f'{c} → {o}, {ks}×{ks}'] = {}
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(512, c, 28, 28).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_(c > 1)
            w = torch.randn(o, c, ks, ks).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
            g = torch.randn(512, o, 28, 28).to(dtype).contiguous(memory_format=torch.channels_last)
            def run(conv, x=x, w=w, g=g, margin=ks//2): conv(x, w, None, 1, margin).backward(g)
            cases = dict(torch=partial(run, F.conv2d), pairs=partial(run, convolutions.fast_conv2d))
            with keep_memory(): seconds = in_turn(cases, 3*rounds)
            row[str(dtype)[6:]] = against(seconds, 'torch')['pairs']
    convolutions._gains = rule
    return out


def folded(model):
    "A copy for evaluation whose norms are part of its convolutions"
    model = deepcopy(model).eval()
    for m in model.modules():
        if isinstance(m, Conv) and m.norm is not None:
            bn, m.norm = m.norm, None
            m.weight, m.bias = fuse_conv_bn_weights(m.weight, m.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    return model


def evaluation(rounds, n=4096):
    "Scores of `n` images, channels last, in bf16 where it is fast"
    net, x = residual().eval().to(memory_format=torch.channels_last), torch.randn(n, 1, 28, 28)
    x, apart = x.contiguous(memory_format=torch.channels_last), folded(net)
    torch.testing.assert_close(apart(x[:64]), net(x[:64]), rtol=1e-3, atol=1e-3)
    def scores(model=net, bs=512, fuse=True, mode=torch.no_grad):
        with mode(), torch.autocast('cpu', torch.bfloat16, enabled=has_fast_bf16('cpu')), fused(fuse), keep_memory():
            for xb in x.split(bs): settle(model(xb))
    cases = {'as in training: kernels, no gradients': scores, 'without kernels': partial(scores, fuse=False),
        'inference mode': partial(scores, mode=torch.inference_mode), 'batches of 2,048': partial(scores, bs=2048),
        'norms folded into the convolutions': partial(scores, apart), 'folded, without kernels': partial(scores, apart, fuse=False)}
    v = against(in_turn(cases, rounds), next(iter(cases)))
    return {k: o for k, o in v.items() if k != next(iter(cases))}


def growth(rounds):
    grid = dict(images=[10**3, 10**4, 10**5, 10**6], size=[16, 32, 64], width=[4, 8, 16], depth=[1, 2, 4], batch_size=[64, 256, 1024])
    small = dict(images=dict(size=8, width=4, batch_size=512), size=dict(images=1024), width=dict(images=4096), depth=dict(images=4096),
        batch_size=dict(images=8192))
    out = {}
    for k, values in grid.items():
        out[k] = [{k: v, **json.loads(subprocess.run([sys.executable, CASE, 'growth', json.dumps({**small[k], k: v})],
            capture_output=True, text=True, check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}).stdout)} for v in values]
        print(k, out[k], flush=True)
    return out


def imports(rounds):
    "Seconds that each module adds to torch's own import, in fresh processes that have imported torch"
    code = 'import os, sys, time; t = time.perf_counter(); import torch; print("torch", time.perf_counter() - t, flush=True)\n' + '''
for m in sys.argv[1:]:
    if not os.fork():
        t = time.perf_counter(); __import__(m); print(m, time.perf_counter() - t, flush=True); os._exit(0)
    os.wait()'''
    modules = [f'slowai.{o.stem}' for o in sorted((ROOT/'slowai').glob('[a-z]*.py'))]
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *modules], capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)})
    return {k: float(v) for k, v in (o.split() for o in r.stdout.splitlines() if o.startswith(('torch ', 'slowai.')))}


PARTS = dict(epoch=epoch, tiny=tiny, step=step, roofline=roofline, profile=profiles, waterfall=water,
    waterfall_fp32=lambda n: water(n, False), for_nothing=for_nothing, pairs=pairs,
    evaluation=evaluation, growth=growth, imports=imports)


def machine():
    "What was measured on"
    info = Path('/proc/cpuinfo').read_text(encoding='utf-8') if platform.system() == 'Linux' else ''
    units = [o for o in ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16') if o in info.split()]
    return dict(device=device_name('cpu'), kind=', '.join(units) or platform.machine(), bf16=has_fast_bf16('cpu'), torch=torch.__version__,
        commit=git_commit(ROOT), fastai=WANTED[0], lightning=WANTED[1], numba=version('numba'), python=platform.python_version())


def picture(record):
    "Training time against the bare loop"
    v = against(record['epoch']['seconds'], 'bare')
    fig, ax = plt.subplots(figsize=(7, 2.8), layout='constrained')
    ax.barh(list(v), [o['median'] for o in v.values()], color=['tab:orange' if k.startswith('slowai') else 'tab:blue' for k in v],
        xerr=[[o['median'] - o['min'] for o in v.values()], [o['max'] - o['median'] for o in v.values()]])
    ax.invert_yaxis(); ax.axvline(1, color='black', lw=.8)
    ax.set(xlabel='training time, bare loop = 1', title=record['machine']['device'])
    (ROOT/'runs').mkdir(exist_ok=True); fig.savefig(ROOT/'runs/bench_speed.png', dpi=150)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--only', nargs='*', choices=PARTS, default=list(PARTS))
    p.add_argument('--rounds', type=int, default=5, help='rounds that count, of each measurement')
    args = p.parse_args()
    record, here = json.loads(OUT.read_text(encoding='utf-8')) if OUT.exists() else {}, machine()
    if record.get('machine') != here: record = dict(machine=here)   # parts of another commit or machine don't stand beside ours
    for k in args.only:
        torch.manual_seed(0)
        start, record[k] = time.perf_counter(), PARTS[k](args.rounds)
        print(f'{k}: {time.perf_counter() - start:.0f} s', flush=True)
        write_atomically(OUT, json.dumps(record, indent=1, ensure_ascii=False) + '\n')
    for k, base in (('epoch', 'bare'), ('tiny', 'tiny_before'), ('tiny', 'tiny_before_fp32')):
        if k not in record: continue
        for name, o in against(record[k]['seconds'], base).items():
            print(f"{name:18} {o['median']:.3f} ({o['min']:.3f}–{o['max']:.3f}) of {base}'s time")
    if 'step' in record: print('added to a step, µs:', {k: round(v['median']) for k, v in record['step']['added_us'].items()})
    if 'epoch' in record: picture(record)


if __name__ == '__main__': main()
