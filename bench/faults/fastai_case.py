"The faults, in fastai; checkpoints as its documentation shows them: SaveModelCallback(every_epoch=True) and start_epoch"
import os
import pickle
from pathlib import Path

import common as c
import fastai
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import SuggestionMethod  # noqa: F401 - brings Learner.lr_find
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.layers import ConvLayer
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import set_seed


class Pairs(torch.utils.data.TensorDataset): pass


def loaders(n=c.N, bs=c.BS, y=None, x=None, device='cpu'):
    xs, ys = c.images(n)
    xs, ys = xs if x is None else x, ys if y is None else y
    return DataLoaders.from_dsets(Pairs(xs, ys), Pairs(*c.images(32, 1)), bs=bs, device=device, num_workers=0)


def learner(work, dls=None, cbs=(), n=10):
    return Learner(dls or loaders(), c.network(n), loss_func=CrossEntropyLossFlat(), lr=1e-2, cbs=list(cbs), path=work)


class At(Callback):
    order = 300
    def __init__(self, blow, at=c.DIE_AT): self.step, self.start = c.Step(at, blow), None
    def after_batch(self):
        if not self.training: return
        self.start = self.start or f'epoch {self.epoch}, batch {self.iter}'
        self.step()


def quiet(learn): return learn.no_bar(), learn.no_logging()


def fit(learn, n, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, **kwargs)


def saver(): return SaveModelCallback(every_epoch=True, with_opt=True)


def train(work, blow, how):
    set_seed(0, reproducible=True)
    at = At(dict(none=None, kill=c.kill_self, term=c.term_self)[blow])
    learn = learner(work, cbs=[saver(), at])
    done = sorted((work/'models').glob('model_*.pth')) if how == 'resume' else []
    if done: learn.load(done[-1].stem, with_opt=True)
    fit(learn, c.EPOCHS, start_epoch=len(done))
    return dict(digest=c.digest(learn.model), **{'from': at.start})


def truncated(work):
    fit(learner(work, cbs=[saver()]), 1)
    f = work/'models/model_0.pth'
    f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    return c.attempt(learner(work).load, 'model_0', with_opt=True)[0] or 'silent: loaded'


def disk_full(work):
    err = c.said(fit, learner(work, cbs=[saver(), At(lambda: c.fill(work))]), 2)
    (work/'ballast').unlink()
    files = sorted(o.stem for o in (work/'models').glob('*.pth'))
    found = ', '.join(f"{o} {c.attempt(learner(work).load, o, with_opt=True)[0] or 'loads'}" for o in files)
    return f"{err}; with room again: {found}"


def nan(work):
    x, _ = c.images()
    x[40] = float('nan')
    at = At(None)
    learn = learner(work, loaders(x=x), [at])
    err, _ = c.attempt(fit, learn, 1)
    finite = all(p.isfinite().all().item() for p in learn.model.parameters())
    return f"{err or f'silent: {at.step.n} batches trained'}; weights finite: {finite}"


def label(work):
    y = c.images()[1].clone(); y[::3] = 10
    return c.attempt(fit, learner(work, loaders(y=y)), 1)[0] or 'silent'


def even_kernel(work):
    err, m = c.attempt(ConvLayer, 1, 8, ks=4)
    return err or f'silent: 28×28 becomes {"×".join(map(str, m(torch.zeros(2, 1, 28, 28)).shape[2:]))}'


def find(work, fails=False):
    learn = learner(work)
    if fails: c.trip(learn.model)
    before, rng = c.digest(learn.model), torch.get_rng_state()
    def go():
        with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False)
    err, _ = c.attempt(go)
    same = c.digest(learn.model) == before, torch.equal(rng, torch.get_rng_state())
    return f"{err or 'done'}; weights as before: {same[0]}; random state as before: {same[1]}"


def hostile(work):
    (work/'export.pkl').write_bytes(pickle.dumps(c.Hostile(work/'ran')))
    torch.save(c.Hostile(work/'ran'), work/'export.pkl')
    err, _ = c.attempt(load_learner, work/'export.pkl')
    ran = (work/'ran').exists()
    (work/'ran').unlink(missing_ok=True)
    (work/'models').mkdir(exist_ok=True)
    torch.save(dict(model=c.Hostile(work/'ran'), opt={}), work/'models/m.pth')
    err2, _ = c.attempt(learner(work).load, 'm')
    return (f"load_learner: code in the file ran: {ran} ({err or 'silent'}); Learner.load: code in the file ran: "
        f"{(work/'ran').exists()} ({err2 or 'silent'})")


def one_image(work):
    at = At(None)
    err, _ = c.attempt(fit, learner(work, loaders(n=65), [at]), 1)
    return err or f'silent: {at.step.n} batches of 16 trained, the 65th image left out of the epoch'


def bs_zero(work):
    err, dls = c.attempt(loaders, bs=0)
    if err: return err
    at = At(None)
    err, _ = c.attempt(fit, learner(work, dls, [at]), 1)
    return err or f'silent: {at.step.n} batches trained'


def device(work):
    err, dls = c.attempt(loaders, device='cuda:99')
    return err or c.attempt(fit, learner(work, dls), 1)[0] or 'silent'


class Mine(Callback):
    def after_step(self):
        if self.iter == 2: c.fail()


def callback(work): return c.attempt(fit, learner(work, cbs=[Mine()]), 1)[0]


if __name__ == '__main__':
    os.environ.setdefault('MPLBACKEND', 'Agg')
    here = str(Path(__file__).resolve())
    assert DataLoader
    c.main(dict(train=train, kill=lambda w: c.resumed(here, w, 'kill'), term=lambda w: c.resumed(here, w, 'term'), truncated=truncated,
        disk_full=disk_full,
        nan=nan, label=label, even_kernel=even_kernel, lr_find=find, lr_find_fails=lambda w: find(w, True), hostile=hostile,
        one_image=one_image,
        bs_zero=bs_zero, device=device, callback=callback), fastai.__version__)
