"The faults, in slowai"
import os
import pickle
import sys
import warnings
from pathlib import Path

import common as c
import torch
import torch.nn.functional as F

import slowai
from slowai.batches import DataLoaders
from slowai.checkpoint import CheckpointCB
from slowai.inference import load_model
from slowai.learner import Callback, DeviceCB, TrainLearner
from slowai.resnet import Conv
from slowai.schedules import lr_find
from slowai.states import set_seed


class Pairs(torch.utils.data.TensorDataset): pass


def loaders(n=c.N, bs=c.BS, y=None, x=None):
    xs, ys = c.images(n)
    xs, ys = xs if x is None else x, ys if y is None else y
    return DataLoaders(dict(train=Pairs(xs, ys), test=Pairs(*c.images(32, 1))), bs=bs, seed=3)


def learner(dls=None, cbs=(), n=10):
    return TrainLearner(c.network(n), dls or loaders(), F.cross_entropy, lr=1e-2, cbs=[DeviceCB('cpu'), *cbs], opt_func=torch.optim.AdamW)


class At(Callback, order=300):
    def __init__(self, blow, at=c.DIE_AT): self.step, self.start = c.Step(at, blow), None
    def after_batch(self, learn):
        if not learn.training: return
        self.start = self.start or f'epoch {learn.epoch}, batch {learn.iter}'
        self.step()


def train(work, blow, how):
    set_seed(0)
    at = At(dict(none=None, kill=c.kill_self, term=c.term_self)[blow])
    learn = learner(cbs=[CheckpointCB(work, every=5)])
    learn.fit(c.EPOCHS, cbs=at, resume=how == 'resume')
    return dict(digest=c.digest(learn.model), **{'from': at.start})


def newest(work): return max((o for o in Path(work).rglob('*') if o.is_file() and o.stat().st_size > 5000),
    key=lambda o: o.stat().st_mtime_ns)


def broken_off(work):
    "A run that ended in its seventh batch, with checkpoints after the second, fourth and sixth; the newest of them"
    c.attempt(learner(cbs=[CheckpointCB(work, every=2), At(c.fail, 7)]).fit, 1)
    return newest(work)


def go_on(work, every=2):
    "Go on from what lies there: the error or the warning, and where the run goes on"
    at = At(None)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        err, _ = c.attempt(learner(cbs=[CheckpointCB(work, every=every)]).fit, 1, resume=True, cbs=at)
    told = [str(o.message).splitlines()[0] for o in w if 'checkpoint' in str(o.message).lower()]
    return err or f"{f'warning: {told[0]}' if told else 'no warning'}; went on at {at.start}"


def truncated(work):
    f = broken_off(work)
    f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    return go_on(work)


def disk_full(work):
    cbs = [CheckpointCB(work/'ckpt', every=4), At(lambda: c.fill(work), 6)]
    err = c.said(learner(cbs=cbs).fit, 1)
    (work/'ballast').unlink()
    return f"{err}; with room again: {go_on(work/'ckpt', 4)}"


def nan(work):
    x, _ = c.images()
    x[40] = float('nan')
    learn = learner(loaders(x=x))
    err, _ = c.attempt(learn.fit, 1)
    return f"{err}; weights finite: {all(p.isfinite().all() for p in learn.model.parameters())}"


def label(work):
    y = c.images()[1].clone(); y[::3] = 10
    return c.attempt(learner(loaders(y=y)).fit, 1)[0] or 'silent'


def even_kernel(work):
    err, m = c.attempt(Conv, 1, 8, stride=1, ks=4)
    return err or f'silent: 28×28 becomes {tuple(m(torch.zeros(2, 1, 28, 28)).shape[2:])}'


def find(work, fails=False):
    learn = learner()
    if fails: c.trip(learn.model)
    before, rng = c.digest(learn.model), torch.get_rng_state()
    err, _ = c.attempt(lr_find, learn, plot=False)
    same = c.digest(learn.model) == before, torch.equal(rng, torch.get_rng_state())
    return f"{err or 'done'}; weights as before: {same[0]}; random state as before: {same[1]}"


def hostile(work):
    (work/'model.safetensors').write_bytes(pickle.dumps(c.Hostile(work/'ran')))
    model, _ = c.attempt(load_model, work/'model.safetensors')
    torch.save(dict(model=c.Hostile(work/'ran')), broken_off(work/'ckpt'))
    said = go_on(work/'ckpt')
    return f"code in the file ran: {(work/'ran').exists()}; load_model: {model}; fit(resume=True): {said}"


def one_image(work): return c.attempt(learner(loaders(n=65)).fit, 1)[0] or 'silent'
def bs_zero(work): return c.attempt(loaders, bs=0)[0] or 'silent'
def device(work): return c.attempt(DeviceCB, 'cuda:99')[0] or 'silent'


class Mine(Callback):
    def after_step(self, learn):
        if learn.iter == 2: c.fail()


def callback(work): return c.attempt(learner().fit, 1, cbs=Mine())[0]


if __name__ == '__main__':
    os.environ.setdefault('MPLBACKEND', 'Agg')
    here = str(Path(__file__).resolve())
    c.main(dict(train=train, kill=lambda w: c.resumed(here, w, 'kill'), term=lambda w: c.resumed(here, w, 'term'), truncated=truncated,
        disk_full=disk_full,
        nan=nan, label=label, even_kernel=even_kernel, lr_find=find, lr_find_fails=lambda w: find(w, True), hostile=hostile,
        one_image=one_image,
        bs_zero=bs_zero, device=device, callback=callback), slowai.__version__)
    sys.stdout.flush()
