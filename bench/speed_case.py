"""One contestant of bench/speed.py in a process of its own: each line on its standard input is a round, each
answer the seconds of its training

The data are 28×28 pictures of noise, the network is the residual one of page 03, and all have AdamW, one-cycle, an accuracy and a
progress display."""
import contextlib
import io
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

BS, LR = 512, 1e-2


def images(n, shape=(1, 28, 28), classes=10):
    "Bytes and labels"
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=g), torch.randint(classes, (n,), generator=g)


class Block(nn.Module):
    "The residual block of slowai, for those whose environment has another fastcore"
    def __init__(self, i, o, stride=2, ks=3, act=True):
        super().__init__()
        conv = lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, ks, s, ks//2, bias=False), nn.BatchNorm2d(o))
        self.a, self.b, self.id, self.act = conv(i, o, 1), conv(o, o, stride), nn.Conv2d(i, o, 1), act
        self.stride, self.same = stride, i == o
    def bend(self, x): return F.leaky_relu(x, .1) - .4 if self.act else x
    def forward(self, x):
        y = x if self.stride == 1 else F.avg_pool2d(x, 2, ceil_mode=True)
        return self.bend(self.b(self.bend(self.a(x))) + (y if self.same else self.id(y)))


def network():
    nfs = 8, 16, 32, 64, 128
    blocks = (Block(i, o) for i, o in zip(nfs, nfs[1:], strict=False))
    net = nn.Sequential(Block(1, 8, 1, 5), *blocks, Block(128, 10, act=False), nn.Flatten())
    assert sum(p.numel() for p in net.parameters()) == 321_438
    return net


def bare(steps, tuned=False, bf16=False):
    "A loop written by hand; `tuned`: with all that torch offers for the asking"
    x, y = images(steps*BS)
    x, net = (x.float()/255 - .3)/.35, network()
    if tuned: x, net = x.contiguous(memory_format=torch.channels_last), net.to(memory_format=torch.channels_last)
    def batches():
        if not tuned: yield from DataLoader(TensorDataset(x, y), BS, shuffle=True)
        else: yield from ((x[i], y[i]) for i in torch.randperm(len(x)).split(BS))
    def run():
        opt = torch.optim.AdamW(net.parameters(), LR, fused=tuned or None)
        sched, start = lr_scheduler.OneCycleLR(opt, LR, total_steps=steps), time.perf_counter()
        for xb, yb in batches():
            with torch.autocast('cpu', torch.bfloat16, enabled=bf16): loss = F.cross_entropy(net(xb), yb)
            loss.backward(); opt.step(); sched.step(); opt.zero_grad()
        return time.perf_counter() - start
    return run


def slowai(steps, bf16=True, now=True, tiny=False):
    "`train_1cycle` as it is; `now=False`: without what page 09 adds"
    from slowai.batches import DataLoaders, Normalize
    from slowai.data import ImageSet
    from slowai.resnet import DeeperCNN, ResidualConvBlock
    from slowai.schedules import train_1cycle
    from slowai.steps import ChannelsLastCB, FusedCB, KeepMemoryCB, MixedPrecisionCB
    from slowai.tiny_imagenet_preact import get_model
    bs, shape, classes = (256, (3, 64, 64), 200) if tiny else (BS, (1, 28, 28), 10)
    sets = {k: ImageSet(*images(n, shape, classes), tuple(map(str, range(classes)))) for k, n in dict(train=steps*bs, test=bs).items()}
    dls = DataLoaders(sets, bs=bs, batch_tfm=Normalize([.3]*shape[0], [.35]*shape[0]))
    net = get_model(.25) if tiny else DeeperCNN.kaiming(block=ResidualConvBlock)
    cbs = [MixedPrecisionCB(None if bf16 else False), ChannelsLastCB(), *([FusedCB(), KeepMemoryCB()] if now else [])]
    def run():
        rec, _ = train_1cycle(net, LR, 1, cbs, dls=dls, fast=False, plot=False)
        return steps*bs/rec.learn.record['images_per_second']
    return run


def fastai(steps):
    from fastai.callback.core import Callback
    from fastai.callback.schedule import Learner
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader as Loader
    from fastai.metrics import accuracy
    class Clock(Callback):
        def before_train(self): self.start = time.perf_counter()
        def after_train(self): self.seconds = time.perf_counter() - self.start
    x, y = images((steps + 1)*BS)
    x = (x.float()/255 - .3)/.35
    parts = [TensorDataset(x[s], y[s]) for s in (slice(BS, None), slice(BS))]
    clock = Clock()
    learn = Learner(DataLoaders(*(Loader(p, bs=BS, shuffle=not i, num_workers=0) for i, p in enumerate(parts))), network(),
        loss_func=nn.CrossEntropyLoss(), metrics=accuracy, cbs=clock)
    def run():
        learn.fit_one_cycle(1, LR)
        return clock.seconds
    return run


def lightning(steps):
    import warnings

    import lightning as L
    from torchmetrics.classification import MulticlassAccuracy
    warnings.simplefilter('ignore')
    x, y = images(steps*BS)
    loader = DataLoader(TensorDataset((x.float()/255 - .3)/.35, y), BS, shuffle=True)
    class Net(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.acc = network(), MulticlassAccuracy(10)
        def training_step(self, batch, i):
            out = self.net(batch[0])
            loss = F.cross_entropy(out, batch[1])
            self.acc(out, batch[1])
            self.log_dict(dict(loss=loss, acc=self.acc), on_step=False, on_epoch=True, prog_bar=True)
            return loss
        def configure_optimizers(self):
            opt = torch.optim.AdamW(self.parameters(), LR)
            return [opt], [dict(scheduler=lr_scheduler.OneCycleLR(opt, LR, total_steps=steps), interval='step')]
        def on_train_epoch_start(self): self.start = time.perf_counter()
        def on_train_epoch_end(self): self.seconds = time.perf_counter() - self.start
    net = Net()
    def run():
        L.Trainer(max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False, enable_model_summary=False).fit(net, loader)
        return net.seconds
    return run


CASES = dict(bare=bare, tuned=lambda n: bare(n, True), tuned_bf16=lambda n: bare(n, True, True), slowai=lambda n: slowai(n, False),
    slowai_bf16=slowai, tiny_before=lambda n: slowai(n, now=False, tiny=True), tiny_now=lambda n: slowai(n, tiny=True),
    tiny_before_fp32=lambda n: slowai(n, False, False, True), tiny_now_fp32=lambda n: slowai(n, False, True, True),
    fastai=fastai, lightning=lightning)


def quietly(f, *args):
    with contextlib.redirect_stdout(io.StringIO()): return f(*args)


if __name__ == '__main__':
    torch.manual_seed(0)
    run = quietly(CASES[sys.argv[1]], int(sys.argv[2]))
    for _ in sys.stdin: print(quietly(run), flush=True)
