"For any shapes, strides, kernels, widths and batch sizes: a clear error of our own, or a right answer; never a crash deeper in"
import math
import traceback
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings, strategies as st
from torch import nn

import slowai
from slowai.batches import DataLoaders, Normalize
from slowai.checks import DataError
from slowai.data import ImageSet
from slowai.inference import Classifier, load_model, predict, save_model
from slowai.learner import DeviceCB, TrainLearner
from slowai.networks import build_model
from slowai.resnet import CNN, Conv, DeeperCNN, DoubleConvBlock, GeneralReLU, ResidualBlock, ResidualConvBlock
from slowai.states import restoring

pytestmark = pytest.mark.same_everywhere   # runs of generated pictures, in fp32

torch.set_num_threads(1)
HERE = Path(slowai.__file__).parent
often = settings(deadline=None, derandomize=True, max_examples=80)
seldom = settings(deadline=None, derandomize=True, max_examples=30)

odd_numbers = st.one_of(st.integers(-1, 6), st.sampled_from([None, 1.5, '3', True, float('nan')]))
small = st.integers(1, 4)


def attempt(f, *args, **kwargs):
    "The result of `f`, or None if it said clearly, in our own code, what is wrong"
    try: return f(*args, **kwargs)
    except (ValueError, TypeError) as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        assert Path(last.filename).parent == HERE, f"raised in {last.filename}, line {last.lineno}: {type(e).__name__}: {e}"
        assert ': ' in str(e) and ('got' in str(e) or 'expected' in str(e)) and '\n' not in str(e), f"not clear: {e}"
        return None


def images(n, c, h, w, seed=0): return torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(seed))
def whole(*v): return all(isinstance(o, int) and not isinstance(o, bool) and o > 0 for o in v)


def plain_conv(m, x):
    "A `Conv`, said again with torch's functions, in eval mode"
    x = F.conv2d(x, m.weight, m.bias, stride=m.stride, padding=m.kernel_size[0]//2)
    if m.norm is not None: x = (x - m.norm.running_mean[:, None, None])/(m.norm.running_var[:, None, None] + m.norm.eps).sqrt()
    return x if m.act is None else torch.where(x < 0, x*.1, x) - .4


@often
@given(c_in=odd_numbers, c_out=odd_numbers, stride=odd_numbers, ks=odd_numbers, act=st.booleans(), norm=st.booleans(),
    h=st.integers(1, 9), w=st.integers(1, 9), n=small)
@example(c_in=1, c_out=8, stride=2, ks=3, act=True, norm=True, h=7, w=8, n=2)
@example(c_in=2, c_out=3, stride=3, ks=5, act=False, norm=False, h=1, w=9, n=1)
def test_conv(c_in, c_out, stride, ks, act, norm, h, w, n):
    m = attempt(Conv, c_in, c_out, stride=stride, ks=ks, act=act, norm=norm)
    if m is None:
        assert not (whole(c_in, c_out, stride, ks) and ks % 2)
        return
    assert whole(c_in, c_out, stride, ks) and ks % 2
    x = images(n, c_in, h, w)
    out = m.eval()(x)
    assert out.shape == (n, c_out, math.ceil(h/stride), math.ceil(w/stride))
    torch.testing.assert_close(out, plain_conv(m, x))


@often
@given(block=st.sampled_from([ResidualConvBlock, DoubleConvBlock]), c_in=small, c_out=small, stride=odd_numbers, ks=odd_numbers,
    act=st.booleans(), norm=st.booleans(), h=st.integers(1, 9), w=st.integers(1, 9))
@example(block=ResidualConvBlock, c_in=2, c_out=4, stride=2, ks=3, act=True, norm=True, h=7, w=5)
@example(block=ResidualConvBlock, c_in=3, c_out=3, stride=2, ks=5, act=True, norm=False, h=1, w=1)
def test_block(block, c_in, c_out, stride, ks, act, norm, h, w):
    m = attempt(block, c_in, c_out, stride=stride, ks=ks, act=act, norm=norm)
    if m is None:
        assert not (whole(stride, ks) and stride < 3 and ks % 2)
        return
    x = images(2, c_in, h, w)
    out = m.eval()(x)
    assert out.shape == (2, c_out, math.ceil(h/stride), math.ceil(w/stride))
    want = plain_conv(m.conv_b, plain_conv(m.conv_a, x))
    if block is ResidualConvBlock:
        short = F.avg_pool2d(x, stride, ceil_mode=True) if stride > 1 else x
        want = want + (F.conv2d(short, m.id_conv.weight, m.id_conv.bias) if c_in != c_out else short)
    torch.testing.assert_close(out, torch.where(want < 0, want*.1, want) - .4 if act else want)


@often
@given(cls=st.sampled_from([CNN, DeeperCNN]), nfs=st.one_of(st.lists(odd_numbers, max_size=5), st.lists(small, min_size=2, max_size=5),
    st.sampled_from([None, 8, 'abc', (4, 8, 8), {}])), n_outputs=odd_numbers, c_in=st.integers(0, 3),
    block=st.sampled_from([None, Conv, ResidualConvBlock, DoubleConvBlock, 'Conv', 3]), h=st.integers(1, 40), w=st.integers(1, 40))
@example(cls=CNN, nfs=(4, 4, 4, 4), n_outputs=3, c_in=1, block=None, h=28, w=28)
@example(cls=DeeperCNN, nfs=[2]*5, n_outputs=3, c_in=3, block=ResidualConvBlock, h=32, w=17)
def test_cnn(cls, nfs, n_outputs, c_in, block, h, w):
    m = attempt(cls, nfs, n_outputs, block, c_in)
    good = isinstance(nfs, (list, tuple)) and len(nfs) > 1 and whole(*nfs, n_outputs, c_in) and block not in ('Conv', 3)
    assert good == (m is not None)
    if not good: return
    halvings = len(nfs) + (cls is CNN)
    out = attempt(m.eval(), images(2, c_in, h, w))
    assert (out is not None) == (max(h, w) <= 2**halvings)
    if out is not None: assert out.shape == (2, n_outputs) and out.isfinite().all()
    for wrong in (images(2, c_in + 1, h, w), images(2, c_in, h, w)[0]): assert attempt(m, wrong) is None


@often
@given(a=st.sampled_from([0, None, .1, .5]), b=st.sampled_from([0, None, .4]), shape=st.lists(st.integers(0, 4), max_size=4))
def test_general_relu(a, b, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = GeneralReLU(a, b)(x)
    torch.testing.assert_close(out, torch.where(x > 0, x, x*(a or 0)) - (b or 0))
    out.sum().backward()


@often
@given(change=st.integers(-1, 1), ks=st.sampled_from([1, 3]), pad=st.integers(0, 1), h=st.integers(3, 6))
def test_residual_block(change, ks, pad, h):
    m = ResidualBlock(nn.Conv2d(2, 2 + change, ks, padding=pad))
    x = images(2, 2, h, h)
    out = attempt(m, x)
    assert (out is not None) == (change == 0 and ks == 1 + 2*pad)
    if out is not None: torch.testing.assert_close(out, m.inner(x) + x)


@often
@given(shape=st.lists(st.integers(0, 3), max_size=5), dtype=st.sampled_from([torch.uint8, torch.float32, torch.int64]),
    labels=st.lists(st.integers(-1, 4), max_size=4), ltype=st.sampled_from([torch.int64, torch.int32, torch.float32]), n=st.integers(0, 5))
@example(shape=[3, 1, 2, 2], dtype=torch.uint8, labels=[0, 1, 2], ltype=torch.int64, n=3)
def test_image_set(shape, dtype, labels, ltype, n):
    good = len(shape) == 4 and dtype == torch.uint8 and ltype == torch.int64 and len(labels) == shape[0] and all(0 <= o < n for o in labels)
    ds = attempt(ImageSet, torch.zeros(shape, dtype=dtype), torch.tensor(labels, dtype=ltype), tuple('abcde'[:n]))
    assert good == (ds is not None)
    if good: assert len(ds) == len(labels) and [ds[i][1].item() for i in range(len(ds))] == labels


@often
@given(n=st.integers(0, 20), bs=odd_numbers, workers=st.sampled_from([0, -1, 1.5, None]), drop=st.booleans(), seed=st.integers(0, 3))
@example(n=20, bs=6, workers=0, drop=False, seed=1)
@example(n=5, bs=6, workers=0, drop=True, seed=1)
def test_loaders(n, bs, workers, drop, seed):
    ds = ImageSet(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), torch.zeros(n, dtype=torch.int64), ('a',))
    def make(): return DataLoaders(dict(train=ds, test=ds), bs=bs, num_workers=workers, drop_last=drop, seed=seed)
    try: dls = make()
    except ValueError as e:
        assert (n == 0 or not whole(bs) or workers != 0) and 'slowai' in traceback.extract_tb(e.__traceback__)[-1].filename
        return
    assert n and whole(bs) and workers == 0
    seen = [x.flatten().tolist() for x, _ in dls['train']]
    assert all(len(o) == bs for o in seen[:-1]) and len(seen) == (n//bs if drop else math.ceil(n/bs))
    if not drop: assert sorted(sum(seen, [])) == list(range(n))
    assert [x.flatten().tolist() for x, _ in make()['train']] == seen
    assert sum((x.flatten().tolist() for x, _ in dls['test']), []) == list(range(n))


@often
@given(c=st.integers(1, 3), n=st.integers(1, 4), h=st.integers(1, 5), w=st.integers(1, 5), seed=st.integers(0, 99))
def test_normalize(c, n, h, w, seed):
    x = torch.randint(0, 256, (n, c, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    if any(x[:, i].unique().numel() == 1 for i in range(c)):
        with pytest.raises(ValueError, match='std: expected numbers above 0'): Normalize.from_images(x)
        return
    norm = Normalize.from_images(x)
    flat = x.double().transpose(0, 1).flatten(1)/255
    torch.testing.assert_close(norm(x).double(), ((x.double()/255 - flat.mean(1)[:, None, None])/flat.std(1, correction=0)[:, None, None]),
        atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(norm.inverse(norm(x)), x/255, atol=1e-4, rtol=0)


@seldom
@given(n=st.integers(1, 40), bs=st.integers(1, 20), bn=st.booleans(), epochs=odd_numbers)
@example(n=33, bs=16, bn=True, epochs=1)
@example(n=1, bs=1, bn=False, epochs=2)
def test_fit(n, bs, bn, epochs):
    "Every batch size trains, or is refused before the first step"
    ds = ImageSet(torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8), torch.arange(n) % 3, tuple('abc'))
    m = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), *[nn.BatchNorm1d(3)]*bn)
    before = [p.clone() for p in m.parameters()]
    learn = TrainLearner(m, DataLoaders(dict(train=ds, test=ds), bs=bs, batch_tfm=lambda x: x.float()/255), F.cross_entropy,
        cbs=DeviceCB('cpu'))
    with restoring(nn.Linear(1, 1)):
        try: learn.fit(epochs)
        except ValueError as e:
            assert 'expected' in str(e) or 'leave a last batch of one image' in str(e)
            assert not whole(epochs) or bn and (n - 1) % bs == 0
            assert all(torch.equal(a, b) for a, b in zip(before, m.parameters(), strict=True))
            return
    assert whole(epochs) and all(p.isfinite().all() for p in m.parameters())


# ---- inference

CLF = None


@pytest.fixture(scope='module', autouse=True)
def clf(tmp_path_factory):
    global CLF
    CLF = Classifier(build_model('cnn', 3, 1, nfs=(4, 4, 4, 4)).eval(), 'cnn', ('a', 'b', 'c'), Normalize([.5], [.25]), (28, 28),
        dict(nfs=[4, 4, 4, 4]))


dtypes = st.sampled_from([torch.uint8, torch.float32, torch.float64, torch.int64, torch.bool])


@often
@given(shape=st.one_of(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 40), st.integers(0, 40)),
    st.lists(st.integers(0, 4), max_size=5)),
    dtype=dtypes, k=odd_numbers, fit=st.sampled_from(['crop', 'squash', 'pad']), tta=st.booleans())
@example(shape=(2, 3, 1, 40), dtype=torch.uint8, k=2, fit='crop', tta=True)
@example(shape=(40, 28), dtype=torch.float32, k=9, fit='squash', tta=False)
def test_predict(shape, dtype, k, fit, tta):
    x = (torch.rand(tuple(shape), generator=torch.Generator().manual_seed(0))*(255 if dtype == torch.uint8 else 1)).to(dtype)
    copy = x.clone()
    p = attempt(predict, CLF, x, k=k, fit=fit, tta=tta)
    assert torch.equal(x, copy)
    n_c = {2: (1, 1), 3: (1, x.shape[0] if x.dim() else 0), 4: tuple(x.shape[:2])}.get(x.dim(), (0, 0))
    good = x.numel() and n_c[1] in (1, 3) and dtype in (torch.uint8, torch.float32, torch.float64) and whole(k) and fit != 'pad'
    assert bool(good) == (p is not None)
    if p is None: return
    assert len(p) == n_c[0] and p.images.shape[1:] == (1, 28, 28) and len(p[0]) == min(k, 3)
    torch.testing.assert_close(p.probs.sum(1), torch.ones(len(p)))
    assert bool(p.changes[0]) == (n_c[1] == 3 or tuple(x.shape[-2:]) != (28, 28))


@seldom
@given(nfs=st.lists(st.integers(1, 5), min_size=4, max_size=5), c_in=st.sampled_from([1, 3]),
    names=st.lists(st.text(max_size=5), min_size=2, max_size=4),
    arch=st.sampled_from(['cnn', 'deeper', 'residual', 'double']))
def test_what_is_saved_is_what_is_loaded(nfs, c_in, names, arch, tmp_path_factory):
    m = build_model(arch, len(names), c_in, nfs=nfs).eval()
    clf = Classifier(m, arch, names, Normalize([.3]*c_in, [.2]*c_in), (9, 9), dict(nfs=nfs))
    path = save_model(clf, tmp_path_factory.mktemp('m')/'a.safetensors')
    back = load_model(path)
    x = images(2, c_in, 9, 9)
    assert torch.equal(back.model(x), m(x)) and back.classes == tuple(names) and back.about() == clf.about()
    assert save_model(back, path.with_name('b.safetensors')).read_bytes() == path.read_bytes()


RAW = []


@often
@given(cut=st.integers(0, 10**6), flip=st.integers(0, 10**6), bit=st.integers(0, 7),
    how=st.sampled_from(['cut', 'flip', 'append', 'noise', 'swap']))
def test_a_damaged_file_is_refused(cut, flip, bit, how, tmp_path_factory):
    d = tmp_path_factory.mktemp('m')
    if not RAW: RAW.append(save_model(CLF, d/'a.safetensors').read_bytes())
    raw = bytearray(RAW[0])
    i = flip % len(raw)
    if how == 'cut': raw = raw[:cut % len(raw)]
    elif how == 'flip': raw[i] ^= 1 << bit
    elif how == 'append': raw += bytes([bit])
    elif how == 'noise': raw = bytearray(torch.randint(0, 256, (cut % 999,), generator=torch.Generator().manual_seed(flip),
        dtype=torch.uint8).tolist())
    else: raw[i:i + 64] = bytes(reversed(raw[i:i + 64])) if raw[i:i + 64] != raw[i:i + 64][::-1] else b'x'*64
    (d/'b.safetensors').write_bytes(raw)
    with pytest.raises(DataError) as e: load_model(d/'b.safetensors')
    assert 'b.safetensors' in str(e.value)
