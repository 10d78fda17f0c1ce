"""Do the kernels change what a network learns? The five networks of page 03, with and without them, over some seeds.

`python bench/accuracy.py [--images 12000] [--epochs 1] [--seeds 3]` trains on the first images of FashionMNIST, evaluates on all of its
test images, and writes results/bench_accuracy.json. With --images 60000 --epochs 3 these are the runs of page 03 themselves.
Each difference is given with its standard error: that of a difference of two means of independent runs."""
import argparse
import contextlib
import io
import json
import statistics
from functools import partial
from pathlib import Path

import torch

from slowai.batches import DataLoaders, Normalize
from slowai.data import ImageSet
from slowai.fashion import load_fashion_mnist
from slowai.files import write_atomically
from slowai.records import device_name, git_commit
from slowai.resnet import CNN, DeeperCNN, DoubleConvBlock, ResidualConvBlock, timm_model
from slowai.schedules import train_1cycle
from slowai.states import set_seed
from slowai.steps import ChannelsLastCB, MixedPrecisionCB

OUT = Path(__file__).resolve().parent.parent/'results/bench_accuracy.json'


def timm_unwatched():
    model = timm_model('resnet18')
    model.layers = []
    return model


NETS = {'CNN': CNN.kaiming, 'DeeperCNN Conv': DeeperCNN.kaiming,
    'DeeperCNN DoubleConvBlock': partial(DeeperCNN.kaiming, block=DoubleConvBlock),
    'DeeperCNN ResidualConvBlock': partial(DeeperCNN.kaiming, block=ResidualConvBlock), 'timm resnet18': timm_unwatched}


def run(build, sets, norm, seed, epochs, kernels):
    "Accuracy after the last epoch"
    set_seed(seed)
    dls = DataLoaders(sets, bs=512, batch_tfm=norm, seed=seed)
    cbs = [] if kernels else [MixedPrecisionCB(), ChannelsLastCB()]
    with contextlib.redirect_stdout(io.StringIO()):
        rec, _ = train_1cycle(build(), 1e-2, epochs, cbs, dls=dls, fast=kernels, plot=False)
    return rec.learn.record['acc_last']


def compared(with_, without):
    "Means, difference, and its standard error"
    error = (sum(statistics.variance(v)/len(v) for v in (with_, without)))**.5
    difference = statistics.mean(with_) - statistics.mean(without)
    return {'with': with_, 'without': without, 'difference': difference, 'standard_error': error, 'within_two': abs(difference) <= 2*error}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--images', type=int, default=12_000, help='of the training split')
    p.add_argument('--epochs', type=int, default=1)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--nets', nargs='*', choices=NETS, default=list(NETS))
    args = p.parse_args()
    sets = load_fashion_mnist()
    norm, train = Normalize.from_images(sets['train'].images), sets['train']
    sets = {**sets, 'train': ImageSet(train.images[:args.images], train.labels[:args.images], train.classes)}
    about = dict(device=device_name('cpu'), torch=torch.__version__, commit=git_commit(), images=args.images, epochs=args.epochs,
        seeds=args.seeds)
    nets = json.loads(OUT.read_text(encoding='utf-8'))['nets'] if OUT.exists() and args.nets != list(NETS) else {}
    for name in args.nets:
        accs = {on: [run(NETS[name], sets, norm, seed, args.epochs, on) for seed in range(args.seeds)] for on in (True, False)}
        nets[name] = compared(accs[True], accs[False])
        print(name, nets[name], flush=True)
        write_atomically(OUT, json.dumps(dict(about, nets=nets), indent=1) + '\n')


if __name__ == '__main__': main()
