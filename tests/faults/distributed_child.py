"""What each process of a team does in the tests of `slowai.distributed`, by name; see `teams.py`.

Every process has one thread, and finds the others through the variables that a launcher would set."""
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from slowai.checkpoint import EMACB, CheckpointCB
from slowai.distributed import AccelerateCB
from slowai.learner import (BatchSchedulerCB, BestModelCB, Callback, CancelFitException, DeviceCB, GradientAccumulationCB, GradientClipCB,
    MetricsCB, MulticlassAccuracy, ProgressCB, RecordCB, TrainLearner, set_seed, shapes_dls)


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
        opt_func=torch.optim.AdamW, **fit_args):
    "One run; the first process leaves what it computed in the file `out`"
    torch.set_num_threads(1)
    dls = shapes_dls(bs=bs, n_train=n_train, n_test=n_test, size=12)
    losses, steps = Losses(), n_epochs*len(dls['train'])
    sched = BatchSchedulerCB(torch.optim.lr_scheduler.OneCycleLR, max_lr=lr, total_steps=steps)
    own = [AccelerateCB(processes, timeout=timeout)] if team is True else [team] if team else []
    cbs = [*own, DeviceCB('cpu'), MetricsCB(accuracy=MulticlassAccuracy()), ProgressCB(), losses, sched, RecordCB('run'), *cbs]
    learn = TrainLearner(net, dls, F.cross_entropy, lr=lr, opt_func=opt_func, cbs=cbs)
    learn.fit(n_epochs, resume=resume, **fit_args)
    final = dict(model=net.state_dict(), losses=[float(o) for o in losses.seen], history=learn.metrics.history, images=learn.record['peak_memory'] and
        next(cb for cb in cbs if isinstance(cb, RecordCB)).images, epochs=len(learn.record['history']), random=torch.get_rng_state(),
        curve=[float(o) for o in next(cb for cb in cbs if isinstance(cb, ProgressCB)).losses], team=(learn.team.rank, learn.team.size))
    if out: torch.save(final, f"{out}.{learn.team.rank}")
    return learn


def same_loss(out, norm=False, pieces=1, team=True, n_epochs=5, **kwargs):
    set_seed(0)
    fit(plain(norm), out, [GradientAccumulationCB(pieces), GradientClipCB(1.)]*(pieces > 1), n_epochs=n_epochs, team=team, **kwargs)
