"The faults, in Lightning; checkpoints by ModelCheckpoint(every_n_train_steps=5, save_last=True) and fit(ckpt_path=…)"
import logging
import os
import warnings
from pathlib import Path

import common as c
import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter('ignore')
logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)


class Model(L.LightningModule):
    def __init__(self, n=10):
        super().__init__()
        self.net, self.lr = c.network(n), 1e-2
    def training_step(self, batch, i): return F.cross_entropy(self.net(batch[0]), batch[1])
    def validation_step(self, batch, i): self.log('loss', F.cross_entropy(self.net(batch[0]), batch[1]))
    def configure_optimizers(self): return torch.optim.AdamW(self.parameters(), lr=self.lr)


def loader(n=c.N, bs=c.BS, y=None, x=None):
    xs, ys = c.images(n)
    return DataLoader(TensorDataset(xs if x is None else x, ys if y is None else y), bs, shuffle=True, num_workers=0)


def valid(): return DataLoader(TensorDataset(*c.images(32, 1)), c.BS)


def trainer(work, n=c.EPOCHS, cbs=(), **kwargs):
    return L.Trainer(**{**dict(max_epochs=n, accelerator='cpu', devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(cbs), default_root_dir=work, enable_checkpointing=any(isinstance(o, ModelCheckpoint) for o in cbs)), **kwargs})


class At(Callback):
    def __init__(self, blow, at=c.DIE_AT): self.step, self.start = c.Step(at, blow), None
    def on_train_batch_end(self, trainer, model, out, batch, i):
        self.start = self.start or f'epoch {trainer.current_epoch}, batch {i}'
        self.step()


def saver(work): return ModelCheckpoint(work/'ckpt', every_n_train_steps=5, save_last=True)


def train(work, blow, how):
    L.seed_everything(0, verbose=False)
    at = At(dict(none=None, kill=c.kill_self, term=c.term_self)[blow])
    model, dl = Model(), loader()
    trainer(work, cbs=[saver(work), at]).fit(model, dl, valid(), ckpt_path='last' if how == 'resume' else None, weights_only=False)
    return dict(digest=c.digest(model.net), **{'from': at.start})


def truncated(work):
    trainer(work, 1, [saver(work)]).fit(Model(), loader(), valid())
    f = work/'ckpt/last.ckpt'
    f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    return c.attempt(trainer(work, 2, [saver(work)]).fit, Model(), loader(), valid(), ckpt_path=str(f),
        weights_only=False)[0] or 'silent: loaded'


def disk_full(work):
    err = c.said(trainer(work, 2, [saver(work), At(lambda: c.fill(work), 7)]).fit, Model(), loader(), valid())
    (work/'ballast').unlink()
    files = sorted((work/'ckpt').glob('*.ckpt'))
    found = ', '.join(f"{o.stem} {c.attempt(Model.load_from_checkpoint, o, weights_only=False)[0] or 'loads'}" for o in files)
    return f"{err}; with room again: {found}"


def nan(work):
    x, _ = c.images()
    x[40] = float('nan')
    at, model = At(None), Model()
    err, _ = c.attempt(trainer(work, 1, [at]).fit, model, loader(x=x))
    return f"{err or f'silent: {at.step.n} batches trained'}; weights finite: {all(p.isfinite().all().item() for p in model.parameters())}"


def label(work):
    y = c.images()[1].clone(); y[::3] = 10
    return c.attempt(trainer(work, 1).fit, Model(), loader(y=y))[0] or 'silent'


def even_kernel(work):
    out = nn.Conv2d(1, 8, 4, padding=4//2)(torch.zeros(2, 1, 28, 28))
    return f'has no layers of its own; with nn.Conv2d and padding=ks//2 silent: 28×28 becomes {"×".join(map(str, out.shape[2:]))}'


def find(work, fails=False):
    model = Model()
    if fails: c.trip(model.net)
    t = trainer(work)
    before, rng = c.digest(model.net), torch.get_rng_state()
    err, _ = c.attempt(Tuner(t).lr_find, model, loader(), valid())
    same = c.digest(model.net) == before, torch.equal(rng, torch.get_rng_state())
    return f"{err or 'done'}; weights as before: {same[0]}; random state as before: {same[1]}"


def hostile(work):
    torch.save(dict(state_dict=Model().state_dict(), evil=c.Hostile(work/'ran')), work/'m.ckpt')
    err, _ = c.attempt(Model.load_from_checkpoint, work/'m.ckpt')
    ran = (work/'ran').exists()
    (work/'ran').unlink(missing_ok=True)
    err2, _ = c.attempt(Model.load_from_checkpoint, work/'m.ckpt', weights_only=False)
    return (f"load_from_checkpoint: code in the file ran: {ran} ({err or 'silent'}); with weights_only=False: code in the file ran: "
        f"{(work/'ran').exists()} ({err2 or 'silent'})")


def one_image(work):
    at = At(None)
    err, _ = c.attempt(trainer(work, 1, [at]).fit, Model(), loader(n=65))
    return f'{err or "silent"}; after {at.step.n} batches'


def bs_zero(work): return c.attempt(loader, bs=0)[0] or 'silent'
def device(work): return c.attempt(trainer, work, accelerator='cuda', devices=[99])[0] or 'silent'


class Mine(Callback):
    def on_train_batch_end(self, trainer, model, out, batch, i):
        if i == 2: c.fail()


def callback(work): return c.attempt(trainer(work, 1, [Mine()]).fit, Model(), loader())[0]


if __name__ == '__main__':
    os.environ.setdefault('MPLBACKEND', 'Agg')
    here = str(Path(__file__).resolve())
    c.main(dict(train=train, kill=lambda w: c.resumed(here, w, 'kill'), term=lambda w: c.resumed(here, w, 'term'), truncated=truncated,
        disk_full=disk_full,
        nan=nan, label=label, even_kernel=even_kernel, lr_find=find, lr_find_fails=lambda w: find(w, True), hostile=hostile,
        one_image=one_image,
        bs_zero=bs_zero, device=device, callback=callback), L.__version__)
