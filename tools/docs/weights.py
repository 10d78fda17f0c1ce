"What the live figures need: pictures, and networks that are trained here, small and in a minute, never committed"
import json
from contextlib import redirect_stdout
from copy import deepcopy
from functools import partial
from io import StringIO

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from slowai.augment import pad_crop_flip
from slowai.batches import DataLoaders, Normalize
from slowai.browser import graph_of
from slowai.checks import DataMissingError
from slowai.conv import conv, fit, simple_cnn
from slowai.data import ImageSet, draw_shapes
from slowai.fashion import fashion_mnist_or_shapes
from slowai.learner import Callback, DeviceCB, TrainLearner
from slowai.norms import refresh_norms
from slowai.resnet import DeeperCNN, ResidualConvBlock
from slowai.schedules import BatchSchedulerCB
from slowai.states import set_seed
from slowai.steps import FusedCB
from slowai.tiny_imagenet import load_tiny_imagenet, tiny_mean, tiny_std
from slowai.tiny_imagenet_preact import TinyImagePreactivationResNet, tiny_sizes

LR, EPOCHS = .2, 3   # of the network that collapses


def save(
    folder, # of the figure
    about, # what it is told: names of its pictures, classes, layers, …
    pictures, # uint8 (N, C, H, W)
    module=None, # its network: uint8 pictures (1, C, H, W) and a vector of switches to probabilities and more
    inputs=(), # vectors of switches to compute what the tests compare with
    outputs=('probabilities',), # names of what the network puts out
):
    "Write what a figure fetches, and what its network should say"
    about = dict(about, size=list(pictures.shape[2:]), channels=pictures.shape[1])
    if module is not None:
        with redirect_stdout(StringIO()): graph = graph_of(module, dict(pictures=pictures[:1], switches=inputs[0]), outputs)
        (folder/'model.onnx').write_bytes(graph)
        with torch.no_grad(): said = [module(pictures, o)[0].tolist() for o in inputs]
        (folder/'expected.json').write_text(json.dumps(dict(inputs=[o.tolist() for o in inputs], probs=said)), encoding='utf-8')
        about = dict(about, fit='crop', newPIL=True)
    (folder/'manifest.json').write_text(json.dumps(about), encoding='utf-8')
    (folder/'pictures.bin').write_bytes(pictures.numpy().tobytes())


def is_drawn(
    sets, # pictures to train on and to test with
):
    "Do drawn shapes stand in for a data set that could not be had? The figure says so"
    return sets['train'].name == 'shapes'


def first_of_each(
    s, # pictures
    n, # of each class
):
    "Indices of the first `n` pictures of each class, the classes taken in turn"
    return torch.stack([(s.labels == c).nonzero()[:n, 0] for c in range(len(s.classes))], 1).flatten()


# ---- Convolutions

def windows(
    folder, # a new one
    sets, # FashionMNIST, or what stands in for it
):
    "Ten pictures, and one window that a small network has learnt"
    train, some = sets['train'].subset(slice(10_000)), first_of_each(sets['test'], 1)
    set_seed(0)
    net = simple_cnn(len(train.classes))
    net[0] = conv(1, 8, ks=3)
    fit(net, train, sets['test'].subset(slice(1000)), 2, report=lambda line: None)
    learnt = max(net[0][0].weight.detach()[:, 0], key=lambda k: k.abs().sum())
    learnt = [round(o, 2) for o in (learnt/learnt.abs().max()).flatten().tolist()]
    about = dict(learnt=learnt, names=[train.classes[i] for i in sets['test'].labels[some]], drawn=is_drawn(sets))
    save(folder, about, sets['test'].images[some])


# ---- Residual networks

class Switched(nn.Module):
    "A network of residual blocks with two switches for each: how much of its branch, and how much of its identity path, goes on"
    def __init__(self,
        net, # a `CNN` of `ResidualConvBlock`s
        norm, # the normalisation of its pictures
    ):
        super().__init__()
        self.net = net.eval()
        self.register_buffer('mean', norm.mean.detach().cpu().clone())
        self.register_buffer('std', norm.std.detach().cpu().clone())
    def forward(self, pictures, switches):
        x, maps = (pictures.float()/255 - self.mean)/self.std, []
        for i, b in enumerate(self.net.layers):
            x = b.conv_b(b.conv_a(x))*switches[2*i] + b.identity(x)*switches[2*i + 1]
            if b.act is not None: x = b.act(x)
            maps.append(x)
        return x.flatten(1).softmax(1), *maps[:-1]


def skips(
    folder, # a new one
    sets, # FashionMNIST, or what stands in for it
):
    "The residual network of the page, trained on a third of the pictures for one epoch, with switches; forty test pictures"
    set_seed(0)
    train, test = sets['train'].subset(slice(20_000)), sets['test']
    norm, net = Normalize.from_images(train.images), DeeperCNN.kaiming(n_outputs=len(train.classes), block=ResidualConvBlock)
    dls = DataLoaders(dict(train=train, test=test), bs=128, batch_tfm=norm)
    sched = BatchSchedulerCB(lr_scheduler.OneCycleLR, max_lr=1e-2, total_steps=len(dls['train']))
    TrainLearner(net, dls, F.cross_entropy, 1e-2, [DeviceCB('cpu'), sched, FusedCB()], torch.optim.AdamW).fit(1, valid=False)
    module, some, n = Switched(net.float(), norm).eval(), first_of_each(test, 4)[:40], len(net.layers)
    ways = [torch.ones(2*n)]
    for off in [[2*i + 1 for i in range(n)], *([2*i] for i in range(n)), *([2*i + 1] for i in range(n))]:
        ways.append(torch.ones(2*n).index_fill(0, torch.tensor(off), 0.))
    pictures, labels = test.images[some], test.labels[some].tolist()
    with torch.no_grad(): maps = module(pictures[:1], ways[0])[1:]
    layers = [dict(type='block', channels=m.shape[1], height=m.shape[2], width=m.shape[3], output=f'maps{i}') for i, m in enumerate(maps)]
    about = dict(classes=train.classes, names=[train.classes[i] for i in labels], labels=labels, layers=layers, blocks=n,
        drawn=is_drawn(sets))
    save(folder, about, pictures, module, ways, ['probabilities', *(o['output'] for o in layers)])



# ---- Why pre-activation was worse

CLASSES = 'goldfish', 'monarch', 'school bus', 'lemon', 'jellyfish', 'espresso', 'steel arch bridge', 'tabby', 'golden retriever', 'orange'


def photographs():
    "Ten classes of Tiny ImageNet at 32×32, or drawn shapes"
    try: full = load_tiny_imagenet()
    except DataMissingError: return draw_shapes(5000, 500, 32, 3)
    names = full['train'].classes
    ids = [names.index(o) for o in CLASSES]
    def some(s):
        rows = [(s.labels == i).nonzero()[:, 0] for i in ids]
        labels = torch.cat([torch.full((len(o),), k) for k, o in enumerate(rows)])
        small = F.avg_pool2d(s.images[torch.cat(rows)].float(), 2).round().byte()
        return ImageSet(small, labels, CLASSES, s.name, s.source)
    return dict(train=some(full['train']), test=some(full['valid']))


class Moments(nn.Module):
    "One network at several moments: its weights, in half precision, and two memories of its norms for each"
    def __init__(self,
        net, # whose weights at these moments are
        states, # for each moment a state dict with the norms' memory as it was, and one with it measured anew
        norm, # the normalisation of its pictures
    ):
        super().__init__()
        self.net, self.norm, self.names = [net.eval()], norm, {}   # in a list: its own weights are none of this module's
        for i, k in enumerate(states[0][0]):
            memory = k.endswith(('running_mean', 'running_var'))
            if not memory and not states[0][0][k].is_floating_point(): continue   # counts batches
            all_ = [o[k] for pair in states for o in pair] if memory else [was[k].half() for was, _ in states]
            self.register_buffer(f'stack{i}', torch.stack(all_))
            self.names[k] = f'stack{i}', memory
        self.register_buffer('mean', norm.mean.clone())
        self.register_buffer('std', norm.std.clone())
    def forward(self, pictures, switches):
        moment, memory = switches[:1].long(), switches[1:].long()
        def at(name, is_memory): return getattr(self, name).index_select(0, 2*moment + memory if is_memory else moment)[0].float()
        state = {k: at(*o) for k, o in self.names.items()}
        return (torch.func.functional_call(self.net[0], state, ((pictures.float()/255 - self.mean)/self.std,)).softmax(1),)


class SnapshotCB(Callback, order=60):
    "Keeps the network as it is after some steps, and once more with the memory of its norms measured anew"
    def __init__(self, steps, batches): self.steps, self.batches, self.states, self.n = steps, batches, [], 0
    def after_step(self, learn):
        self.n += 1
        if self.n not in self.steps: return
        anew = deepcopy(learn.model)
        refresh_norms(anew, self.batches, 10)
        self.states.append([{k: v.detach().clone() for k, v in m.state_dict().items()} for m in (learn.model, anew)])


def memory(
    folder, # a new one
    sets, # photographs of ten classes
):
    "The network that collapses, narrower and trained for a few hundred steps, at eight moments; twenty pictures that it was not trained on"
    set_seed(0)
    net, norm, test = TinyImagePreactivationResNet.kaiming(*tiny_sizes(.125), len(CLASSES)), Normalize(tiny_mean, tiny_std), sets['test']
    dls = DataLoaders(sets, bs=64, batch_tfm=dict(train=lambda x: norm(pad_crop_flip(x)), test=norm))
    plain = DataLoaders(sets, bs=64, batch_tfm=norm)['train']
    n = EPOCHS*len(dls['train'])
    snaps = SnapshotCB([round(n*o) for o in (.1, .2, .3, .4, .5, .6, .8, 1)], plain)
    sched = BatchSchedulerCB(lr_scheduler.OneCycleLR, max_lr=LR, total_steps=n, pct_start=.3)
    opt = partial(torch.optim.AdamW, eps=1e-5, weight_decay=.01)
    TrainLearner(net, dls, F.cross_entropy, LR, [DeviceCB('cpu'), sched, FusedCB(), snaps], opt).fit(EPOCHS, valid=False)
    module, pictures = Moments(net, snaps.states, norm).eval(), first_of_each(test, 2)
    ways = [torch.tensor([i, j], dtype=torch.float32) for i in range(len(snaps.states)) for j in (0., 1.)]
    with torch.no_grad(): right = [(module(test.images, o)[0].argmax(1) == test.labels).float().mean().item() for o in ways]
    labels = test.labels[pictures].tolist()
    gaps = [b - a for a, b in zip(right[::2], right[1::2])]
    about = dict(classes=test.classes, names=[test.classes[i] for i in labels], labels=labels, layers=[], steps=snaps.steps,
        right=right, n_test=len(test), drawn=is_drawn(sets), first=max(range(len(gaps)), key=gaps.__getitem__))
    save(folder, about, test.images[pictures], module, ways)


# where its pictures come from, and how it is made
FIGURES = dict(windows=(fashion_mnist_or_shapes, windows), skips=(fashion_mnist_or_shapes, skips), memory=(photographs, memory))
