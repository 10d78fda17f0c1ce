"""What each process of a team does in the tests of `slowai.distributed`, by name; see `teams.py`.

Every process has one thread, and finds the others through the variables that a launcher would set."""
import importlib
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import slowai.distributed
from slowai.batches import shapes_dls
from slowai.best import EMACB, BestModelCB, EarlyStopCB
from slowai.checkpoint import CheckpointCB
from slowai.cli import slowai_train
from slowai.distributed import AccelerateCB
from slowai.learner import (
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    DeviceCB,
    MetricsCB,
    MulticlassAccuracy,
    ProgressCB,
    TrainLearner,
)
from slowai.records import RecordCB
from slowai.schedules import BatchSchedulerCB
from slowai.states import set_seed
from slowai.steps import GradientAccumulationCB, GradientClipCB, MixedPrecisionCB
from slowai.streams import ParquetStream, SizedParquetStream
from slowai.tiny_imagenet_preact import get_model


class At(Callback):
    "Do something at one place of the loop, in one process (None: in all)"
    def __init__(self, act, rank=None, event='after_batch', epoch=0, batch=None, training=True, order=300):
        self.act, self.rank, self.place, self.order = act, rank, (epoch, batch, training), order
        setattr(self, event, self.hit)

    def hit(self, learn):
        epoch, batch, training = self.place
        if learn.epoch == epoch and learn.training == training and batch in (None, learn.iter) and self.rank in (None, learn.team.rank):
            self.act(learn)


class Losses(Callback, order=-45):
    "The loss of every step, over all processes: it is in place when the next one begins"
    def __init__(self): self.seen = []
    def after_loss(self, learn):
        if learn.training: self.seen.append(learn.loss.detach())


def plain(norm=False, drop=0.):
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU(), nn.Flatten(), nn.Dropout(drop),
        nn.Linear(216, 10))


def fit(net, out=None, cbs=(), bs=20, n_train=230, n_test=61, n_epochs=2, lr=.01, resume=False, team=True, timeout=30, processes=None,
        opt_func=torch.optim.AdamW, loss_func=F.cross_entropy, **fit_args):
    "One run; each process leaves what it computed in the file `out`"
    dls = shapes_dls(bs=bs, n_train=n_train, n_test=n_test, size=12)
    losses, steps = Losses(), n_epochs*len(dls['train'])
    sched = BatchSchedulerCB(torch.optim.lr_scheduler.OneCycleLR, max_lr=lr, total_steps=steps)
    own = [AccelerateCB(processes, timeout=timeout)] if team is True else [team] if team else []
    cbs = [*own, DeviceCB('cpu'), MetricsCB(accuracy=MulticlassAccuracy()), ProgressCB(), losses, sched, RecordCB('run'), *cbs]
    learn = TrainLearner(net, dls, loss_func, lr=lr, opt_func=opt_func, cbs=cbs)
    learn.fit(n_epochs, resume=resume, **fit_args)
    final = dict(model=net.state_dict(), threads=torch.get_num_threads(),
        losses=[float(o) for o in losses.seen], history=learn.metrics.history,
        images=learn.record['peak_memory'] and
        next(cb for cb in cbs if isinstance(cb, RecordCB)).images, epochs=len(learn.record['history']), random=torch.get_rng_state(),
        curve=[float(o) for o in next(cb for cb in cbs if isinstance(cb, ProgressCB)).losses], team=(learn.team.rank, learn.team.size))
    if out: torch.save(final, f"{out}.{learn.team.rank}")
    return learn


def same_loss(out, norm=False, pieces=1, team=True, n_epochs=5, **kwargs):
    set_seed(0)
    fit(plain(norm), out, [GradientAccumulationCB(pieces), GradientClipCB(1.)]*(pieces > 1), n_epochs=n_epochs, team=team, **kwargs)


def weighted_loss(out, team=True):
    "Classes of different weights, and one that is left out: the shares of a batch don't weigh the same"
    same_loss(out, team=team, n_epochs=2, loss_func=nn.CrossEntropyLoss(torch.arange(1., 11), ignore_index=3))


def exchanges(out, pieces):
    "How often gradients were exchanged, and how many steps there were"
    team, seen = AccelerateCB(timeout=30), []
    def counted(group, bucket): seen.append(bucket.index()); return allreduce_hook(group, bucket)
    def wrapped(model, wrap=team.wrapped):
        ddp = wrap(model)
        ddp.register_comm_hook(torch.distributed.group.WORLD, counted)
        return ddp
    team.wrapped = wrapped
    learn = fit(plain(), cbs=[GradientAccumulationCB(pieces)], team=team)
    torch.save((len(seen), team.steps, len(learn.dls['train'])), f'{out}.{learn.team.rank}')


def bf16(out, by_accelerate, pieces=1):
    set_seed(0)
    ours, theirs = AccelerateCB(timeout=30, mixed_precision='bf16'), [MixedPrecisionCB(True)]
    learn = fit(plain(), out, [*([] if by_accelerate else theirs), GradientAccumulationCB(pieces)], team=ours if by_accelerate else False)
    torch.save(dict(torch.load(f'{out}.{learn.team.rank}'), bf16=learn.record['recipe']['bf16']), f'{out}.{learn.team.rank}')


def gloo_threads():
    "How many of gloo's threads this process has (Linux)"
    return [(o/'comm').read_text().strip() for o in Path('/proc/self/task').iterdir()].count('pt_gloo_runloop')


def orderly(out):
    "What is left of the group that spoke last when the process has let go of the others"
    team = AccelerateCB(timeout=30)
    learn = fit(plain(), team=team, n_epochs=1)
    before = gloo_threads()
    team.close()
    torch.save((before, gloo_threads(), torch.distributed.is_initialized()), f'{out}.{learn.team.rank}')


def early(out):
    "Only one process looks at the evaluation, and has seen enough after two epochs"
    class Impatient(EarlyStopCB):
        def improved(self, learn): self.best_epoch = 0; return learn.epoch == 0
        def after_epoch(self, learn):
            if learn.team.rank: super().after_epoch(learn)
    fit(plain(), out, [Impatient(patience=1)], n_epochs=5)


def without_accelerate(out):
    "As where it isn't installed: the module can be imported, the command says what is missing"
    for k in [k for k in sys.modules if k.split('.')[0] == 'accelerate']: del sys.modules[k]
    sys.modules['accelerate'] = None
    importlib.reload(slowai.distributed).AccelerateCB(2)
    slowai_train('shapes', 'cnn', 1, out=out, processes=2)


# Checkpoints and faults

def full(out, folder, cbs=(), resume=True, every=4, n_epochs=3, timeout=30, bs=20, pieces=2, seed=0, **kwargs):
    "Dropout, BatchNorm, a moving average, the best model, accumulation: all that a checkpoint must hold"
    set_seed(seed)
    own = [CheckpointCB(folder, every=every, **kwargs), EMACB(.9), BestModelCB(), GradientAccumulationCB(pieces), GradientClipCB(1.)]
    return fit(plain(True, .3), out, [*own, *cbs], n_epochs=n_epochs, resume=resume, timeout=timeout, bs=bs)


def kill(learn): os.kill(os.getpid(), 9)
def killed(out, folder, rank=None, **place): full(out, folder, [At(kill, rank, **place)])


def signalled(out, folder, rank, signum, **place): full(out, folder, [At(lambda learn: os.kill(os.getpid(), signum), rank, **place)])


def raises(out, error, rank=1, **place):
    def act(learn): raise dict(value=ValueError('mine'), stop=CancelFitException('enough'), batch=CancelBatchException(),
        epoch=CancelEpochException())[error]
    set_seed(0)
    fit(plain(), out, [At(act, rank, **place)], n_epochs=3)


def nan(out, rank=1):
    def act(learn): learn.batch[0][0] = torch.nan
    fit(plain(), out, [At(act, rank, 'before_batch', batch=3, order=-20)])


def spoilt_data(out):
    class Spoilt(torch.utils.data.Dataset):
        def __len__(self): return 100
        def __getitem__(self, i):
            if i == 97: raise OSError('picture 97 is spoilt')
            return torch.randn(4), i % 2
    dl = lambda: torch.utils.data.DataLoader(Spoilt(), 10)
    TrainLearner(nn.Linear(4, 2), dict(train=dl(), test=dl()), F.cross_entropy, cbs=[AccelerateCB(timeout=30), DeviceCB('cpu')]).fit(1)


def apart(out):
    "One process leaves a batch out after its backward pass, and so misses a step"
    def act(learn): raise CancelBatchException
    fit(plain(), out, [At(act, 1, 'after_backward', batch=3)])


class Unused(nn.Module):
    def __init__(self): super().__init__(); self.used, self.spare = nn.Linear(144, 10), nn.Linear(3, 3)
    def forward(self, x): return self.used(x.flatten(1))


def reference(out):
    "The reference's pre-activation network, as published"
    data = torch.utils.data.TensorDataset(torch.randn(4, 3, 64, 64), torch.arange(4))
    TrainLearner(get_model(.25), dict(train=torch.utils.data.DataLoader(data, 4)), F.cross_entropy,
        cbs=[AccelerateCB(timeout=30), DeviceCB('cpu')]).fit(1, valid=False)


def unused(out, find=False): fit(Unused(), out, team=AccelerateCB(timeout=30, find_unused_parameters=find), n_epochs=1)


def alone(out, processes=None, **env):
    os.environ.update(env)
    fit(plain(), out, team=AccelerateCB(processes))


def too_late(out, wait): fit(plain(), out, timeout=wait)


def hanging(out, timeout):
    "One process stands still in a batch"
    fit(plain(), out, [At(lambda learn: time.sleep(7200), 1, batch=2)], timeout=timeout)


def waiting(out, folder, flag):
    "A run that stands still until the file `flag` is there"
    def wait(learn):
        Path(f'{flag}.up').touch()
        while not Path(flag).exists(): time.sleep(.02)
    full(out, folder, [At(wait, 0, batch=5)])


class Dice(torch.utils.data.Dataset):
    def __len__(self): return 20
    def __getitem__(self, i): return torch.cat([torch.rand(3), torch.tensor([float(i)])]), i % 2


def workers(out):
    seen = []
    class Keep(Callback):
        def before_batch(self, learn): seen.append(learn.batch[0].clone())
    g = torch.Generator().manual_seed(3)
    dl = torch.utils.data.DataLoader(Dice(), 10, shuffle=True, num_workers=1, multiprocessing_context='fork', generator=g)
    learn = TrainLearner(nn.Linear(4, 2), dict(train=dl), F.cross_entropy, cbs=[AccelerateCB(timeout=30), DeviceCB('cpu'), Keep()])
    learn.fit(2, valid=False)
    torch.save(torch.cat(seen), f'{out}.{learn.team.rank}')


# Streams

class Numbers(Callback):
    "Which pictures came, epoch by epoch"
    def __init__(self): self.seen = {}
    def before_batch(self, learn):
        if learn.training: self.seen.setdefault(learn.epoch, []).append(learn.batch[1].tolist())


class Tiny(nn.Module):
    def __init__(self): super().__init__(); self.lin = nn.Linear(3, 2)
    def forward(self, x): return self.lin(x.float().mean((2, 3))/255)


def stream(out, files, bs=8, block=18, sized=True, team=True, n_epochs=2, checkpoints=None, at=None, resume=False):
    "A run over parquet files; a picture's label is its number"
    set_seed(0)
    loader, numbers = SizedParquetStream if sized else ParquetStream, Numbers()
    dls = dict(train=loader(files, bs, block=block), valid=loader(files, bs, block=block, shuffle=False))
    cbs = [*([AccelerateCB(timeout=30)] if team else []), DeviceCB('cpu'), MetricsCB(), numbers]
    if checkpoints: cbs.append(CheckpointCB(checkpoints, every=2))
    if at: cbs.append(At(kill, **at))
    def loss(preds, y): return F.cross_entropy(preds, y % 2)
    learn = TrainLearner(Tiny(), dls, loss, lr=.1, cbs=cbs)
    learn.fit(n_epochs, resume=resume)
    torch.save(dict(seen=numbers.seen, history=learn.metrics.history, model=learn.model.state_dict()), f'{out}.{learn.team.rank}')


if __name__ == '__main__':
    import json
    name, kwargs = sys.argv[1], json.loads(sys.argv[2])
    globals()[name](**kwargs)
