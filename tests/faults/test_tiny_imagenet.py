"Tiny ImageNet: whatever is wrong with its files, its decoded copy or the disk gives one clear error or is put right; good data stay good"
import errno
import json
import os
import shutil
import signal
import subprocess
import textwrap
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import finish, start, wait_for

from slowai.checks import DataError
from slowai.data import draw_shapes
from slowai.tiny_imagenet import _jpeg, _write_table, load_tiny_imagenet, write_shapes_parquet

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
TRAIN, VALID = 'train-00000-of-00001.parquet', 'valid-00000-of-00001.parquet'
SETS = draw_shapes(150, 40, size=64, channels=3)
BLOBS, LABELS, NAMES = [_jpeg(o) for o in SETS['train'].images], SETS['train'].labels.tolist(), SETS['train'].classes


@pytest.fixture
def source(tmp_path): return write_shapes_parquet(tmp_path/'data', 150, 40)


@pytest.fixture
def cache(tmp_path): return tmp_path/'cache'


def decoded(cache): return [o for o in cache.glob('*') if o.suffix != '.lock']


def spoil(file, at, byte=None):
    "Another byte at one place"
    data = bytearray(file.read_bytes())
    data[at] = data[at] ^ 255 if byte is None else byte
    os.chmod(file, 0o644)
    file.write_bytes(data)


def test_a_sound_folder_loads_and_is_decoded_once(source, cache, monkeypatch):
    first = load_tiny_imagenet(source, cache_dir=cache)
    assert [o.images.shape for o in first.values()] == [(150, 3, 64, 64), (40, 3, 64, 64)] and first['train'].classes == NAMES
    monkeypatch.setattr('slowai.tiny_imagenet._decode', None)
    again = load_tiny_imagenet(source, cache_dir=cache, verify=True)
    assert all(torch.equal(first[k].images, again[k].images) and torch.equal(first[k].labels, again[k].labels) for k in first)
    assert len(decoded(cache)) == 1


def test_a_map_cannot_harm_the_file(source, cache):
    load_tiny_imagenet(source, cache_dir=cache)['train'].images.zero_()
    assert load_tiny_imagenet(source, cache_dir=cache, verify=True)['train'].images.float().mean() > 10


def table(source, split=TRAIN, blobs=BLOBS, labels=LABELS, names=NAMES):
    if split == VALID: blobs, labels = blobs[:40], labels[:40]
    _write_table(source/split, blobs, labels, names)


def replaced(i, value): return lambda o: [*o[:i], value, *o[i + 1:]]


small_picture = _jpeg(torch.zeros(3, 32, 48, dtype=torch.uint8))
no_goldfish = [(y + 1) % 10 if y == 3 else y for y in LABELS]
FAULTS = dict(
    truncated_table=(lambda d: os.truncate(d/TRAIN, 20_000), f'{TRAIN}: unreadable as parquet'),
    truncated_other_split=(lambda d: os.truncate(d/VALID, 5_000), f'{VALID}: unreadable as parquet'),
    empty_table_file=(lambda d: os.truncate(d/TRAIN, 0), f'{TRAIN}: unreadable as parquet'),
    broken_page=(lambda d: (d/TRAIN).write_bytes(b'\xff'*4000 + (d/TRAIN).read_bytes()[4000:]), 'unreadable as parquet'),
    a_web_page=(lambda d: (d/VALID).write_text('<!doctype html>404'), f'{VALID}: unreadable as parquet'),
    missing_train=(lambda d: (d/TRAIN).unlink(), 'the files train*.parquet are missing'),
    missing_valid=(lambda d: (d/VALID).unlink(), 'the files valid*.parquet are missing'),
    cut_jpeg=(lambda d: table(d, blobs=replaced(77, BLOBS[77][:200])(BLOBS)), f"{TRAIN}: row 77: the picture can't be decoded"),
    no_jpeg=(lambda d: table(d, blobs=replaced(3, b'not a picture')(BLOBS)), f"{TRAIN}: row 3: the picture can't be decoded"),
    no_bytes=(lambda d: table(d, blobs=replaced(149, None)(BLOBS)), f'{TRAIN}: row 149: there is no picture'),
    other_size=(lambda d: table(d, blobs=replaced(8, small_picture)(BLOBS)), f'{TRAIN}: row 8: expected a picture of 64×64, got 48×32'),
    label_too_high=(lambda d: table(d, labels=replaced(5, 10)(LABELS)), f'{TRAIN}: row 5: expected a label from 0 to 9, got 10'),
    label_negative=(lambda d: table(d, labels=replaced(6, -1)(LABELS)), f'{TRAIN}: row 6: expected a label from 0 to 9, got -1'),
    label_missing=(lambda d: table(d, labels=replaced(7, None)(LABELS)), f'{TRAIN}: row 7: expected a label from 0 to 9, got None'),
    label_of_valid=(lambda d: table(d, VALID, labels=replaced(1, 99)(LABELS)), f'{VALID}: row 1: expected a label from 0 to 9, got 99'),
    missing_class=(lambda d: table(d, labels=no_goldfish), 'train: no picture of 1 of 10 classes, the first is frame'),
    empty_split=(lambda d: table(d, blobs=[], labels=[]), 'train: no picture of 10 of 10 classes'),
    names_differ=(lambda d: table(d, VALID, names=NAMES[::-1]), 'names of the classes are others'),
)


@pytest.mark.parametrize('damage, words', FAULTS.values(), ids=FAULTS)
def test_fault_of_a_table(damage, words, source, cache):
    damage(source)
    with pytest.raises(DataError) as e: load_tiny_imagenet(source, cache_dir=cache)
    assert words in str(e.value)
    assert not decoded(cache)   # nothing half-made stays behind


@pytest.mark.parametrize('damage, words', FAULTS.values(), ids=FAULTS)
def test_fault_that_comes_later_leaves_the_good_copy(damage, words, source, cache):
    good = load_tiny_imagenet(source, cache_dir=cache)['train'].images.clone()
    file, = decoded(cache)
    before = file.read_bytes()
    os.utime(source/TRAIN, ns=(1, 1)); damage(source)
    with pytest.raises(DataError), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        load_tiny_imagenet(source, cache_dir=cache)
    assert file.read_bytes() == before and decoded(cache) == [file]
    assert good.shape == (150, 3, 64, 64)


COPY_FAULTS = dict(
    half_written=(lambda f: os.truncate(f, f.stat().st_size//2), 'not written to its end', False),
    one_byte_short=(lambda f: os.truncate(f, f.stat().st_size - 1), 'not written to its end', False),
    empty=(lambda f: os.truncate(f, 0), 'not written to its end', False),
    longer=(lambda f: f.write_bytes(f.read_bytes() + b'!'), 'not written to its end', False),
    another_beginning=(lambda f: f.write_bytes(f.read_bytes()[4096:]), '', False),
    manifest=(lambda f: spoil(f, f.stat().st_size - 50), 'manifest is damaged', False),
    a_label=(lambda f: spoil(f, 150*3*64*64), 'labels are damaged', False),
    a_pixel=(lambda f: spoil(f, 100*3*64*64), 'pictures 64 and following are damaged', True),
    last_pixel=(lambda f: spoil(f, 150*3*64*64 - 1), 'pictures 128 and following are damaged', True),
)


@pytest.mark.parametrize('damage, words, verify', COPY_FAULTS.values(), ids=COPY_FAULTS)
def test_damaged_copy_is_made_again_with_a_warning(damage, words, verify, source, cache):
    good = load_tiny_imagenet(source, cache_dir=cache)
    keep = {k: (v.images.clone(), v.labels.clone()) for k, v in good.items()}
    file, = decoded(cache)
    del good
    os.replace(shutil.copy(file, cache/'x'), file); damage(file)
    with pytest.warns(UserWarning, match=words or 'decoded again'): again = load_tiny_imagenet(source, cache_dir=cache, verify=verify)
    for k, (x, y) in keep.items(): assert torch.equal(again[k].images, x) and torch.equal(again[k].labels, y)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_tiny_imagenet(source, cache_dir=cache, verify=True)


def test_another_source_is_noticed(source, cache):
    load_tiny_imagenet(source, cache_dir=cache)
    table(source, labels=[(y + 1) % 10 for y in LABELS])
    with pytest.warns(UserWarning, match='source has changed since; the pictures are decoded again'):
        again = load_tiny_imagenet(source, cache_dir=cache)
    assert sorted(again['train'].labels.tolist()) == sorted((y + 1) % 10 for y in LABELS)


def test_an_open_map_survives_a_rebuild(source, cache):
    old = load_tiny_imagenet(source, cache_dir=cache)['train']
    before = old.images.clone()
    table(source, blobs=BLOBS[::-1], labels=LABELS[::-1]); os.utime(source/TRAIN, ns=(5, 5))
    with pytest.warns(UserWarning): load_tiny_imagenet(source, cache_dir=cache)
    assert torch.equal(old.images, before)


def test_no_space_is_said_before_the_first_byte(source, cache, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda o: type('Usage', (), dict(free=2_000_000)))
    monkeypatch.setattr('slowai.tiny_imagenet._write_pictures', None)
    with pytest.raises(DataError) as e: load_tiny_imagenet(source, cache_dir=cache)
    assert 'no room for the decoded pictures (2 MB are free, 3 are needed); free some, or set $SLOWAI_CACHE to a folder' in str(e.value)
    assert not decoded(cache)


def test_the_disk_fills_up_while_writing(source, cache, monkeypatch):
    good = load_tiny_imagenet(source, cache_dir=cache)
    file, = decoded(cache)
    before = file.read_bytes()
    from slowai import tiny_imagenet as data
    write = data._write_split
    def fills_up(f, o, pool):
        write(f, o, pool)
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(data, '_write_split', fills_up)
    os.utime(source/TRAIN, ns=(9, 9))
    with pytest.raises(DataError, match='no room for the decoded pictures'), pytest.warns(UserWarning):
        load_tiny_imagenet(source, cache_dir=cache)
    assert file.read_bytes() == before and decoded(cache) == [file] and len(good['train']) == 150


def python(tmp_path, code, *args):
    "A process of its own, and what it said when it has ended"
    file = tmp_path/f"code{len(list(tmp_path.glob('code*.py')))}.py"
    file.write_text(textwrap.dedent(code))
    return partial(finish, start('program', file.with_suffix('.log'), file, *map(str, args), cwd=str(ROOT)), file.with_suffix('.log'))


def test_a_real_limit_on_the_size_of_files(source, cache, tmp_path):
    end = python(tmp_path, '''
        import resource, signal, sys
        from slowai.tiny_imagenet import load_tiny_imagenet
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try: load_tiny_imagenet(sys.argv[1], cache_dir=sys.argv[2])
        except ValueError as e: print(type(e).__name__, e)''', source, cache)
    out = end().said
    assert 'DataError' in out and 'no room for the decoded pictures' in out, out
    assert not decoded(cache)
    assert len(load_tiny_imagenet(source, cache_dir=cache)['train']) == 150


@pytest.mark.skipif(os.geteuid() != 0, reason='mounting a small disk needs root')
def test_a_really_full_disk(source, tmp_path):
    disk = tmp_path/'disk'
    disk.mkdir()
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1500k', 'tmpfs', disk], capture_output=True)
    if mount.returncode: pytest.skip('this machine does not let us mount')
    try:
        with pytest.raises(DataError, match='has no room for the decoded pictures'): load_tiny_imagenet(source, cache_dir=disk)
        with pytest.MonkeyPatch.context() as m, pytest.raises(DataError, match='has no room for the decoded pictures .No space left'):
            m.setattr('shutil.disk_usage', lambda o: type('Usage', (), dict(free=10**9)))   # it said there was room, and then there wasn't
            load_tiny_imagenet(source, cache_dir=disk)
        assert not decoded(disk)
    finally: subprocess.run(['umount', disk], check=True)


def test_killed_while_writing(source, cache, tmp_path):
    end = python(tmp_path, '''
        import os, signal, sys
        from slowai import tiny_imagenet as data
        write = data._write_split
        def dies(f, o, pool): write(f, o, pool); f.flush(); os.kill(os.getpid(), signal.SIGKILL)
        data._write_split = dies
        data.load_tiny_imagenet(sys.argv[1], cache_dir=sys.argv[2])''', source, cache)
    assert end().code == -signal.SIGKILL
    left, = decoded(cache)
    assert left.suffix == '.tmp' and left.stat().st_size > 10**6
    assert len(load_tiny_imagenet(source, cache_dir=cache, verify=True)['train']) == 150
    assert [o.suffix for o in decoded(cache)] == ['.bin']


def test_four_processes_start_at_once(source, cache, tmp_path):
    code = '''
        import sys, time, hashlib
        from pathlib import Path
        from slowai import tiny_imagenet as data
        write = data._write_pictures
        def slowly(*args): print('decoding', flush=True); time.sleep(.5); write(*args)
        data._write_pictures = slowly
        Path(sys.argv[3], str(time.time_ns())).touch()
        while len(list(Path(sys.argv[3]).iterdir())) < 4: time.sleep(.01)
        sets = data.load_tiny_imagenet(sys.argv[1], cache_dir=sys.argv[2], verify=True)
        print(hashlib.sha256(sets['train'].images.numpy()).hexdigest())'''
    (tmp_path/'ready').mkdir()
    ends = [python(tmp_path, code, source, cache, tmp_path/'ready') for _ in range(4)]
    outs = [end() for end in ends]
    assert all(o.code == 0 for o in outs), outs
    lines = [o.said.split() for o in outs]
    assert sum(o[0] == 'decoding' for o in lines) == 1 and len({o[-1] for o in lines}) == 1
    assert [o.suffix for o in decoded(cache)] == ['.bin']


@pytest.mark.parametrize('place', ['file', 'readonly'])
def test_a_cache_folder_that_cannot_be_written(place, source, tmp_path):
    where = tmp_path/'no'
    if place == 'file': where.write_text('a file')
    else:
        if os.geteuid() == 0: pytest.skip('root may write everywhere')
        where.mkdir(0o555)
    with pytest.raises(DataError, match=r"cache_dir: can't write in .*; set \$SLOWAI_CACHE"): load_tiny_imagenet(source, cache_dir=where)


@pytest.fixture
def archive(tmp_path):
    "What the original archive unpacks to, with two classes whose numbers sort the other way round on the hub"
    d, lines = tmp_path/'archive', []
    (d/'val'/'images').mkdir(parents=True)
    for k, w in enumerate(('n02666196', 'n02190166')):   # abacus, fly
        (d/'train'/w/'images').mkdir(parents=True)
        for i in range(4): (d/'train'/w/'images'/f'{w}_{i}.JPEG').write_bytes(BLOBS[10*k + i])
        (d/'val'/'images'/f'val_{k}.JPEG').write_bytes(BLOBS[50 + k])
        lines.append(f'val_{k}.JPEG\t{w}\t0\t0\t62\t62\n')
    (d/'val'/'val_annotations.txt').write_text(''.join(lines))
    return d


def test_archive_in_the_order_of_the_hub(archive, cache):
    sets = load_tiny_imagenet(archive, cache_dir=cache)
    assert sets['train'].classes == ('abacus', 'fly') and sets['train'].labels.bincount().tolist() == [4, 4]


def annotations(d, text): (d/'val'/'val_annotations.txt').write_text(text)


ARCHIVE_FAULTS = dict(
    no_annotations=(lambda d: (d/'val'/'val_annotations.txt').unlink(), 'val_annotations.txt: the file is missing'),
    unknown_class=(lambda d: annotations(d, 'val_0.JPEG\tn00000000\t0'), 'val_0.JPEG n00000000 names no class'),
    cut_line=(lambda d: annotations(d, 'val_0.JPEG'), 'names no class that train/ has'),
    no_val_pictures=(lambda d: annotations(d, ''), 'valid: no picture of 2 of 2 classes'),
    picture_missing=(lambda d: (d/'val'/'images'/'val_1.JPEG').unlink(), "val_1.JPEG: the picture can't be read"),
    picture_cut=(lambda d: os.truncate(d/'train/n02190166/images/n02190166_2.JPEG', 100), "n02190166_2.JPEG: the picture can't be decoded"),
    class_empty=(lambda d: [o.unlink() for o in (d/'train/n02190166/images').iterdir()], 'train: no picture of 1 of 2 classes'),
)


@pytest.mark.parametrize('damage, words', ARCHIVE_FAULTS.values(), ids=ARCHIVE_FAULTS)
def test_fault_of_the_archive(damage, words, archive, cache):
    damage(archive)
    with pytest.raises(DataError) as e: load_tiny_imagenet(archive, cache_dir=cache)
    assert words in str(e.value)


# Runs a tool that stands still after its first epoch until a file is there, so that a signal can't come too late
STANDS = """
import runpy, sys, time
from pathlib import Path
class Stands:
    def __init__(self, out, go): self.out, self.go, self.seen = out, go, False
    def __getattr__(self, name): return getattr(self.out, name)
    def write(self, text):
        self.seen |= text.startswith('epoch 0')
        return self.out.write(text)
    def flush(self):
        self.out.flush()
        while self.seen and not self.go.exists(): time.sleep(.01)
sys.stdout = Stands(sys.stdout, Path(sys.argv[1]))
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_a_run_that_is_stopped_goes_on_to_the_same_numbers(source, tmp_path):
    (tmp_path/'stands.py').write_text(STANDS)
    def begin(log, runs, *more, arm='pre', by=()):
        size = '--width .0625 --epochs 2 --bs 32 --lr .01'.split()
        cmd = [*by, ROOT/'tools/run_tiny_imagenet.py', arm, *size, *more, '--data', source, '--runs', tmp_path/runs,
            '--results', tmp_path/f'{runs}.json']
        p = start('program', tmp_path/log, *map(str, cmd), cwd=str(tmp_path), SLOWAI_CACHE=str(tmp_path/'cache'))
        return p, partial(finish, p, tmp_path/log)
    (_, whole), (broken, stopped) = begin('whole.log', 'whole'), begin('broken.log', 'broken', by=[tmp_path/'stands.py', tmp_path/'go'])
    log = tmp_path/'broken.log'
    wait_for(lambda: log.exists() and '\nepoch 0' in log.read_text(), broken.is_alive)
    broken.terminate(); (tmp_path/'go').touch()
    end = stopped()
    assert end.code == 128 + signal.SIGTERM and not (tmp_path/'broken.json').exists(), end.said
    assert whole().code == 0
    _, rest = begin('rest.log', 'broken')
    end = rest()
    assert end.code == 0 and 'going on from epoch' in end.said, end.said
    a, b = (json.loads((tmp_path/f'{k}.json').read_text())[0] for k in ('whole', 'broken'))
    assert a['history'] == b['history'] and a['streams'] == b['streams'] and [o['epoch'] for o in a['streams']] == [0, 1]
    assert 'done already' in begin('again.log', 'whole')[1]().said

    newest = max((tmp_path/'whole').rglob('checkpoint-*.pt'))
    end = begin('looked.log', 'whole', '--norms', newest)[1]()
    assert end.code == 0 and 'after 2.0 epochs: running' in end.said, end.said
    look, = json.loads((tmp_path/'tiny_imagenet_norms.json').read_text())
    assert (look['running']['acc'], look['running']['loss']) == pytest.approx((a['acc_last'], a['loss_last']), rel=1e-6)
    assert look['epochs'] == 2 and look['refreshed']['loss'] != look['running']['loss']
    end = begin('other.log', 'whole', '--norms', newest, arm='post')[1]()
    assert end.code == 1 and '--norms: expected a checkpoint of post-activation, width 0.0625, got one of another' in end.said, end.said

    assert begin('start.log', 'whole', '--init', 'kaiming')[1]().code == 0
    other, = json.loads((tmp_path/'tiny_imagenet_start.json').read_text())
    assert (other['name'], other['recipe']['start']) == ('pre-activation, width 0.0625, kaiming init', 'init_by_fan_in')
    assert other['history'] != a['history']
