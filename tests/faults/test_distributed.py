"Several real processes against one: the same losses, the same accuracy, the same bits after a fall; and what is said when one is missing"
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import LIMIT, SETTINGS
from teams import finish, start, team

from slowai.tiny_imagenet_preact import get_model, unused_parameters

pytestmark = pytest.mark.same_everywhere   # runs of generated pictures, in fp32 or in the bf16 that is asked for

HERE = Path(__file__).parent
RUN = '--data shapes --model cnn --epochs 1 --bs 256 --seed 3 --device cpu --out'.split()
LAUNCH = 'accelerate.commands.launch --num_machines 1 --mixed_precision no --dynamo_backend no --num_processes 2'.split()


def ok(res):
    for o in res: assert o.code == 0, o.said
    return [o.final for o in res]


# ---- two are as good as one

@pytest.mark.parametrize('pieces', [1, 3])
def test_loss_is_that_of_one_process(tmp_path, pieces):
    one, = ok(team('same_loss', tmp_path/'one', size=1, team=False, pieces=pieces))
    two = ok(team('same_loss', tmp_path/'two', pieces=pieces))
    assert len(one['losses']) == 60   # 12 batches of 20, the last one of 10, 5 times
    np.testing.assert_allclose(two[0]['losses'], one['losses'], rtol=2e-5)
    assert two[0]['losses'] == two[1]['losses'] == two[0]['curve']
    for f in two: assert [r['accuracy'] for r in f['history']] == [r['accuracy'] for r in one['history']]
    assert two[0]['images'] == one['images']
    assert [f['threads'] for f in (one, *two)] == [1, 1, 1]   # to the end


def test_classes_weigh_the_same_over_both(tmp_path):
    one, = ok(team('weighted_loss', tmp_path/'one', size=1, team=False))
    two = ok(team('weighted_loss', tmp_path/'two'))
    np.testing.assert_allclose(two[0]['losses'], one['losses'], rtol=2e-5)
    for f in two: np.testing.assert_allclose([r['loss'] for r in f['history']], [r['loss'] for r in one['history']], rtol=2e-5)
    assert two[0]['images'] == one['images']


def test_batchnorm_differs_within_bounds(tmp_path):
    one, = ok(team('same_loss', tmp_path/'one', size=1, team=False, norm=True))
    two, other = ok(team('same_loss', tmp_path/'two', norm=True))
    assert all(torch.equal(a, b) for a, b in zip(two['model'].values(), other['model'].values(), strict=True))
    assert 0 < np.abs(np.array(two['losses']) - one['losses']).max() < .2
    # with weights that stand still: the mean of the halves' means is the mean, the mean of their variances nearly the variance
    one, = ok(team('same_loss', tmp_path/'still', size=1, team=False, norm=True, lr=1e-9))
    two, _ = ok(team('same_loss', tmp_path/'both', norm=True, lr=1e-9))
    torch.testing.assert_close(two['model']['1.running_mean'], one['model']['1.running_mean'], rtol=0, atol=1e-5)
    torch.testing.assert_close(two['model']['1.running_var'], one['model']['1.running_var'], rtol=.05, atol=0)
    assert not torch.equal(two['model']['1.running_var'], one['model']['1.running_var'])


def test_three_processes(tmp_path):
    one, = ok(team('same_loss', tmp_path/'one', size=1, team=False, n_epochs=1))
    three = ok(team('same_loss', tmp_path/'three', size=3, n_epochs=1))
    np.testing.assert_allclose(three[0]['losses'], one['losses'], rtol=2e-5)
    assert [r['accuracy'] for r in three[2]['history']] == [r['accuracy'] for r in one['history']]


@pytest.mark.parametrize('pieces', [1, 3])
def test_gradients_are_exchanged_only_where_a_step_is_taken(tmp_path, pieces):
    for exchanged, steps, batches in ok(team('exchanges', tmp_path, pieces)):
        assert exchanged == steps == 2*-(-batches//pieces) and batches == 12


def test_bf16_by_accelerate(tmp_path):
    "One process with our own mixed precision is the measure"
    one, = ok(team('bf16', tmp_path/'one', False, size=1))
    two = ok(team('bf16', tmp_path/'two', True))
    assert all(o['bf16'] for o in (one, *two)) and two[0]['losses'] == two[1]['losses']
    np.testing.assert_allclose(two[0]['losses'], one['losses'], rtol=.02)
    assert all(torch.equal(a, b) for a, b in zip(two[0]['model'].values(), two[1]['model'].values(), strict=True))


def test_one_speaks(tmp_path):
    res = team('same_loss', tmp_path, n_epochs=1)
    assert res[0].said.count('epoch 0') == 1 and '| accuracy' in res[0].said
    assert 'epoch' not in res[1].said and '|' not in res[1].said


def test_every_image_once_with_workers(tmp_path):
    a, b = ok(team('workers', tmp_path))
    for epoch in range(2):
        x, y = a[10*epoch:10*epoch + 10], b[10*epoch:10*epoch + 10]
        assert sorted([*x[:, 3].tolist(), *y[:, 3].tolist()]) == list(range(20))
        assert not torch.equal(x[:, :3], y[:, :3])   # other dice in each


# ---- a run that is killed and goes on

@cache
def peace():
    with tempfile.TemporaryDirectory() as d: return ok(team('full', Path(d)/'run', f'{d}/checkpoints', every=10**6))


def assert_same(res):
    for a, b in zip(ok(res), peace(), strict=True):
        for k in ('model',): assert all(torch.equal(v, b[k][nm]) for nm, v in a[k].items()), k
        assert torch.equal(a['random'], b['random'])
        for k in ('history', 'curve', 'images'): assert a[k] == b[k], k


PLACES = {
    'one, in mid-epoch': dict(rank=1, epoch=1, batch=7),
    'the first, in a backward pass': dict(rank=0, event='after_loss', epoch=1, batch=9),
    'one, in an evaluation': dict(rank=1, event='after_loss', epoch=1, batch=1, training=False),
    'all of them': dict(epoch=2, batch=3),
}


@pytest.mark.parametrize('place', PLACES.values(), ids=PLACES)
def test_kill_9(tmp_path, place):
    res = team('killed', tmp_path/'a', f'{tmp_path}/checkpoints', **place)
    assert not any('in vain' in o.said for o in res)   # nobody has waited: the loss is noticed at once
    assert [o.code for o in res].count(-9) == (1 if 'rank' in place else 2) and all(o.code for o in res)
    again = team('full', tmp_path/'b', f'{tmp_path}/checkpoints')
    assert 'going on from epoch' in again[0].said
    assert_same(again)


@pytest.mark.parametrize('signum,code', [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_a_signal_for_one_stops_all(tmp_path, signum, code):
    res = team('signalled', tmp_path/'a', f'{tmp_path}/checkpoints', rank=1, signum=int(signum), epoch=1, batch=5, order=100)
    assert [o.code for o in res] == [code, code], [o.said for o in res]
    assert_same(team('full', tmp_path/'b', f'{tmp_path}/checkpoints'))


def test_another_number_of_processes(tmp_path):
    team('killed', tmp_path/'a', f'{tmp_path}/checkpoints', epoch=1, batch=7)
    res, = team('full', tmp_path/'b', f'{tmp_path}/checkpoints', size=1)   # AccelerateCB alone is refused before
    assert 'processes: expected more than one, got 1' in res.said
    res = team('full', tmp_path/'c', f'{tmp_path}/checkpoints', size=3)
    assert all(o.code for o in res)
    assert 'was written by 2 processes, and here are 3: The order of the images' in res[0].said
    assert 'process 0: ValueError: resume: ' in res[1].said
    res = team('full', tmp_path/'d', f'{tmp_path}/checkpoints', size=3, regroup=True)
    assert len(ok(res)[0]['history']) == 6


def test_two_jobs_on_one_folder(tmp_path):
    flag = tmp_path/'flag'
    first = start('waiting', tmp_path/'a', f'{tmp_path}/checkpoints', str(flag))
    while not Path(f'{flag}.up').exists(): time.sleep(.05)
    second = team('full', tmp_path/'b', f'{tmp_path}/checkpoints')
    flag.touch()
    assert all(o.code for o in second) and 'is in use by another run (process' in second[0].said
    assert 'process 0: ValueError: folder: ' in second[1].said
    ok(finish(first, tmp_path/'a'))


# ---- one of them has something to say

RAISES = {
    'before a batch': dict(event='before_batch', epoch=1, batch=4),
    'after the forward pass': dict(event='after_predict', epoch=1, batch=0),
    'before the backward pass': dict(event='after_loss', epoch=1, batch=4),
    'after the backward pass': dict(event='after_backward', epoch=1, batch=4),
    'after a step': dict(event='after_step', epoch=1, batch=4),
    'after the last batch': dict(epoch=1, batch=11),
    'before a pass': dict(event='before_epoch', epoch=1),
    'in an evaluation': dict(event='after_loss', epoch=1, batch=2, training=False),
    'at the end of an evaluation': dict(event='after_epoch', epoch=1, training=False),
    'in the very first batch': dict(event='before_batch', epoch=0, batch=0),
    'in the second batch': dict(event='before_batch', epoch=0, batch=1),
}


@pytest.mark.parametrize('place', RAISES.values(), ids=RAISES)
def test_one_raises(tmp_path, place):
    res = team('raises', tmp_path, 'value', **place)
    assert all(o.code == 1 for o in res)
    assert 'ValueError: mine' in res[1].said and 'OtherProcessError' not in res[1].said
    assert 'OtherProcessError: process 1: ValueError: mine' in res[0].said and 'onnection' not in res[0].said


@pytest.mark.parametrize('place', [RAISES[k] for k in ('before the backward pass', 'after a step', 'in an evaluation',
    'at the end of an evaluation')])
@pytest.mark.parametrize('rank', [0, 1])
def test_one_stops_early(tmp_path, place, rank):
    a, b = ok(team('raises', tmp_path, 'stop', rank=rank, **place))
    assert all(torch.equal(v, b['model'][k]) for k, v in a['model'].items())
    assert a['history'] == b['history']


def test_early_stop_decided_by_one(tmp_path):
    a, b = ok(team('early', tmp_path))
    assert a['history'] == b['history'] and len(a['history']) == 4   # training and evaluation, twice


def test_one_leaves_a_batch(tmp_path):
    a, b = ok(team('raises', tmp_path, 'batch', event='after_loss', batch=4))
    assert all(torch.equal(v, b['model'][k]) for k, v in a['model'].items())


def test_one_leaves_a_pass(tmp_path):
    a, b = ok(team('raises', tmp_path, 'epoch', event='after_loss', batch=4))
    assert all(torch.equal(v, b['model'][k]) for k, v in a['model'].items()) and len(a['history']) == 5


def test_one_misses_a_step(tmp_path):
    for o in team('apart', tmp_path):
        said = o.said.replace('a backward pass in ', '')
        assert o.code == 1 and 'the processes have come apart: process 0 is at epoch 0' in said, o.said


def test_nan_in_one(tmp_path):
    res = team('nan', tmp_path)
    assert all(o.code == 1 for o in res)
    assert 'FloatingPointError: the loss is nan at epoch 0, training batch 3' in res[1].said
    assert 'process 1: FloatingPointError: the loss is nan' in res[0].said


def test_data_that_one_cannot_read(tmp_path):
    res = team('spoilt_data', tmp_path)
    assert 'OSError: picture 97 is spoilt' in res[1].said and 'process 1: OSError: picture 97 is spoilt' in res[0].said


def test_unused_parameters(tmp_path):
    for o in team('unused', tmp_path/'a'):
        assert o.code == 1 and 'model: the forward pass never uses spare.weight, spare.bias' in o.said and 'find_unused' in o.said
    names = list(unused_parameters(get_model(.25), torch.zeros(2, 3, 64, 64)))
    for o in team('reference', tmp_path/'c'):
        assert o.code == 1 and f"never uses {', '.join(names[:6])} and {len(names) - 6} more, and all" in o.said
    ok(team('unused', tmp_path/'b', find=True))


@pytest.mark.skipif(sys.platform != 'linux', reason='counts threads in /proc')
def test_they_let_go_of_each_other(tmp_path):
    "A thread that still puts away the last message when the interpreter goes ends its process by SIGABRT"
    for before, after, left in ok(team('orderly', tmp_path)): assert after < before and not left


# ---- one of them is missing

def test_without_accelerate(tmp_path):
    "It is an extra: one line says so, at the time of use"
    res, = team('without_accelerate', tmp_path, size=1)
    assert res.code == 2
    assert res.said == 'slowai_train: several processes need Hugging Face Accelerate: pip install slowai[distributed]\n'


def test_alone_by_mistake(tmp_path):
    res, = team('alone', tmp_path/'a', size=1)
    assert res.code == 1 and 'processes: expected more than one, got 1. Start them with' in res.said
    res, = team('alone', tmp_path/'b', size=1, SLURM_NTASKS='4')
    assert 'processes: expected 4, got 1, though SLURM_NTASKS is 4' in res.said
    ok(team('alone', tmp_path/'c', size=1, processes=1))
    for o in team('alone', tmp_path/'d', processes=3): assert 'processes: expected 3, got 2' in o.said


def test_one_never_arrives(tmp_path):
    t = time.monotonic()
    res, = team('too_late', tmp_path, ranks=[0], wait=3)
    assert res.code == 1 and 'timeout: process 0 of 2 has waited 3 s' in res.said
    assert time.monotonic() - t > 2.5


def test_one_hangs(tmp_path):
    ps = start('hanging', tmp_path, 4)
    ps[0].join(LIMIT)
    ps[1].kill()
    res = finish(ps, tmp_path)
    assert res[0].code == 1 and 'process 0 has waited 4 s for the others in vain (timeout)' in res[0].said


def test_port_in_use(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        res, = team('too_late', tmp_path, ranks=[0], wait=10, port=s.getsockname()[1])
    assert res.code == 1 and 'MASTER_PORT: the port of 127.0.0.1:' in res.said and 'is in use' in res.said


# ---- data larger than memory

def parquet(folder, sizes):
    "Files with so many small pictures, each with its number as label"
    import datasets
    from PIL import Image
    n, files = 0, []
    for i, k in enumerate(sizes):
        rows = dict(image=[Image.new('RGB', (4, 4), (o % 256, 7*o % 256, 0)) for o in range(n, n + k)], label=list(range(n, n + k)))
        ds = datasets.Dataset.from_dict(rows, features=datasets.Features(image=datasets.Image(), label=datasets.Value('int64')))
        ds.to_parquet(str(file := folder/f'{i}.parquet')); files.append(str(file)); n += k
    return files


@pytest.mark.parametrize('sizes,sized', [((30, 30), True), ((41, 13), False), ((41, 13), True), ((20, 21, 12), False), ((17, 0), True)],
    ids=str)   # by file, uneven (of known length, and not), by picture, one has nothing
def test_stream_every_picture_once(tmp_path, sizes, sized):
    files = parquet(tmp_path, sizes)
    two = ok(team('stream', tmp_path/'two', files, sized=sized))
    for epoch in range(2):
        a, b = (o['seen'][epoch] for o in two)
        assert sorted(sum(a + b, [])) == list(range(sum(sizes)))
        together = [len(x) + len(y) for x, y in zip(a, b, strict=True)]
        assert together[:-1] == [8]*(len(together) - 1) and 0 < together[-1] < 12
        assert all(abs(len(x) - len(y)) <= 1 for x, y in zip(a, b))
    assert two[0]['seen'][0] != two[0]['seen'][1]   # another order
    one, = ok(team('stream', tmp_path/'one', files, size=1, team=False, sized=sized))
    assert [r['loss'] for r in one['history'] if r['train'] == 'eval'][0] == pytest.approx(two[0]['history'][1]['loss'], rel=.2)
    assert sorted(sum(one['seen'][1], [])) == list(range(sum(sizes)))


@pytest.mark.parametrize('size', [1, 2])
def test_stream_goes_on_at_the_picture(tmp_path, size):
    files = parquet(tmp_path, (40, 45))
    def full(name, **kw): return team('stream', tmp_path/name, files, size=size, **({} if size > 1 else {'team': False}), **kw)
    peace = ok(full('peace', checkpoints=str(tmp_path/'p')))
    fallen = full('fallen', checkpoints=str(tmp_path/'c'), at=dict(epoch=1, batch=5, order=100))
    assert {o.code for o in fallen} == {-9}
    again = ok(full('again', checkpoints=str(tmp_path/'c'), resume=True))
    for a, b in zip(again, peace, strict=True):
        assert a['seen'][1] == b['seen'][1][-len(a['seen'][1]):] and len(a['seen'][1]) < len(b['seen'][1])
        assert a['history'] == b['history'] and all(torch.equal(v, b['model'][k]) for k, v in a['model'].items())


# ---- ways in

WAYS = {
    'accelerate launch': [*LAUNCH, '--multi_gpu', '--main_process_port', '0'],
    'torchrun': ['torch.distributed.run', '--standalone', '--nproc_per_node', '2'],
}


def shell(*args, **env):
    env = {**{k: v for k, v in os.environ.items() if k != 'IN_TEST'}, **SETTINGS, **env}
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, env=env, timeout=LIMIT)


def script(tmp_path):
    "The command as a file, as an installation leaves it"
    file = tmp_path/'slowai_train'
    file.write_text('from slowai.cli import slowai_train\nslowai_train()\n')
    return str(file)


def test_ways_in(tmp_path):
    "Three ways, one network, to the byte; and nothing is said twice"
    runs = {k: shell('-m', *v, script(tmp_path), *RUN, tmp_path/k) for k, v in WAYS.items()}
    runs['--processes 2'] = shell(script(tmp_path), *RUN, tmp_path/'--processes 2', '--processes', '2')
    for k, r in runs.items():
        assert r.returncode == 0, f'{k}: {r.stderr}'
        assert r.stdout.count('wrote metrics.json') == 1 and r.stdout.count('epoch 0') == 1
        record = json.loads((tmp_path/k/'metrics.json').read_text())
        assert record['recipe']['processes'] == 2 and record['device'] == 'cpu, 1 threads'
    assert len({(tmp_path/k/'model.safetensors').read_bytes() for k in runs}) == 1


def test_accelerate_that_starts_one_and_says_nothing(tmp_path):
    r = shell('-m', *LAUNCH, '--cpu', script(tmp_path), *RUN, tmp_path/'run')
    assert r.returncode and 'slowai_train: processes: expected more than one, got 1. Start them with' in r.stderr
    assert 'epoch 0' not in r.stdout


def launched(name, **kwargs):
    "Two processes through `launch`, and what it says of them"
    code = f"""import sys; from slowai.launch import launch
sys.exit(launch([sys.executable, {str(HERE/'distributed_child.py')!r}, {name!r}, {json.dumps(kwargs)!r}], 2, grace=5))"""
    return shell('-c', code)


def test_the_launcher_names_who_was_killed(tmp_path):
    r = launched('killed', out=str(tmp_path/'out'), folder=str(tmp_path/'c'), rank=1, epoch=0, batch=7)
    assert r.returncode == 137 and r.stderr.strip().endswith('process 1 of 2 was ended by SIGKILL; the job has ended')
    assert 'in vain' not in r.stderr


def test_kill_9_of_the_whole_job(tmp_path):
    "The launcher is gone at once; its processes end in good order, and the run goes on"
    args = json.dumps(dict(out=str(tmp_path/'a'), folder=str(tmp_path/'c'), flag=str(tmp_path/'flag')))
    code = f"""import sys; from slowai.launch import launch
launch([sys.executable, {str(HERE/'distributed_child.py')!r}, 'waiting', {args!r}], 2)"""
    p = subprocess.Popen([sys.executable, '-c', code], env={**os.environ, **SETTINGS}, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (tmp_path/'flag.up').exists(): time.sleep(.05)
    p.kill(); p.wait(); (tmp_path/'flag').touch()
    assert_same(team('full', tmp_path/'b', str(tmp_path/'c')))
