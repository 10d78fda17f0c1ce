"What the live figures need: pictures, and networks that are trained here, small and in a minute, never committed"
import json

import torch

from slowai.conv import conv, fit, simple_cnn
from slowai.fashion import fashion_mnist_or_shapes
from slowai.states import set_seed


def save(
    folder, # of the figure
    about, # what it is told: size and channels of its pictures, …
    pictures, # uint8 (N, C, H, W)
    graph=b'', # of its network, if there is one
):
    "Write what a figure fetches"
    about = dict(about, size=list(pictures.shape[2:]), channels=pictures.shape[1], bytes=len(graph))
    (folder/'manifest.json').write_text(json.dumps(about), encoding='utf-8')
    (folder/'pictures.bin').write_bytes(pictures.numpy().tobytes())
    if graph: (folder/'model.onnx').write_bytes(graph)


def first_of_each(
    s, # pictures
    n, # of each class
):
    "Indices of the first `n` pictures of each class, the classes taken in turn"
    return torch.stack([(s.labels == c).nonzero()[:n, 0] for c in range(len(s.classes))], 1).flatten()


def windows(
    folder, # a new one
    sets, # FashionMNIST, or what stands in for it
):
    "For the page of convolutions: ten pictures, and one window that a small network has learnt"
    train, some = sets['train'].subset(slice(10_000)), first_of_each(sets['test'], 1)
    set_seed(0)
    net = simple_cnn(len(train.classes))
    net[0] = conv(1, 8, ks=3)
    fit(net, train, sets['test'].subset(slice(1000)), 2, report=lambda line: None)
    learnt = max(net[0][0].weight.detach()[:, 0], key=lambda k: k.abs().sum())
    learnt = [round(o, 2) for o in (learnt/learnt.abs().max()).flatten().tolist()]
    save(folder, dict(learnt=learnt, names=[train.classes[i] for i in sets['test'].labels[some]]), sets['test'].images[some])


FIGURES = dict(windows=(fashion_mnist_or_shapes, windows))   # where its pictures come from, and how it is made
