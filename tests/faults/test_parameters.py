"Every wrong parameter that we could think of, and the numeric faults of a training: named before step one where that can be known"
import io
import math
import os
import random
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torcheval.metrics import MulticlassAccuracy

from slowai.batches import DataLoaders, Normalize, shapes_dls
from slowai.best import EarlyStopCB
from slowai.data import draw_shapes, show_images
from slowai.hooks import ActivationStatsCB
from slowai.inference import Classifier, predict
from slowai.learner import Callback, CancelFitException, DeviceCB, GuardCB, Learner, MetricsCB, ProgressCB, TrainLearner
from slowai.networks import build_model
from slowai.resnet import CNN, Conv, DeeperCNN, DoubleConvBlock, ResidualBlock, ResidualConvBlock, timm_model
from slowai.schedules import LRFinderCB, lr_find, train_1cycle
from slowai.states import set_seed
from slowai.steps import GradientAccumulationCB, GradientClipCB

torch.set_num_threads(1)
NAN = float('nan')


@pytest.fixture(scope='module')
def dls(): return shapes_dls(bs=16, n_train=64, n_test=32, size=16)


def net(n=10): return nn.Sequential(nn.Flatten(), nn.Linear(256, n))
def learner(dls, model=None, **kwargs): return TrainLearner(model or net(), dls, F.cross_entropy,
    **{'cbs': DeviceCB('cpu'), 'lr': .01, **kwargs})
def told(e): return f"{e.value} {' '.join(getattr(e.value, '__notes__', []))}"
def fit(dls, n=1, **kwargs): return learner(dls).fit(n, **kwargs)


CASES = {
    # blocks and networks
    'stride 0': (lambda d: Conv(1, 8, stride=0), ValueError, 'stride: expected a whole number of at least 1, got 0'),
    'stride a half': (lambda d: Conv(1, 8, stride=.5), ValueError, 'stride: expected a whole number'),
    'stride 3 with an identity path': (lambda d: ResidualConvBlock(4, 8, stride=3), ValueError, 'stride: expected 1 or 2, got 3'),
    'stride 3 without': (lambda d: DoubleConvBlock(4, 8, stride=3), ValueError, 'stride: expected 1 or 2, got 3'),
    'kernel even': (lambda d: Conv(1, 8, ks=4), ValueError, 'ks: expected an odd kernel size of at least 1, got 4'),
    'kernel 0': (lambda d: Conv(1, 8, ks=0), ValueError, 'ks: expected an odd kernel size'),
    'kernel negative': (lambda d: ResidualConvBlock(1, 8, ks=-3), ValueError, 'ks: expected an odd kernel size'),
    'kernel a text': (lambda d: Conv(1, 8, ks='3'), ValueError, 'ks: expected an odd kernel size'),
    'channels 0': (lambda d: Conv(0, 8), ValueError, 'c_in: expected a whole number'),
    'channels a float': (lambda d: Conv(1, 8.), ValueError, 'c_out: expected a whole number'),
    'nfs too short': (lambda d: CNN([8]), ValueError, 'nfs: expected at least two numbers of channels'),
    'nfs a number': (lambda d: DeeperCNN(64), ValueError, 'nfs: expected at least two numbers'),
    'nfs a text': (lambda d: CNN('8 16'), ValueError, 'nfs: expected at least two numbers'),
    'nfs with a 0': (lambda d: CNN([8, 0, 16]), ValueError, 'expected a whole number of at least 1, got 0'),
    'no outputs': (lambda d: CNN(n_outputs=0), ValueError, 'expected a whole number of at least 1, got 0'),
    'block a name': (lambda d: CNN(block='residual'), TypeError, 'block: expected a block class'),
    'inner changes the shape': (lambda d: ResidualBlock(nn.Conv2d(1, 2, 3))(torch.zeros(1, 1, 8, 8)), ValueError,
    "inner: expected an output of the input's shape"),
    'model unknown': (lambda d: build_model('resnet', 10, 1), ValueError, 'model: expected one of cnn, deeper, residual, double'),
    'model argument unknown': (lambda d: build_model('cnn', 10, 1, depth=3), ValueError, "args: cnn can't be built with {'depth': 3}"),
    'timm unknown': (lambda d: timm_model('resnet81'), ValueError, "timm has no model 'resnet81'; did you mean"),
    'image too large': (lambda d: CNN()(torch.zeros(2, 1, 64, 64)), ValueError,
    'images: expected a size that CNN with nfs=(8, 16, 32, 64) brings down to 1×1'),
    'image channels': (lambda d: CNN()(torch.zeros(2, 3, 28, 28)), ValueError, 'images: expected shape (N, 1, H, W), got (2, 3, 28, 28)'),
    'image without a batch': (lambda d: CNN()(torch.zeros(1, 28, 28)), ValueError, 'images: expected shape (N, 1, H, W)'),
    # data
    'bs 0': (lambda d: DataLoaders(d.splits, bs=0), ValueError, 'bs: expected a whole number'),
    'bs negative': (lambda d: DataLoaders(d.splits, bs=-1), ValueError, 'bs: expected a whole number'),
    'bs a float': (lambda d: DataLoaders(d.splits, bs=64.), ValueError, 'bs: expected a whole number'),
    'bs True': (lambda d: shapes_dls(bs=True), ValueError, 'bs: expected a whole number'),
    'workers negative': (lambda d: DataLoaders(d.splits, num_workers=-1), ValueError, 'num_workers: expected'),
    'timeout NaN': (lambda d: DataLoaders(d.splits, timeout=NAN), ValueError, 'timeout: expected'),
    'std 0': (lambda d: Normalize([.5], [0]), ValueError, 'std: expected numbers above 0'),
    'shapes of 3 pixels': (lambda d: draw_shapes(size=3), ValueError, 'size: expected a whole number of at least 8, got 3'),
    'shapes of 2 channels': (lambda d: draw_shapes(channels=2), ValueError, 'channels: expected 1 (gray) or 3 (RGB), got 2'),
    'shapes of 11 classes': (lambda d: draw_shapes(n_classes=11), ValueError, 'n_classes: expected a whole number from 2 to 10'),
    'no shapes': (lambda d: draw_shapes(n_train=0), ValueError, 'n_train: expected a whole number of at least 1'),
    'split nothing off': (lambda d: d.splits['test'].split(0), ValueError, 'frac: expected a share that leaves images on both sides'),
    'too many pictures': (lambda d: show_images(torch.zeros(501, 1, 2, 2)), ValueError, 'images: expected 1 to 500'),
    'split unknown': (lambda d: d['valid'], KeyError, "no split 'valid'; there are"),
    # training
    'epochs 0': (lambda d: fit(d, 0), ValueError, 'n_epochs: expected a whole number of at least 1, got 0'),
    'epochs negative': (lambda d: fit(d, -3), ValueError, 'n_epochs: expected a whole number'),
    'epochs a float': (lambda d: fit(d, 1.5), ValueError, 'n_epochs: expected a whole number'),
    'lr 0': (lambda d: fit(d, lr=0), ValueError, 'lr: expected a finite number above 0, got 0'),
    'lr negative': (lambda d: fit(d, lr=-1.), ValueError, 'lr: expected a finite number above 0'),
    'lr NaN': (lambda d: fit(d, lr=NAN), ValueError, 'lr: expected a finite number above 0, got nan'),
    'lr infinite': (lambda d: train_1cycle(net(), math.inf, 1, dls=d), ValueError, 'lr: expected a finite number above 0'),
    'lr a text': (lambda d: fit(d, lr='fast'), ValueError, "lr: expected a finite number above 0, got 'fast'"),
    'one-cycle of 0 epochs': (lambda d: train_1cycle(net(), .01, 0, dls=d, device='cpu', plot=False), ValueError, 'n_epochs: expected'),
    'callback that is none': (lambda d: learner(d, cbs=[print]), TypeError,
    'cbs: expected Callback objects, got <built-in function print>'),
    'callback class': (lambda d: fit(d, cbs=[DeviceCB]), TypeError,
    'cbs: got the class DeviceCB, expected an object of it: write DeviceCB()'),
    'callback with an unknown event': (lambda d: type('Mine', (Callback,), dict(before_batches=print)), TypeError,
    'Mine.before_batches: no such event'),
    'nothing to predict with': (lambda d: Learner(net(), d).fit(), TypeError, 'cbs: nothing defines predict, get_loss'),
    'device absent': (lambda d: DeviceCB('cuda:99'), ValueError, "device: 'cuda:99' can't be used on this machine"),
    'device unknown': (lambda d: DeviceCB('gpu'), ValueError, "device: 'gpu' can't be used on this machine; the best here is"),
    'metric class': (lambda d: MetricsCB(MulticlassAccuracy), TypeError, 'is no torcheval metric object'),
    'metric a function': (lambda d: MetricsCB(acc=lambda p, y: 1), TypeError, "metrics: 'acc' is no torcheval metric object"),
    'progress never': (lambda d: ProgressCB(every=0), ValueError, 'every: expected a whole number of at least 1'),
    'progress mode': (lambda d: ProgressCB(mode='html'), ValueError, "mode: expected 'notebook', 'terminal' or 'log'"),
    'accumulate 0': (lambda d: GradientAccumulationCB(0), ValueError, 'n: expected a whole number of at least 1, got 0'),
    'clip to 0': (lambda d: GradientClipCB(0), ValueError, 'max_norm: expected'),
    'lr_find that falls': (lambda d: LRFinderCB(gamma=.9), ValueError, 'gamma: expected a factor above 1'),
    'lr_find from 0': (lambda d: lr_find(net(), d, start_lr=0), ValueError, 'lr: expected a finite number above 0'),
    'monitor unknown': (lambda d: fit(d, cbs=[EarlyStopCB('f1')]), ValueError, "monitor: 'f1' is no metric of this fit"),
    'seed negative': (lambda d: set_seed(-1), ValueError, 'seed: expected a whole number from 0 to 2**32-1'),
    'seed a float': (lambda d: set_seed(.5), ValueError, 'seed: expected a whole number'),
    'resume without checkpoints': (lambda d: fit(d, resume=True), ValueError, 'resume: expected a CheckpointCB among the callbacks'),
    'no split to evaluate on': (lambda d: TrainLearner(net(), {'train': d['train']}, F.cross_entropy).fit(), ValueError,
    "dls: no 'test' or 'valid' split"),
    'empty loader': (lambda d: TrainLearner(net(), {'train': [], 'test': d['test']}, F.cross_entropy).fit(), ValueError,
    "the loader of 'train' is empty"),
    'drop_last leaves nothing': (lambda d: TrainLearner(net(), DataLoaders(d.splits, bs=100, drop_last=True), F.cross_entropy).fit(),
    ValueError,
        "the loader of 'train' is empty; is bs larger than the split, with drop_last?"),
    'more classes than outputs': (lambda d: learner(d, net(4)).fit(), ValueError,
    'labels: expected 0 … 3 for a network of 4 outputs, got 0 … 9'),
    # inference
    'predict k 0': (lambda d: predict(classifier(d), torch.zeros(1, 16, 16).byte(), k=0), ValueError, 'k: expected a whole number'),
    'predict with a bare network': (lambda d: predict(net(), torch.zeros(1, 16, 16).byte()), TypeError, 'clf: expected a Classifier'),
    'predict a number': (lambda d: predict(classifier(d), 7), TypeError, 'what: expected a picture'),
    'predict 2 channels': (lambda d: predict(classifier(d), torch.zeros(2, 16, 16).byte()), ValueError, 'pictures: expected shape'),
    'predict NaN': (lambda d: predict(classifier(d), torch.full((1, 16, 16), NAN)), ValueError, 'expected finite numbers, got NaN'),
    'predict normalised floats': (lambda d: predict(classifier(d), torch.randn(1, 16, 16)), ValueError, 'expected floats from 0 to 1'),
    'names too few': (lambda d: predict(Classifier(net(), 'cnn', 'abc', d.batch_tfm, (16, 16)), torch.zeros(1, 16, 16).byte()), ValueError,
        'classes: 3 names, but scores of shape (1, 10)'),
}


def classifier(d): return Classifier(net(), 'cnn', d.classes, d.batch_tfm, (16, 16))


@pytest.mark.parametrize('f, exc, words', CASES.values(), ids=CASES)
def test_parameter(f, exc, words, dls):
    with pytest.raises(exc) as e: f(dls)
    assert words in str(e.value)
    assert '\n' not in str(e.value)


def batches(x, y): return {k: [(x, y)] for k in ('train', 'test')}


LABELS = {
    'too large': (torch.tensor([0, 1, 2, 4]), ValueError, 'labels: expected 0 … 3 for a network of 4 outputs, got 0 … 4'),
    'negative': (torch.tensor([0, 1, -1, 2]), ValueError, 'got -1 … 2'),
    'floats': (torch.rand(4), TypeError, 'labels: expected int64 class numbers, got torch.float32'),
    'one too few': (torch.tensor([0, 1, 2]), ValueError, 'predictions: expected shape (3, n_classes) for 3 labels, got (4, 4)'),
}


@pytest.mark.parametrize('y, exc, words', LABELS.values(), ids=LABELS)
def test_labels(y, exc, words):
    m = nn.Linear(8, 4)
    before = m.weight.clone()
    with pytest.raises(exc) as e: TrainLearner(m, batches(torch.randn(4, 8), y), F.cross_entropy, cbs=DeviceCB('cpu')).fit()
    assert words in str(e.value) and torch.equal(before, m.weight)


def test_batch_of_one_under_batchnorm():
    dls = shapes_dls(bs=16, n_train=65, n_test=16, size=16)
    m = nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.BatchNorm1d(10))
    with pytest.raises(ValueError, match='65 training images in batches of 16 leave a last batch of one image, and BatchNorm .2. needs'):
        learner(dls, m).fit()


# ---- numeric faults

def test_nan_loss_stops_before_the_weights_are_touched(dls):
    class Bad(Callback, order=-20):
        def after_loss(self, learn):
            if learn.training and learn.iter == 2: learn.loss = learn.loss*NAN
    learn = learner(dls)
    seen = []
    class Spy(Callback):
        def after_step(self, learn): seen.append(learn.iter)
    with pytest.raises(FloatingPointError, match='the loss is nan at epoch 0, training batch 2, lr 0.01'): learn.fit(2, cbs=[Bad(), Spy()])
    assert seen == [0, 1] and all(p.isfinite().all() for p in learn.model.parameters())


def test_a_learning_rate_far_too_high_is_named(dls):
    m = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.Linear(16, 10))
    with pytest.raises(FloatingPointError, match=r"lr 1e\+30"): learner(dls, m, lr=1e30).fit(3)


@pytest.mark.parametrize('where', ['forward', 'backward', 'evaluation'])
def test_out_of_memory_names_the_batch_size(where, dls):
    class Full(nn.Module):
        def __init__(self): super().__init__(); self.lin = nn.Linear(256, 10)
        def forward(self, x):
            if where == 'forward' or where == 'evaluation' and not self.training: raise torch.OutOfMemoryError('CUDA out of memory.')
            x = self.lin(x.flatten(1))
            if where == 'backward' and x.requires_grad: x.register_hook(self.full)
            return x
        def full(self, g): raise torch.OutOfMemoryError('CUDA out of memory.')
    with pytest.raises(torch.OutOfMemoryError) as e: learner(dls, Full()).fit()
    place = f"{'evaluation' if where == 'evaluation' else 'training'} batch 0"
    assert 'bs=16' in told(e) and 'try a smaller bs' in told(e) and place in told(e)


def test_a_picture_size_that_the_network_does_not_take_names_the_batch(dls):
    with pytest.raises(RuntimeError) as e: learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(784, 10))).fit()
    assert 'at epoch 0, training batch 0, a batch of float32 (16, 1, 16, 16), int64 (16,)' in told(e)


def test_the_failing_callback_is_named_once(dls):
    class Mine(Callback):
        def after_step(self, learn): raise RuntimeError('no')
    with pytest.raises(RuntimeError) as e: fit(dls, cbs=Mine())
    assert told(e).count('in Mine.after_step, epoch 0, training batch 0') == 1


def test_an_error_of_before_is_not_blamed_on_this_fit(dls):
    try: raise KeyError('older')
    except KeyError as e:
        fit(dls)
        assert not getattr(e, '__notes__', [])


def test_ways_to_leave_a_loop_get_no_note(dls):
    class Stop(Callback):
        def after_batch(self, learn): raise CancelFitException
    class Ctrl(Callback):
        def after_batch(self, learn): raise KeyboardInterrupt
    fit(dls, cbs=Stop())
    with pytest.raises(KeyboardInterrupt) as e: fit(dls, cbs=Ctrl())
    assert not getattr(e.value, '__notes__', [])


# ---- nothing is left behind

class Trip(Callback):
    "Fails in the third batch"
    def __init__(self, event, exc=RuntimeError): self.exc = exc; setattr(self, event, self.trip)
    def trip(self, learn):
        if learn.iter == 2: raise self.exc('tripped')


def hooks(m): return sum(len(o._forward_hooks) + len(o._forward_pre_hooks) + len(o._backward_hooks) for o in m.modules())


@pytest.mark.parametrize('exc', [RuntimeError, KeyboardInterrupt, CancelFitException])
@pytest.mark.parametrize('event', ['before_batch', 'after_loss', 'after_step'])
def test_hooks_are_removed(event, exc, dls):
    m = net()
    try: learner(dls, m).fit(1, cbs=[ActivationStatsCB(mods=list(m)), Trip(event, exc)])
    except (RuntimeError, KeyboardInterrupt): assert exc is not CancelFitException
    assert hooks(m) == 0


@pytest.mark.parametrize('exc', [None, RuntimeError, KeyboardInterrupt])
def test_lr_find_leaves_everything_as_it_was(exc, dls):
    m = nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.BatchNorm1d(10), nn.Dropout(.1)).eval()
    m(torch.zeros(1, 1, 16, 16)).sum().backward()
    learn = learner(dls, m)
    def state(): return [*(t.clone() for t in m.state_dict().values()), *(p.grad.clone() for p in m.parameters()), torch.get_rng_state(),
        dls['train'].generator.get_state()], [o.training for o in m.modules()], random.getstate(), np.random.get_state()[1].tolist(), \
        dict(vars(learn))
    before = state()
    if exc is None: lr_find(learn, plot=False)
    else:
        with pytest.raises(exc): lr_find(learn, extra_cbs=Trip('after_step', exc), plot=False)
    after = state()
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True)) and before[1:] == after[1:] and hooks(m) == 0


def test_callbacks_of_one_fit_are_gone_after_a_failure(dls):
    learn = learner(dls)
    with pytest.raises(RuntimeError): learn.fit(1, cbs=Trip('after_loss'))
    learn.fit(1)
    assert [type(o) for o in learn.cbs] == [GuardCB, DeviceCB]


def test_mixed_precision_is_left_after_a_failure(dls):
    from slowai.steps import MixedPrecisionCB
    with pytest.raises(RuntimeError): learner(dls).fit(1, cbs=[MixedPrecisionCB(True), Trip('after_predict')])
    assert not torch.is_autocast_enabled('cpu')


# ---- what is printed, and where

def test_output_that_is_no_terminal_is_plain_lines(dls):
    out = io.StringIO()
    with redirect_stdout(out): learner(dls, cbs=[DeviceCB('cpu'), MetricsCB(MulticlassAccuracy()), ProgressCB()]).fit(2)
    text = out.getvalue()
    assert '\r' not in text and '\x1b' not in text and text.count('epoch 0 ') == text.count('epoch 1 ') == 1


CODE = '''
from slowai.learner import *
from slowai.resnet import CNN, summarize
dls = shapes_dls(bs=32, n_train=64, n_test=32)
net = CNN()
summarize(net, net.layers, dls)
train_1cycle(net, 1e-2, 1, dls=dls, device='cpu')
'''


def test_ascii_output(tmp_path):
    "A terminal that knows only ASCII, as in a bare container: the training must not die of a dot, nor the end of a closed pipe of errors"
    env = {k: v for k, v in os.environ.items() if not k.startswith(('LC_', 'LANG', 'PYTHONUTF8', 'IN_TEST'))}
    env |= dict(LC_ALL='POSIX', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', PYTHONIOENCODING='ascii:strict', OMP_NUM_THREADS='1',
        MPLBACKEND='Agg')
    code = f"{CODE.replace('import *', 'import shapes_dls, train_1cycle')}import sys; sys.stderr.close()"
    r = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, stdin=subprocess.DEVNULL)
    assert r.returncode == 0, r.stderr.decode(errors='replace')[-2000:]
    assert b'epoch 0' in r.stdout and r.stdout.isascii()


