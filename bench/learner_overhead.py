"""What the learner adds to a training step: against the same loop written by hand, interleaved, on the same batches.

One-layer model: microseconds added to each step, with metrics and a progress bar on. Residual network: ratio of the times.
`python bench/learner_overhead.py` prints both and writes results/bench_learner.json."""
import argparse
import io
import json
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from slowai.batches import shapes_dls
from slowai.files import write_atomically
from slowai.learner import DeviceCB, MetricsCB, MulticlassAccuracy, ProgressCB, TrainLearner
from slowai.records import device_name
from slowai.resnet import DeeperCNN, ResidualConvBlock
from slowai.speed import spread
from slowai.states import set_seed

OUT = Path(__file__).resolve().parent.parent/'results/bench_learner.json'


def by_hand(model, dls):
    "The loop that the learner stands for, with nothing else in it"
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    for x, y in dls['train']:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        opt.zero_grad()


def by_learner(model, dls):
    "The same through the learner, with metrics and progress"
    cbs = [DeviceCB('cpu'), MetricsCB(MulticlassAccuracy()), ProgressCB(mode='terminal')]
    with redirect_stdout(io.StringIO()): TrainLearner(model, dls, F.cross_entropy, lr=1e-3, cbs=cbs).fit(1, valid=False)


def seconds(f, *args):
    "Time of one call"
    t = time.perf_counter()
    f(*args)
    return time.perf_counter() - t


def rounds(model, dls, n):
    "Seconds a step of the two loops, `n` times in turn, after one turn that doesn't count"
    steps, pairs = len(dls['train']), []
    for i in range(n + 1):
        order = (by_hand, by_learner) if i % 2 else (by_learner, by_hand)
        t = {f: seconds(f, model, dls)/steps for f in order}
        if i: pairs.append((t[by_hand], t[by_learner]))
    return pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=11, help='pairs of measurements of each model')
    n = parser.parse_args().rounds
    set_seed(0)
    small = shapes_dls(64, n_train=64*400, n_test=64)
    one = rounds(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), small, n)
    res = rounds(DeeperCNN.kaiming(block=ResidualConvBlock), shapes_dls(512, n_train=512*6, n_test=64), n)
    result = dict(device=device_name('cpu'), torch=torch.__version__, rounds=n, bare_us=spread([1e6*a for a, _ in one]),
        added_us=spread([1e6*(b - a) for a, b in one]), resnet_ratio=spread([b/a for a, b in res]))
    for k, v in result.items(): print(f'{k}: {v}')
    write_atomically(OUT, json.dumps(result, indent=1) + '\n')


if __name__ == '__main__': main()
