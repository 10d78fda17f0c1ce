"""One contestant of bench/speed.py in a process of its own: each line on its standard input is a round, each
answer the seconds of its training. `_speed_case.py growth '{"images": 1000}'` trains one epoch and says what it cost.

The data are 28×28 pictures of noise, the network is the residual one of page 03, and all have AdamW, one-cycle, an accuracy and a
progress display. The cases `one_…` train a model of a single layer, on batches of 64 that are there already: what is added to a step?"""
import contextlib
import io
import json
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


def one_layer(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Again:
    "Four batches of 64 pictures, over and over: loading costs nothing"
    def __init__(self, steps): self.x, self.y, self.steps = torch.randn(4, 64, 1, 28, 28), torch.randint(10, (4, 64)), steps
    def __len__(self): return self.steps
    def __iter__(self): return ((self.x[i % 4], self.y[i % 4]) for i in range(self.steps))


def one_bare(steps):
    net, dl = one_layer(), Again(steps)
    def run():
        opt, start = torch.optim.SGD(net.parameters(), 1e-3), time.perf_counter()
        for x, y in dl:
            F.cross_entropy(net(x), y).backward(); opt.step(); opt.zero_grad()
        return time.perf_counter() - start
    return run


def one_slowai(steps):
    from slowai.learner import DeviceCB, MetricsCB, MulticlassAccuracy, ProgressCB, TrainLearner
    cbs = [DeviceCB('cpu'), MetricsCB(MulticlassAccuracy()), ProgressCB(mode='terminal')]
    learn = TrainLearner(one_layer(), dict(train=Again(steps)), F.cross_entropy, lr=1e-3, cbs=cbs)
    def run():
        start = time.perf_counter(); learn.fit(1, valid=False)
        return time.perf_counter() - start
    return run


def growth(images=5000, size=28, width=8, depth=1, batch_size=256):
    "Seconds and megabytes of one epoch on generated images of `size` pixels, `width` channels after the stem, `depth` blocks a stack"
    from slowai.batches import DataLoaders, Normalize
    from slowai.data import ImageSet
    from slowai.records import peak_memory
    from slowai.schedules import train_1cycle
    from slowai.tiny_imagenet_preact import TinyImageResNet
    make = lambda n: ImageSet(*globals()['images'](n, (1, size, size)), tuple('0123456789'))
    sets = dict(train=make(images), test=make(batch_size))
    dls = DataLoaders(sets, bs=batch_size, batch_tfm=Normalize([.3], [.35]))
    net = TinyImageResNet.kaiming([width*2**i for i in range(4)], [depth]*3, 10, c_in=1)
    rec, _ = train_1cycle(net, LR, 1, dls=dls, plot=False)
    return dict(seconds=images/rec.learn.record['images_per_second'], megabytes=peak_memory('cpu')/2**20)


def fastai(steps, one=False):
    from fastai.callback.core import Callback
    from fastai.callback.schedule import Learner
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader as Loader
    from fastai.metrics import accuracy
    class Clock(Callback):
        def before_train(self): self.start = time.perf_counter()
        def after_train(self): self.seconds = time.perf_counter() - self.start
    bs = 64 if one else BS
    x, y = images((steps + 1)*bs)
    x = (x.float()/255 - .3)/.35
    parts = [TensorDataset(x[s], y[s]) for s in (slice(bs, None), slice(bs))]
    loaders = [Loader(p, bs=bs, shuffle=not i, num_workers=0) for i, p in enumerate(parts)]
    if one: loaders[0] = Again(steps)
    clock = Clock()
    learn = Learner(DataLoaders(*loaders), one_layer() if one else network(), loss_func=nn.CrossEntropyLoss(), metrics=accuracy, cbs=clock)
    def run():
        if one: learn.fit(1, 1e-3)
        else: learn.fit_one_cycle(1, LR)
        return clock.seconds
    return run


def lightning(steps, one=False):
    import warnings

    import lightning as L
    from torchmetrics.classification import MulticlassAccuracy
    warnings.simplefilter('ignore')
    x, y = images(steps*BS)
    loader = Again(steps) if one else DataLoader(TensorDataset((x.float()/255 - .3)/.35, y), BS, shuffle=True)
    class Net(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.acc = one_layer() if one else network(), MulticlassAccuracy(10)
        def training_step(self, batch, i):
            out = self.net(batch[0])
            loss = F.cross_entropy(out, batch[1])
            self.acc(out, batch[1])
            self.log_dict(dict(loss=loss, acc=self.acc), on_step=False, on_epoch=True, prog_bar=True)
            return loss
        def configure_optimizers(self):
            if one: return torch.optim.SGD(self.parameters(), 1e-3)
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
    fastai=fastai, lightning=lightning, one_bare=one_bare, one_slowai=one_slowai, one_fastai=lambda n: fastai(n, True),
    one_lightning=lambda n: lightning(n, True))


def quietly(f, *args):
    with contextlib.redirect_stdout(io.StringIO()): return f(*args)


if __name__ == '__main__':
    torch.manual_seed(0)
    if sys.argv[1] == 'growth': print(json.dumps(quietly(lambda: growth(**json.loads(sys.argv[2]))))); sys.exit()
    run = quietly(CASES[sys.argv[1]], int(sys.argv[2]))
    for _ in sys.stdin: print(quietly(run), flush=True)
