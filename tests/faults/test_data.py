"Every fault of the data that we could think of: found where the data come in, with the file or the parameter and a remedy named"
import gzip
import io
import multiprocessing
import os
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from slowai.batches import BatchedSet, DataLoaders, Normalize, shapes_dls
from slowai.checks import DataError, DataMissingError
from slowai.data import ImageSet, draw_shapes, show_images
from slowai.fashion import fashion_classes, load_fashion_mnist
from slowai.learner import DeviceCB, TrainLearner

torch.set_num_threads(1)
TRAIN, TRAIN_LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'
TEST, TEST_LABELS = 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'


def idx(data, *dims, magic=None): return struct.pack(f'>{1 + len(dims)}I', magic or 2048 + len(dims), *dims) + bytes(data)


def idx_folder(d, **change):
    "The four files of a tiny FashionMNIST; `change` replaces some by other bytes, or leaves them out (None)"
    files = {TRAIN: idx(20*28*28, 20, 28, 28), TRAIN_LABELS: idx(bytes(range(10))*2, 20), TEST: idx(10*28*28, 10, 28, 28),
        TEST_LABELS: idx(range(10), 10)}
    for k, v in {**files, **{k.replace('_', '-'): v for k, v in change.items()}}.items():
        if v is not None: (d/k).write_bytes(v)
    return d


def key(name): return name.replace('-', '_')


def test_a_sound_folder_loads(tmp_path):
    sets = load_fashion_mnist(idx_folder(tmp_path), verify=False)
    assert len(sets['train']) == 20 and sets['test'].labels.tolist() == list(range(10))


IDX_FAULTS = dict(
    image_file_missing=({TRAIN: None}, 'the file is missing'),
    label_file_missing=({TEST_LABELS: None}, 'the file is missing'),
    empty_file=({TRAIN: b''}, 'expected an IDX header of 16 bytes, got 0 bytes'),
    header_cut_off=({TRAIN_LABELS: b'\0\0\x08'}, 'expected an IDX header of 8 bytes, got 3 bytes'),
    truncated=({TRAIN: idx(19*28*28, 20, 28, 28)}, 'the header promises 20×28×28 bytes'),
    too_long=({TEST: idx(11*28*28, 10, 28, 28)}, 'the header promises 10×28×28 bytes'),
    bad_magic=({TRAIN: idx(20*28*28, 20, 28, 28, magic=2050)}, 'expected the magic number 2051, got 2050'),
    labels_and_images_swapped=({TRAIN_LABELS: idx(20*28*28, 20, 28, 28)}, 'expected the magic number 2049, got 2051'),
    a_web_page_instead=({TEST: b'<!doctype html><title>404</title>'}, 'expected the magic number 2051'),
    counts_differ=({TRAIN_LABELS: idx(bytes(19), 19)}, 'expected 20 labels, one for each train image, got 19'),
    label_out_of_range=({TEST_LABELS: idx([10]*10, 10)}, 'expected labels from 0 to 9, got 10'),
    wrong_size=({TRAIN: idx(20*27*28, 20, 27, 28)}, 'expected images of 28×28, got (27, 28)'),
    no_image_at_all=({TEST: idx(b'', 0, 28, 28), TEST_LABELS: idx(b'', 0)}, 'expected labels from 0 to 9, got none'),
)


@pytest.mark.parametrize('change, words', IDX_FAULTS.values(), ids=IDX_FAULTS)
def test_idx_fault(change, words, tmp_path):
    idx_folder(tmp_path, **{key(k): v for k, v in change.items()})
    with pytest.raises(DataError) as e: load_fashion_mnist(tmp_path, verify=False)
    assert words in str(e.value) and str(tmp_path) in str(e.value)


@pytest.mark.parametrize('damage', [lambda b: b[:-20], lambda b: b[:5], lambda b: b'PK' + b[2:],
    lambda b: b[:40] + bytes([b[40] ^ 255]) + b[41:]],
    ids=['truncated', 'cut after the header', 'not gzip', 'a byte changed'])
def test_damaged_gzip(damage, tmp_path):
    d = idx_folder(tmp_path, **{key(TRAIN): None})
    raw = torch.randint(0, 256, (20*28*28,), dtype=torch.uint8).numpy().tobytes()
    (d/f'{TRAIN}.gz').write_bytes(damage(gzip.compress(idx(raw, 20, 28, 28))))
    with pytest.raises(DataError, match='damaged gzip file'): load_fashion_mnist(d, verify=False)


def test_other_contents_than_the_published(tmp_path):
    with pytest.raises(DataError, match='the contents are not the published train-images-idx3-ubyte .their SHA-256 differs.*verify=False'):
        load_fashion_mnist(idx_folder(tmp_path))


def test_folder_missing_or_empty(tmp_path):
    with pytest.raises(DataError, match='there is no folder'): load_fashion_mnist(tmp_path/'nowhere')
    with pytest.raises(DataError, match='holds neither the four IDX files nor'): load_fashion_mnist(tmp_path)


def test_nowhere_to_be_found(tmp_path, monkeypatch):
    import slowai.fashion
    monkeypatch.setenv('XDG_DATA_DIRS', str(tmp_path))
    monkeypatch.setattr(slowai.fashion, '_from_hub', lambda *a, **k: (_ for _ in ()).throw(slowai.fashion.NotHereError('no network')))
    monkeypatch.setenv('SLOWAI_DATA', str(tmp_path/'env'))
    with pytest.raises(DataMissingError) as e: load_fashion_mnist()
    assert all(o in str(e.value) for o in ('$SLOWAI_DATA', 'hub: no network', 'Debian package', 'apt-get install dataset-fashion-mnist'))


# ---- tables of encoded pictures

def png(size=(28, 28)):
    buf = io.BytesIO()
    Image.new('L', size, 7).save(buf, 'PNG')
    return buf.getvalue()


def table(d, n=10, picture=None, labels=None, columns=('image', 'label'), names=fashion_classes, splits=('train', 'test')):
    from datasets import ClassLabel, Features, Image as Picture, Value
    pictures = [{'bytes': png(), 'path': None}]*(n - 1) + [{'bytes': picture or png(), 'path': None}]
    kind = ClassLabel(names=list(names)) if names else Value('int64')
    t = pa.table(dict(zip(columns, (pa.array(pictures), pa.array(labels or list(range(n)), pa.int64())))))
    schema = Features(dict(zip(columns, (Picture(), kind)))).arrow_schema
    for s in splits: pq.write_table(t.cast(schema), d/f'{s}-00000-of-00001.parquet')
    return d


TABLE_FAULTS = dict(
    not_a_picture=(dict(picture=b'not a picture'), 'a picture cannot be decoded'),
    truncated_picture=(dict(picture=png()[:40]), 'a picture cannot be decoded'),
    wrong_size=(dict(picture=png((27, 28))), 'a picture is not 28×28'),
    unknown_columns=(dict(columns=('img', 'target')), 'expected the columns image and label, got img, target'),
    label_out_of_range=(dict(labels=[0]*9 + [10], names=None), 'expected labels from 0 to 9, got 0 to 10'),
    other_classes=(dict(names=tuple('abcdefghij')), 'this is another data set'),
)


@pytest.mark.parametrize('change, words', TABLE_FAULTS.values(), ids=TABLE_FAULTS)
def test_table_fault(change, words, tmp_path):
    (tmp_path/'d').mkdir()
    with pytest.raises(DataError) as e: load_fashion_mnist(table(tmp_path/'d', **change), verify=False, cache_dir=tmp_path/'cache')
    assert words in str(e.value)


def test_a_sound_table_loads(tmp_path):
    (tmp_path/'d').mkdir()
    assert len(load_fashion_mnist(table(tmp_path/'d'), verify=False, cache_dir=tmp_path/'cache')['test']) == 10


def test_a_split_is_missing(tmp_path):
    with pytest.raises(DataError, match='holds neither'): load_fashion_mnist(table(tmp_path, splits=('train',)), cache_dir=tmp_path/'cache')


def test_table_that_is_none(tmp_path):
    for s in ('train', 'test'): (tmp_path/f'{s}-00000-of-00001.parquet').write_text('hello')
    with pytest.raises(DataError, match='unreadable as parquet'): load_fashion_mnist(tmp_path, verify=False, cache_dir=tmp_path/'cache')


# ---- sets and loaders

X, Y = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 1])
SET_FAULTS = dict(
    float_images=((X.float(), Y, 'abc'), 'images: expected a uint8 tensor (N, C, H, W), got torch.float32'),
    no_channels=((X[:, 0], Y, 'abc'), 'images: expected a uint8 tensor (N, C, H, W)'),
    numpy_images=((X.numpy(), Y, 'abc'), 'images: expected a uint8 tensor'),
    int32_labels=((X, Y.int(), 'abc'), 'labels: expected an int64 tensor (N,), got torch.int32'),
    float_labels=((X, Y.float(), 'abc'), 'labels: expected an int64 tensor (N,)'),
    one_hot_labels=((X, F.one_hot(Y), 'abc'), 'labels: expected an int64 tensor (N,)'),
    counts_differ=((X[:3], Y, 'abc'), 'labels: expected one for each of 3 images, got 4'),
    label_too_large=((X, Y, 'ab'), 'labels: expected 0 to 1 for 2 classes, got 0 to 2'),
    label_negative=((X, Y - 1, 'abc'), 'labels: expected 0 to 2 for 3 classes, got -1 to 1'),
)


@pytest.mark.parametrize('args, words', SET_FAULTS.values(), ids=SET_FAULTS)
def test_set_fault(args, words):
    with pytest.raises(DataError) as e: ImageSet(*args)
    assert words in str(e.value)


def test_split_unknown():
    with pytest.raises(KeyError, match="no split 'valid'; there are"): shapes_dls(n_train=20, n_test=10)['valid']


@pytest.mark.parametrize('splits, words', [
    (dict(test=ImageSet(X, Y, 'abc')), "expected 'train' and a split to evaluate on"),
    (dict(train=ImageSet(X, Y, 'abc')), "expected 'train' and a split to evaluate on"),
    (dict(train=ImageSet(X, Y, 'abc'), test=ImageSet(X[:0], Y[:0], 'abc')), "'test' is empty")], ids=['no train', 'train only', 'empty'])
def test_splits_fault(splits, words):
    with pytest.raises(ValueError, match=words): DataLoaders(splits, bs=2)


def test_images_of_one_colour_cannot_be_normalised():
    with pytest.raises(ValueError, match='are all images of one colour'): Normalize.from_images(X)


def test_pictures_of_another_shape():
    with pytest.raises(ValueError, match='images: expected .N, C, H, W. with 1 or 3 channels'): show_images(torch.zeros(2, 2, 8, 8))


# ---- faults that only show while training

def learner(dls, n_in=64):
    return TrainLearner(nn.Sequential(nn.Flatten(), nn.Linear(n_in, 10)), dls, F.cross_entropy, cbs=DeviceCB('cpu'))


def told(e): return f"{e.value} {' '.join(getattr(e.value, '__notes__', []))}"


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_pixels_that_are_no_numbers(bad):
    x = torch.rand(8, 1, 4, 4)
    x[5, 0, 2, 2] = bad
    data = {k: [(x, torch.arange(8))] for k in ('train', 'test')}
    with pytest.raises(FloatingPointError) as e: learner(data, 16).fit()
    assert 'at epoch 0, training batch 0' in str(e.value) and ': the images of shape (8, 1, 4, 4)' in str(e.value)


class Faulty(BatchedSet):
    "Does `what` where training image 3 is asked for, in whatever process that falls to"
    def __init__(self, data, what):
        super().__init__(data, lambda x: x.float()/255)
        self.what, self.main, self.over = what, os.getpid(), multiprocessing.Event()
    def __getitems__(self, idxs):
        if 3 in idxs and len(self) == 64: self.what(self, os.getpid() != self.main)
        return list(zip(*super().__getitems__(idxs), strict=True))


def die(data, in_worker): assert in_worker; os._exit(7)
def hang(data, in_worker): assert in_worker; data.over.wait(600)
def fail(data, in_worker): raise OSError('a damaged picture')


@pytest.mark.parametrize('what, workers, exc, words', [
    (die, 1, RuntimeError, ('exited unexpectedly', 'num_workers=1; num_workers=0 shows the error itself')),
    (hang, 1, RuntimeError, ('timed out after 2', 'num_workers=1')),
    (fail, 1, OSError, ('a damaged picture', 'while loading the data of epoch 0, training, with num_workers=1')),
    (fail, 0, OSError, ('a damaged picture', 'while loading the data of epoch 0, training'))],
    ids=['killed', 'hanging', 'failing', 'failing here'])
def test_worker(what, workers, exc, words):
    sets = draw_shapes(n_train=64, n_test=16, size=8)
    sets = {k: Faulty(v, what) for k, v in sets.items()}
    # one batch, before which a worker has sent nothing that could still be under way when it dies
    dls = DataLoaders(sets, bs=64, num_workers=workers, timeout=2 if what is hang else 1200)
    with pytest.raises(exc) as e: learner(dls).fit()
    for o in sets.values(): o.over.set()   # or the loader would wait for its worker before it ends it
    assert all(o in told(e) for o in words), told(e)
