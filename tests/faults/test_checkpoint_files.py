"Checkpoints that are damaged, hostile, too new, or of another run"
import hashlib
import os
import shutil
import subprocess

import pytest
import torch
from runs import LIMIT, SETTINGS, assert_same, python, resume, run, saved

from slowai.checkpoint_files import FORMAT, read_checkpoint, to_bytes, write_checkpoint

pytestmark = pytest.mark.same_everywhere   # runs of generated pictures, in fp32


@pytest.fixture(scope='module')
def unfinished(tmp_path_factory):
    "The folder of a run that was killed in its last epoch"
    d = tmp_path_factory.mktemp('unfinished')/'run'
    run('killed', d, epoch=2, batch=5)
    return d


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    d = tmp_path_factory.mktemp('finished')/'run'
    assert_same(run('train', d).final)
    return d


@pytest.fixture
def folder(unfinished, tmp_path): return shutil.copytree(unfinished, tmp_path/'run')


def newest(folder): return folder/saved(folder)[-1]


def spoil(folder, data, name=None):
    p = newest(folder)
    p.unlink()   # it may have a second name
    p.write_bytes(data(p) if callable(data) else data)


def flipped(data, at):
    data = bytearray(data)
    data[at if at >= 0 else len(data) + at] ^= 1 << (abs(at) % 8)
    return bytes(data)


DAMAGES = {
    'truncated': (lambda d: d[:len(d)//2], 'is cut short: it ends after'),
    'without its last byte': (lambda d: d[:-1], 'has changed since it was written'),
    'empty': (lambda d: b'', 'is empty'),
    'text': (lambda d: b'Not Found\n', "is no checkpoint: it starts with b'Not Found"),
    'zeros': (lambda d: bytes(len(d)), 'is no checkpoint: it starts with'),
    'something added': (lambda d: d + b'\n', 'has changed since it was written'),
    **{f'bit {i} flipped': (lambda d, i=i: flipped(d, i), 'has changed since it was written: its SHA-256 is')
        for i in (100, 5001, 20002, -30003, -9)},
}


@pytest.mark.parametrize('damage, words', DAMAGES.values(), ids=DAMAGES)
def test_damaged(folder, damage, words):
    "The one before is as good: the result is the same, and somebody is told"
    p = newest(folder)
    data = damage(p.read_bytes())
    p.unlink(); p.write_bytes(data)
    res = resume(folder)
    assert f'{p.name} {words}' in res.said and f'Going on from the one before, {saved_before(p)}' in res.said
    assert_same(res.final)


def saved_before(p): return 'checkpoint-000006-epoch1-batch12.pt' if 'epoch2-batch4' in p.name else 'checkpoint-000007'


@pytest.mark.parametrize('digest, words', [(None, 'has no checkpoint-'), ('', 'and was ...'), ('0'*64, 'and was 000000000000...')],
    ids=['missing', 'empty', 'another'])
def test_damaged_digest(folder, digest, words):
    sha = newest(folder).with_name(newest(folder).name + '.sha256')
    sha.unlink()
    if digest is not None: sha.write_text(digest)
    res = resume(folder)
    assert words in res.said and 'Going on from the one before' in res.said
    assert_same(res.final)


def test_all_damaged(folder):
    "Starting afresh would be a surprise: say what is wrong instead"
    for p in folder.glob('*.pt'): p.unlink(); p.write_bytes(b'')
    res = resume(folder)
    assert res.code == 1 and 'DamagedError: resume: no checkpoint in' in res.said and 'To start afresh, use another folder' in res.said
    assert all(p.name in res.said for p in folder.glob('checkpoint-*.pt'))


def test_both_newest_damaged(folder):
    "Then the best is left, an end of an epoch like others"
    best = folder/saved(folder, 'best')[0]
    for p in folder.glob('checkpoint-*.pt'): p.unlink(); p.write_bytes(b'')
    res = resume(folder)
    assert f'Going on from the one before, {best.name}' in res.said
    assert_same(res.final)


def refused(res, *words):
    assert res.code == 1 and 'ValueError' in res.said, res.said
    for w in words: assert w in res.said, f'{w!r} not in:\n{res.said}'


class Hostile:
    "Unpickled, it would make a folder"
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return os.mkdir, (self.path,)


@pytest.mark.parametrize('where', ['in a checkpoint', 'in its place'])
def test_hostile_pickle(folder, tmp_path, where):
    "With a digest that fits. Nothing runs, and no older checkpoint is taken either: somebody has been here"
    payload = read_checkpoint(newest(folder)) if where == 'in a checkpoint' else {}
    payload['run me'] = Hostile(tmp_path/'pwned')
    write_checkpoint(newest(folder), to_bytes(payload))
    refused(resume(folder), 'holds more than numbers', 'mkdir', 'nothing of it was run')
    assert not (tmp_path/'pwned').exists()


def test_hostile_pickle_without_a_zip(folder, tmp_path):
    import pickle
    data = pickle.dumps(Hostile(tmp_path/'pwned'))
    p = newest(folder)
    p.unlink(); p.write_bytes(data)
    p.with_name(p.name + '.sha256').write_text(hashlib.sha256(data).hexdigest())
    res = resume(folder)
    assert 'is no checkpoint: it starts with' in res.said
    assert not (tmp_path/'pwned').exists()
    assert_same(res.final)


def test_newer_format(folder):
    payload = read_checkpoint(newest(folder))
    write_checkpoint(newest(folder), to_bytes({**payload, 'format': 99}))
    refused(resume(folder), f'has checkpoint format 99, and this version of slowai reads up to {FORMAT}; update slowai')


@pytest.mark.parametrize('payload', [[1, 2], {'state_dict': {}}], ids=['a list', "somebody else's"])
def test_not_ours(folder, payload):
    write_checkpoint(newest(folder), to_bytes(payload))
    refused(resume(folder), 'is no checkpoint of slowai')


OTHERS = {
    'another batch size': (dict(bs=10), 'batch size: 20 in the checkpoint, 10 here', 'batches an epoch: 12 in the checkpoint, 23 here'),
    'another seed': (dict(seed=5), 'seed: 0 in the checkpoint, 5 here'),
    'other images': (dict(data_seed=3), 'data (train): shapes, 230 images, checksum', 'data (test): shapes, 60 images',
        'seed of the loaders'),
    'more epochs': (dict(n_epochs=4), 'number of epochs: 3 in the checkpoint, 4 here',
        'BatchSchedulerCB.total_steps: 18 in the checkpoint, 24 here'),
    'another learning rate': (dict(lr=.05), 'AdamW max_lr: 0.02 in the checkpoint, 0.05 here'),
    'another number of pieces': (dict(pieces=3), 'GradientAccumulationCB.n: 2 in the checkpoint, 3 here'),
    'a wider network': (dict(width=8), 'model.0.weight: (6, 1, 3, 3) torch.float32 in the checkpoint, (8, 1, 3, 3) torch.float32 here',
        'model.1.running_mean: (6,)', 'more'),
}


@pytest.mark.parametrize('change, words', [(v[0], v[1:]) for v in OTHERS.values()], ids=OTHERS)
def test_another_run(unfinished, change, words):
    "Refused, with both values named, and nothing in the folder is touched"
    before = sorted((p.name, p.stat().st_mtime_ns) for p in unfinished.glob('*.pt*'))
    refused(resume(unfinished, **change), 'is of another run: ', *words, 'Use the same values, or start afresh in another folder')
    assert sorted((p.name, p.stat().st_mtime_ns) for p in unfinished.glob('*.pt*')) == before


def test_another_optimiser(unfinished):
    refused(run('sgd', unfinished, out=False), 'optimiser: AdamW in the checkpoint, SGD here')


def test_another_callback(unfinished):
    refused(run('another_callback', unfinished, out=False), 'callback Extra: nothing in the checkpoint, present here')


def test_a_callback_that_cannot_be_saved(tmp_path):
    res = run('unsavable_callback', tmp_path/'run', out=False)
    assert res.code == 1 and 'TypeError: Odd.thing: a checkpoint holds tensors, numbers, strings' in res.said and 'PosixPath' in res.said


def test_finished_run(finished):
    "Nothing left to do: everything as it was at the end, nothing trained, nothing written"
    before = sorted((p.name, p.stat().st_mtime_ns) for p in finished.glob('*.pt*'))
    res = resume(finished)
    assert res.said.startswith('nothing left to do: the run in') and 'epoch 0  train' not in res.said
    assert_same(res.final)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in finished.glob('*.pt*')) == before


def test_from_a_file(folder, tmp_path):
    "resume= may name a folder or a file elsewhere; new checkpoints go where they belong"
    old = newest(folder)
    res = run('train', tmp_path/'new', resume=str(old))
    assert f'going on from epoch 2, batch 4 ({old.name})' in res.said
    assert_same(res.final)
    assert saved(tmp_path/'new')[-1].endswith('finished.pt')
    refused(run('train', tmp_path/'new', resume=str(tmp_path/'typo')), 'resume: there is no')


def test_nothing_there(tmp_path): assert_same(resume(tmp_path/'run').final)


def test_from_a_gpu_on_a_cpu(folder):
    res = run('from_a_gpu', folder, file=str(newest(folder)))
    assert 'UserWarning: resume: device: cuda in the checkpoint, cpu here. The run goes on; its last bits may differ' in res.said
    assert_same(res.final)   # they don't, since it was never on a GPU


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


@gpu
def test_gpu_to_cpu(tmp_path):
    res = run('there_and_back', tmp_path/'run')
    assert 'device: cuda in the checkpoint, cpu here' in res.said and len(res.final['history']) == 6


@gpu
def test_gpu_to_gpu(tmp_path):
    a, b = run('gpu_only', tmp_path/'a', broken=False), run('gpu_only', tmp_path/'b', broken=True)
    assert 'going on from epoch 1' in b.said
    assert_same(b.final, a.final)


def test_the_same_bytes(tmp_path):
    "What is saved depends on no clock and on no order of hashes, but for the time that the run has taken"
    for k in 'ab': (tmp_path/k).mkdir()
    p = subprocess.Popen(python(tmp_path/'a'/'run', tmp_path/'a.out', 'all'), stdout=subprocess.DEVNULL,
        env={**os.environ, **SETTINGS, 'PYTHONHASHSEED': '1'})   # the server has drawn one of its own
    assert run('train', tmp_path/'b'/'run', keep=99, resume=True).code == p.wait(LIMIT) == 0
    names = saved(tmp_path/'a'/'run')
    assert len(names) == 10 and names == saved(tmp_path/'b'/'run')
    for n in names:
        a, b = (read_checkpoint(tmp_path/k/'run'/n) for k in 'ab')
        for o in (a, b): o['callbacks']['RecordCB'].pop('seconds')
        assert bytes(to_bytes(a)) == bytes(to_bytes(b))
