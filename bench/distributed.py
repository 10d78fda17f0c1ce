"""Two processes on two cores against one process with both, and against one with one: training steps a second of the residual network,
the same batch in all, in rounds that take turns; and what it costs two processes to add up a tensor, by its size.

`python bench/distributed.py` prints it and writes results/bench_distributed.json. Start-up and the first steps don't count, for anybody."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from slowai.batches import shapes_dls
from slowai.distributed import AccelerateCB
from slowai.files import write_atomically
from slowai.launch import launch
from slowai.learner import Callback, DeviceCB, TrainLearner
from slowai.resnet import DeeperCNN, ResidualConvBlock
from slowai.states import set_seed
from slowai.steps import ChannelsLastCB, MixedPrecisionCB, has_fast_bf16

OUT = Path(__file__).resolve().parent.parent/'results/bench_distributed.json'
BS, WARM = 256, 4
WAYS = {'one process, one thread': (1, 1), 'one process, two threads': (1, 2), 'two processes, one thread each': (2, 1)}
SIZES = [2**k for k in range(10, 27, 2)]   # bytes


class Times(Callback, order=300):
    "When each step ended"
    def before_fit(self, learn): self.at = []
    def after_batch(self, learn): self.at.append(time.perf_counter())


class Costs(Callback, order=300):
    "Seconds of one message of a few bytes, and of one sum over the processes by its size"
    def after_fit(self, learn):
        team, self.sums = learn.team, {}
        self.meet = timed(lambda: team.meet('bench'), 50)
        for n in SIZES:
            x = torch.ones(n//4)
            self.sums[n] = timed(lambda: dist.all_reduce(x), 20 if n < 2**22 else 5)


def timed(f, n):
    "Median seconds of `f`"
    for _ in range(3): f()
    ts = []
    for _ in range(n):
        t = time.perf_counter(); f(); ts.append(time.perf_counter() - t)
    return statistics.median(ts)


def work(out, processes, threads, steps):
    "One run, in a process of its own"
    torch.set_num_threads(threads); set_seed(0)
    dls = shapes_dls(bs=BS, n_train=BS*(steps + WARM), n_test=BS)
    times, costs = Times(), Costs()
    cbs = [DeviceCB('cpu'), MixedPrecisionCB(), ChannelsLastCB(), times]
    if processes > 1: cbs += [AccelerateCB(processes), costs]
    learn = TrainLearner(DeeperCNN.kaiming(block=ResidualConvBlock, n_outputs=10), dls, F.cross_entropy, lr=1e-3,
        opt_func=torch.optim.AdamW,
        cbs=cbs)
    learn.fit(1, valid=False)
    torch.set_num_threads(threads)
    if learn.team.rank: return
    r = dict(steps_per_second=steps/(times.at[-1] - times.at[WARM - 1]), parameters=sum(p.numel() for p in learn.model.parameters()))
    if processes > 1: r |= dict(message=costs.meet, sums={str(k): v for k, v in costs.sums.items()})
    Path(out).write_text(json.dumps(r))


def run(way, steps):
    "Start one run and read what it measured"
    processes, threads = WAYS[way]
    with tempfile.TemporaryDirectory() as d:
        cmd = [sys.executable, '-W', 'ignore', __file__, '--work', f'{d}/r', str(processes), str(threads), str(steps)]
        os.environ['OMP_NUM_THREADS'] = str(threads)
        code = launch(cmd, processes) if processes > 1 else subprocess.run(cmd).returncode
        if code: sys.exit(f'{way}: exit status {code}')
        return json.loads(Path(f'{d}/r').read_text())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--steps', type=int, default=24)
    p.add_argument('--out', type=Path, default=OUT)
    p.add_argument('--work', nargs=4, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.work: return work(args.work[0], *map(int, args.work[1:]))
    rounds = [{w: run(w, args.steps) for w in WAYS} for _ in range(args.rounds)]
    speed = {w: [r[w]['steps_per_second'] for r in rounds] for w in WAYS}
    two, one, both = speed['two processes, one thread each'], speed['one process, one thread'], speed['one process, two threads']
    last = [r['two processes, one thread each'] for r in rounds]
    res = dict(batch=BS, parameters=last[0]['parameters'], cores=os.cpu_count(), bf16=has_fast_bf16('cpu'), torch=torch.__version__,
        steps_per_second=speed, against_one_thread=[a/b for a, b in zip(two, one)], against_two_threads=[a/b for a, b in zip(two, both)],
        message=statistics.median(r['message'] for r in last),
        sums={k: statistics.median(r['sums'][k] for r in last) for k in last[0]['sums']})
    write_atomically(args.out, json.dumps(res, indent=1) + '\n')
    print(json.dumps(res, indent=1))


if __name__ == '__main__': main()
