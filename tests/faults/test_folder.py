"A folder of pictures: whatever lies in it is read, or refused in words before the first step; and the command line on top of it"
import errno
import json
import os
import shutil
import warnings

import pytest
import torch
from PIL import Image

import slowai.folders as own
from slowai.batches import DataLoaders, Normalize, shapes_dls
from slowai.checks import DataError
from slowai.cli import get_dls, train_command
from slowai.conv import check_device
from slowai.data import draw_shapes
from slowai.folders import Augment, bad_pictures, find_pictures, hold_out, image_folder_dls, load_image_folder
from slowai.inference import Classifier, load_model, predict, predict_loader, save_model
from slowai.networks import build_model
from slowai.own import compare_blocks, plot_confusion_matrix
from slowai.resnet import Conv, ResidualConvBlock, summarize
from slowai.schedules import lr_find, train_1cycle
from slowai.tiny_imagenet import write_shapes_parquet

torch.set_num_threads(1)
SHAPES = draw_shapes(90, 30, size=40, channels=3, n_classes=3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SLOWAI_CACHE', str(tmp_path/'cache'))
    return tmp_path/'cache'


def write(folder, ds=SHAPES['train'], ending='.png'):
    "A picture file for each image, in a folder for each class"
    for i, (x, y) in enumerate(zip(ds.images, ds.labels)):
        file = folder/ds.classes[y]/f'{i:03}{ending}'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.permute(1, 2, 0).numpy()).save(file)
    return folder


@pytest.fixture
def flat(tmp_path): return write(tmp_path/'photos')


@pytest.fixture
def split(tmp_path):
    write(tmp_path/'split/train'); write(tmp_path/'split/val', SHAPES['test'])
    return tmp_path/'split'


def quiet(path, **kwargs):
    "Load, and fail on any warning"
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        return load_image_folder(path, **{'size': 16, **kwargs})


def counts(sets): return {k: len(v) for k, v in sets.items()}


# ---- layouts

def test_flat(flat):
    sets = quiet(flat)
    assert counts(sets) == dict(train=72, valid=18) and sets['train'].classes == ('disc', 'ring', 'square')
    assert sets['valid'].labels.bincount().tolist() == [6, 6, 6]
    assert all(ds.classes[y] == f.parent.name for ds in sets.values() for y, f in zip(ds.labels, ds.files))
    assert sets['train'].name == 'photos' and str(flat.parent) not in repr(sets['train'])


@pytest.mark.parametrize('train, valid, test', [('train', 'valid', 'test'), ('training', 'validation', 'testing'),
    ('Train', 'Val', 'TEST')])
def test_splits_by_any_usual_name(train, valid, test, tmp_path):
    for name, part in ((train, 'train'), (valid, 'test')): write(tmp_path/'d'/name, SHAPES[part])
    write(tmp_path/'d'/test, draw_shapes(6, 9, size=40, channels=3, n_classes=3, seed=9)['test'])
    assert counts(quiet(tmp_path/'d')) == dict(train=90, valid=30, test=9)


def test_train_and_test_only_leave_the_test_pictures_unseen(tmp_path):
    write(tmp_path/'d/train'); write(tmp_path/'d/test', SHAPES['test'])
    sets = quiet(tmp_path/'d')
    assert counts(sets) == dict(train=72, valid=18, test=30) and list(sets) == ['train', 'valid', 'test']
    assert image_folder_dls(tmp_path/'d', 16, 8).eval_split == 'valid'


def test_a_class_may_be_called_train(flat):
    (flat/'disc').rename(flat/'train'); (flat/'ring').rename(flat/'test')
    assert quiet(flat)['train'].classes == ('square', 'test', 'train')


def test_folders_within_classes(flat):
    (flat/'disc/holidays').mkdir()
    for o in list((flat/'disc').glob('*.png'))[:5]: o.rename(flat/'disc/holidays'/o.name)
    assert counts(quiet(flat)) == dict(train=72, valid=18)


def test_hidden_files_are_not_pictures(flat):
    (flat/'disc/._000.png').write_bytes(b'x'); (flat/'.git').mkdir(); (flat/'__MACOSX').mkdir(); (flat/'disc/.DS_Store').write_bytes(b'x')
    assert counts(quiet(flat)) == dict(train=72, valid=18)


def test_endings_in_capitals_and_other_languages(flat):
    (flat/'disc').rename(flat/'Größe 1'); o = min((flat/'ring').iterdir()); o.rename(o.with_name('Ünï cödé.PNG'))
    assert quiet(flat)['train'].classes == ('Größe 1', 'ring', 'square')


def test_a_folder_that_is_a_link(flat, tmp_path):
    (tmp_path/'link').symlink_to(flat)
    assert counts(quiet(tmp_path/'link')) == dict(train=72, valid=18)


# ---- refused

def unlabelled(d):
    shutil.rmtree(d/'val'); shutil.rmtree(d/'train')
    (d/'train').mkdir(); Image.new('RGB', (8, 8)).save(d/'train/0.png')


FLAT = {
    'no folder': (lambda d: shutil.rmtree(d), 'path: there is no folder'),
    'empty': (lambda d: [shutil.rmtree(o) for o in d.iterdir()], 'but it is empty'),
    'no sub-folders': (lambda d: [[f.rename(d/f'{o.name}{f.name}') for f in o.iterdir()] and o.rmdir() for o in list(d.iterdir())],
        '90 pictures lie in it directly'),
    'one class': (lambda d: [shutil.rmtree(d/o) for o in ('disc', 'ring')], "expected at least two classes"),
    'a class without pictures': (lambda d: (d/'zebra').mkdir(), 'zebra: the class has no pictures; put some there, or remove the folder'),
    'a class of other files': (lambda d: ((d/'zebra').mkdir(), (d/'zebra/a.txt').write_text('x')), 'the class has no pictures, but 1 .txt'),
    'a telephone': (lambda d: ((d/'zebra').mkdir(), (d/'zebra/a.HEIC').write_text('x')), 'pip install pillow-heif'),
    'a class of one picture': (lambda d: ((d/'zebra').mkdir(), shutil.copy(min((d/'disc').iterdir()), d/'zebra')),
        'zebra: the class has one picture; at least two are needed'),
    'no picture': (lambda d: (d/'disc/a.png').write_bytes(b'hello'), "1 of 91 pictures can't be read"),
    'an empty file': (lambda d: (d/'disc/a.png').write_bytes(b''), "a.png: can't be decoded as a picture"),
    'a web page': (lambda d: (d/'disc/a.jpg').write_text('<!doctype html>404'), "a.jpg: can't be decoded as a picture"),
    'cut off': (lambda d: os.truncate(min((d/'disc').iterdir()), 300), "can't be decoded as a picture"),
    'floats': (lambda d: Image.new('F', (9, 9)).save(d/'disc/a.tif'), "a.tif: expected 8 bits a channel or gray of 16, got mode 'F'"),
}


@pytest.mark.parametrize('spoil, words', FLAT.values(), ids=FLAT)
def test_refused(spoil, words, flat, cache):
    spoil(flat)
    with pytest.raises(DataError) as e: quiet(flat)
    assert words in str(e.value), str(e.value)
    assert not list(cache.glob('*.npy')) and not list(cache.glob('.*.tmp'))


SPLIT = {
    'a class only in valid': (lambda d: (d/'val/disc').rename(d/'val/unicorn'), "valid: no training pictures of 'unicorn'"),
    'no train': (lambda d: shutil.rmtree(d/'train'), 'holds val, so we expected train/'),
    'unlabelled train': (unlabelled, 'so we expected train/ with a sub-folder for each class; there is none'),
    'valid without classes': (lambda d: [shutil.rmtree(o) for o in (d/'val').iterdir()],
        'expected a sub-folder of pictures for each class'),
    'one class': (lambda d: [shutil.rmtree(d/s/o) for s in ('train', 'val') for o in ('disc', 'ring')], "got only 'square'"),
}


@pytest.mark.parametrize('spoil, words', SPLIT.values(), ids=SPLIT)
def test_refused_with_splits(spoil, words, split):
    spoil(split)
    with pytest.raises(DataError) as e: quiet(split)
    assert words in str(e.value), str(e.value)


def test_files_instead_of_a_folder(flat, tmp_path):
    for kind, words in (('zip', 'is a zip archive; unpack it first: python -m zipfile -e a.zip a'),
        ('gztar', 'is a tar archive; unpack it first: tar -xf')):
        file = shutil.make_archive(str(tmp_path/'a'), kind, flat)
        with pytest.raises(DataError) as e: quiet(file)
        assert words in str(e.value)
    with pytest.raises(DataError, match='but .*png is a file'): quiet(min((flat/'disc').iterdir()))


def test_one_folder_too_high(flat, tmp_path):
    flat.rename((tmp_path/'up/photos').parent.mkdir() or tmp_path/'up/photos')
    with pytest.raises(DataError, match=r"got only 'photos'; did you mean .*up/photos\?"): quiet(tmp_path/'up')


def test_all_bad_pictures_are_listed(flat):
    for o in ('disc', 'ring'): (flat/o/'bad.png').write_bytes(b'x')
    assert {k.parent.name for k in bad_pictures(flat)} == {'disc', 'ring'}
    for o in bad_pictures(flat): o.unlink()
    assert counts(quiet(flat)) == dict(train=72, valid=18) and bad_pictures(flat) == {}


@pytest.mark.parametrize('kw, words', [(dict(bs=100), 'bs: expected at most 72'), (dict(bs=0), 'bs: expected a whole number'),
    (dict(augment='cutmix'), 'augment: expected one of none, flip, erase, trivial'), (dict(size='64'), 'size: expected'),
    (dict(valid=0), 'valid: expected a share over 0'), (dict(fit='pad'), 'fit: expected one of crop, squash'),
    (dict(channels=2), 'channels: expected 1')])
def test_arguments(kw, words, flat):
    with pytest.raises(ValueError) as e: image_folder_dls(flat, **{'size': 16, 'bs': 8, **kw})
    assert words in str(e.value)


# ---- said, and gone on

WARNED = {
    'pictures beside the classes': (lambda d: Image.new('RGB', (8, 8)).save(d/'a.png'), 'left out 1 pictures beside the folders'),
    'other files': (lambda d: ((d/'disc/a.txt').write_text(''), (d/'ring/b.heic').write_text('')), 'left out 1 .txt, 1 .heic'),
    'under two classes': (lambda d: shutil.copy(min((d/'disc').iterdir()), d/'ring/z.png'), 'under two classes, such as'),
}


@pytest.mark.parametrize('spoil, words', WARNED.values(), ids=WARNED)
def test_warned(spoil, words, flat):
    spoil(flat)
    with pytest.warns(UserWarning) as said: load_image_folder(flat, 16)
    assert any(words in str(o.message) for o in said), [str(o.message) for o in said]


WARNED_SPLIT = {
    'in both splits': (lambda d: shutil.copy(min((d/'train/disc').iterdir()), d/'val/disc/z.png'),
        '1 pictures stand in two splits, such as'),
    'a class only in train': (lambda d: shutil.rmtree(d/'val/disc'), "valid: no pictures of 'disc'; it says nothing about them"),
    'unlabelled test': (lambda d: ((d/'test').mkdir(), Image.new('RGB', (8, 8)).save(d/'test/1.png')),
        'test/ (no sub-folders, so no classes)'),
    'another folder': (lambda d: (d/'unsorted').mkdir(), 'left out unsorted/'),
}


@pytest.mark.parametrize('spoil, words', WARNED_SPLIT.values(), ids=WARNED_SPLIT)
def test_warned_with_splits(spoil, words, split):
    spoil(split)
    with pytest.warns(UserWarning) as said: assert set(load_image_folder(split, 16)) == {'train', 'valid'}
    assert any(words in str(o.message) for o in said), [str(o.message) for o in said]


# ---- pictures

MODES = [('L', 'png'), ('LA', 'png'), ('P', 'gif'), ('P', 'png'), ('1', 'png'), ('RGBA', 'png'), ('RGBA', 'webp'), ('CMYK', 'jpg'),
    ('YCbCr', 'jpg'), ('RGB', 'bmp'), ('RGB', 'tif'), ('RGB', 'ppm'), ('CMYK', 'tif'), ('RGB', 'jp2'), ('RGB', 'avif'), ('PA', 'tga')]


@pytest.mark.parametrize('channels', [1, 3])
def test_any_kind_of_picture(channels, flat):
    for i, (mode, ending) in enumerate(MODES):
        try: Image.linear_gradient('L').resize((30 + i, 50)).convert('RGB').convert(mode).save(flat/f'disc/mode{i}.{ending}')
        except (OSError, ValueError, KeyError): continue   # a format that this PIL was built without
    sets = quiet(flat, channels=channels)
    assert sets['train'].images.shape[1:] == (channels, 16, 16)
    assert sum(counts(sets).values()) >= 90 + 12


@pytest.mark.parametrize('fit', ['crop', 'squash'])
def test_the_loader_and_predict_see_the_same(fit, flat, tmp_path):
    Image.linear_gradient('L').resize((600, 300)).save(flat/'disc/wide.jpg', quality=95)
    Image.radial_gradient('L').resize((50, 700)).convert('RGBA').save(flat/'ring/tall.png')
    dls = image_folder_dls(flat, (16, 20), 8, fit=fit)
    args = dict(nfs=[4]*4)
    clf = Classifier(build_model('cnn', 3, 3, **args).eval(), 'cnn', dls.classes, dls.batch_tfm['valid'], (16, 20), args, fit=fit)
    for k in ('train', 'valid'):
        ds = dls.splits[k]
        p = predict(save_model(clf, tmp_path/'m'), list(ds.files))
        assert torch.equal(p.images, ds.images)
    probs, labels = predict_loader(clf, dls['valid'])
    assert torch.allclose(p.probs, probs, atol=1e-6) and torch.equal(labels, dls.splits['valid'].labels)


def test_a_camera_that_was_held_sideways(flat):
    im = Image.linear_gradient('L').convert('RGB')
    exif = Image.Exif()
    for i, (tag, turn) in enumerate(((6, Image.Transpose.ROTATE_90), (3, Image.Transpose.ROTATE_180), (8, Image.Transpose.ROTATE_270))):
        exif[0x0112] = tag
        im.transpose(turn).save(flat/f'disc/z{i}.png', exif=exif)
    ds = [o for v in quiet_twins(flat).values() for o, f in zip(v.images, v.files) if f.name.startswith('z')]
    assert len(ds) == 3 and all(torch.equal(o, ds[0]) for o in ds)


def quiet_twins(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return load_image_folder(path, 16)


# ---- decoded once

def test_decoded_once_and_anew_when_something_changes(flat, cache, monkeypatch):
    first = quiet(flat)
    with monkeypatch.context() as m:
        m.setattr(own, '_write_decoded', None)
        again = quiet(flat)
    assert all(torch.equal(first[k].images, again[k].images) for k in first) and len(list(cache.glob('*.npy'))) == 1
    Image.new('RGB', (9, 9), 'red').save(flat/'disc/new.png')
    assert sum(counts(quiet(flat)).values()) == 91 and len(list(cache.glob('*.npy'))) == 1
    quiet(flat, size=8)
    assert len(list(cache.glob('*.npy'))) == 2


def test_a_map_cannot_harm_the_file(flat):
    before = quiet(flat)['train'].images.clone()
    quiet(flat)['train'].images.zero_()
    assert torch.equal(quiet(flat)['train'].images, before)


@pytest.mark.parametrize('size', [0, 50, 10_000])
def test_a_damaged_copy_is_made_again(size, flat, cache):
    before = quiet(flat)['train'].images.clone()
    file, = cache.glob('*.npy')
    os.truncate(file, size)
    assert torch.equal(quiet(flat)['train'].images, before)


def test_no_room(flat, cache, monkeypatch):
    def full(*a): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', full)
        with pytest.raises(DataError, match='has no room for the decoded pictures'): quiet(flat)
    monkeypatch.setattr('shutil.disk_usage', lambda o: type('Usage', (), dict(free=1000)))
    with pytest.raises(DataError, match='has no room for the decoded pictures .0 MB are free, 1 are needed'): quiet(flat)
    assert not list(cache.glob('*.npy')) and not list(cache.glob('.*.tmp'))


def test_a_cache_that_cannot_be_written(flat, tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(DataError, match=r"cache_dir: can't write in .*file.* set \$SLOWAI_CACHE"): quiet(flat, cache_dir=tmp_path/'file')


# ---- what is held out

def test_what_is_held_out_depends_on_names_only(flat, tmp_path):
    names = lambda sets: {f'{o.parent.name}/{o.name}' for o in sets['valid'].files}
    one = names(quiet(flat))
    shutil.copytree(flat, tmp_path/'elsewhere')
    assert names(quiet(tmp_path/'elsewhere')) == one != names(quiet(flat, seed=1))


def test_a_rare_class_is_in_both_parts():
    from pathlib import Path
    classes = {c: [Path(f'{c}/{i}.png') for i in range(n)] for c, n in (('often', 1000), ('seldom', 2), ('rare', 3))}
    stay, out = hold_out(classes, .1)
    assert [len(o) for o in stay.values()] == [900, 1, 2] and [len(o) for o in out.values()] == [100, 1, 1]
    assert [len(o) for o in hold_out(classes, .99)[0].values()] == [10, 1, 1]


def test_no_last_batch_of_one(flat):
    assert image_folder_dls(flat, 16, 71).drop_last and not image_folder_dls(flat, 16, 70).drop_last


# ---- augmentation

@pytest.mark.parametrize('kind', own.augmentations)
@pytest.mark.parametrize('c', [1, 3])
def test_augmentations(kind, c):
    x = SHAPES['train'].images[:, :c].contiguous()
    before, norm = x.clone(), Normalize.from_images(x)
    y = Augment(kind, norm)(x)
    assert y.shape == x.shape and y.dtype == torch.float32 and torch.equal(x, before)
    assert torch.equal(y, norm(x)) == (kind == 'none')


def test_what_lies_outside_has_the_mean_colour():
    norm = Normalize((.9, .1, .5), (.2, .2, .2))
    x = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    x[:, 0] = 255
    colours = {tuple(o) for o in (norm.inverse(Augment('erase', norm)(x))*255).round().byte().permute(0, 2, 3, 1).reshape(-1, 3).tolist()}
    assert colours == {(255, 0, 0), (230, 26, 128)}


# ---- blocks

def test_blocks_that_cannot_stand_in_a_network():
    for block, words in ((lambda c_in, c_out: Conv(c_in, c_out), 'raised TypeError'), (lambda *a, **k: 3, "raised TypeError: 'int' object"),
        (lambda c_in, c_out, stride=2, ks=3, act=True: Conv(c_in, 2*c_out, stride, ks), 'gave (2, 16, 4, 4), expected (2, 8, 4, 4)')):
        with pytest.raises(ValueError) as e: compare_blocks({'ours': ResidualConvBlock, 'new': block})
        assert words in str(e.value) and "'new'" in str(e.value)


def test_compare_on_equal_terms(capsys):
    dls = DataLoaders(SHAPES, bs=30, batch_tfm=Normalize.from_images(SHAPES['train'].images))
    records = compare_blocks({'a': Conv, 'b': Conv}, dls, 1, seeds=(3, 4))
    by = {(r['name'], r['seed']): r['history'] for r in records}
    assert by['a', 3] == by['b', 3] and by['a', 4] == by['b', 4] and by['a', 3] != by['a', 4]
    said = capsys.readouterr().out
    assert '+0.00 ± 0.00' in said and said.count('\n') == 8, said


def test_confusion_matrix_of_many_classes():
    n = 70
    ax = plot_confusion_matrix(torch.eye(n), torch.arange(n), [f'c{i}' for i in range(n)])
    assert not ax.texts


# ---- the command

def train(out, capsys, **kwargs):
    train_command(**{'model': 'cnn', 'epochs': 2, 'bs': 16, 'seed': 3, 'out': out, **kwargs})
    return capsys.readouterr().out


def weights(out): return (out/'model.safetensors').read_bytes()


def test_command_on_a_folder(split, tmp_path, capsys):
    said = train(tmp_path/'a', capsys, data=str(split), size=24)
    assert 'wrote metrics.json' in said
    r, clf = json.loads((tmp_path/'a/metrics.json').read_text()), load_model(tmp_path/'a')
    assert (r['name'], r['recipe']['augmentation'], r['recipe']['size']) == ('split cnn', 'flip', [24, 24])
    assert (clf.size, clf.classes, clf.data) == ((24, 24), ('disc', 'ring', 'square'), 'split')
    assert str(tmp_path) not in json.dumps(clf.about())
    ds = get_dls(str(split), size=24).splits['valid']
    assert torch.equal(predict(tmp_path/'a', list(ds.files)).images, ds.images)
    train(tmp_path/'b', capsys, data=str(split), size=24)
    assert weights(tmp_path/'a') == weights(tmp_path/'b')


def test_command_goes_on_only_with_the_same(split, tmp_path, capsys):
    train(tmp_path/'a', capsys, data=str(split), size=24, augment='trivial')
    assert 'nothing left to do' in train(tmp_path/'a', capsys, data=str(split), size=24, augment='trivial', resume=True)
    with pytest.raises(ValueError, match="AugmentationCB.name: trivial in the checkpoint, none here"):
        train(tmp_path/'a', capsys, data=str(split), size=24, augment='none', resume=True)
    with pytest.raises(ValueError, match="resume: .* is of another run"):
        train(tmp_path/'a', capsys, data=str(split), size=20, augment='trivial', resume=True)


def test_command_goes_on_to_the_same_bytes(split, tmp_path, capsys, monkeypatch):
    train(tmp_path/'whole', capsys, data=str(split), size=24, augment='erase')
    from slowai.checkpoint import CheckpointCB
    after = CheckpointCB.after_batch
    def killed(self, learn):
        after(self, learn)
        if learn.training and learn.epoch == 1 and learn.iter == 1: raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(CheckpointCB, 'after_batch', killed)
        with pytest.raises(KeyboardInterrupt): train(tmp_path/'cut', capsys, data=str(split), size=24, augment='erase')
    assert 'going on from' in train(tmp_path/'cut', capsys, data=str(split), size=24, augment='erase', resume=True)
    assert weights(tmp_path/'cut') == weights(tmp_path/'whole')


@pytest.mark.parametrize('augment', [None, 'none', 'flip'])
def test_command_on_tiny_imagenet(augment, tmp_path, capsys, monkeypatch):
    write_shapes_parquet(tmp_path/'tiny-imagenet', 48, 16, n_classes=4)
    monkeypatch.setenv('SLOWAI_DATA', str(tmp_path))
    train(tmp_path/'a', capsys, data='tiny_imagenet', epochs=1, augment=augment)
    clf = load_model(tmp_path/'a')
    assert (clf.size, clf.args, len(clf.classes)) == ((64, 64), dict(nfs=[8, 16, 32, 64, 128]), 4)
    assert json.loads((tmp_path/'a/metrics.json').read_text())['recipe']['augmentation'] == (augment or 'trivial')


@pytest.mark.parametrize('size', [24, 32])   # down to 1×1 before the last stride, and not
def test_command_with_a_deep_network(size, split, tmp_path, capsys):
    train(tmp_path/'a', capsys, data=str(split), size=size, model='tiny_post_quarter', epochs=1)
    r = json.loads((tmp_path/'a/metrics.json').read_text())
    assert load_model(tmp_path/'a').arch == 'tiny_post_quarter' and r['recipe']['optimizer'] == 'AdamW'
    assert len(predict(tmp_path/'a', split/'val/disc')) == 10


REFUSED = [(dict(data='nowhere'), 'data: expected one of fashion_mnist, shapes, tiny_imagenet, the path of a folder of pictures'),
    (dict(data='shapes', augment='flip'), 'augment: only for tiny_imagenet or a folder'), (dict(size=0), 'size: expected a whole number'),
    (dict(data='shapes', size=32), 'size: only for a folder'), (dict(model='tiny'), 'model: expected one of cnn'),
    (dict(bs=1000), 'bs: expected at most'),
    (dict(epochs=0), 'epochs: expected a whole number'), (dict(augment='x'), 'augment: expected one of none, flip')]


@pytest.mark.parametrize('kw, words', REFUSED)
def test_command_refuses(kw, words, split, tmp_path, capsys):
    with pytest.raises(ValueError) as e: train(tmp_path/'a', capsys, **{'data': str(split), **kw})
    assert words in str(e.value) and not (tmp_path/'a/model.safetensors').exists()


def test_all_pictures_of_one_colour(tmp_path):
    for c in ('a', 'b'):
        (tmp_path/'d'/c).mkdir(parents=True)
        for i in range(4): Image.new('RGB', (8 + i, 8), 'gray').save(tmp_path/f'd/{c}/{i}.png')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(ValueError, match='are all images of one colour'): image_folder_dls(tmp_path/'d', 8, 2)


def test_find_pictures_reads_no_picture(flat, monkeypatch):
    monkeypatch.setattr(own, 'open_picture', None)
    assert {k: len(v) for k, v in find_pictures(flat)['train'].items()} == dict(disc=30, ring=30, square=30)


# ---- where files lie, and how they are called

def test_linked_folders_are_followed_once(flat, tmp_path):
    "A class behind a link, a linked sub-folder that is there twice, and links back to where we were"
    (flat/'ring').rename(tmp_path/'ring'); (flat/'ring').symlink_to(tmp_path/'ring')
    (tmp_path/'ring/up').symlink_to(flat)
    (flat/'disc/more').mkdir(parents=True)
    for o in sorted((flat/'disc').glob('*.png'))[:5]: o.rename(flat/'disc/more'/o.name)
    (flat/'disc/again').symlink_to(flat/'disc/more'); (flat/'all').symlink_to(flat); (flat/'disc/self').symlink_to('.')
    with pytest.warns(UserWarning, match='left out .*a link to where we were') as said:
        found = find_pictures(flat)['train']
    assert {k: len(v) for k, v in found.items()} == dict(disc=30, ring=30, square=30)
    assert all(o in str(said[0].message) for o in ('/all (', 'disc/self (', 'ring/up ('))


def test_a_broken_link_is_said(flat):
    (flat/'disc/gone.png').symlink_to('nowhere.png')
    with pytest.warns(UserWarning, match='left out 1 broken links'): assert len(find_pictures(flat)['train']['disc']) == 30


@pytest.mark.parametrize('written', [('model.safetensors', 'model.json'), ('my.safetensors', 'my.json'),
    ('checkpoint-000001-epoch0-batch4.pt',), ('manifest.json', 'web/demo.js')])
def test_what_we_have_written_is_no_data(written, flat):
    shutil.copytree(flat/'disc', flat/'runs/latest')
    shutil.copytree(flat/'disc', flat/'ring/inside')
    for out in ('runs/latest', 'ring/inside'):
        for o in written: (flat/out/o).parent.mkdir(exist_ok=True); (flat/out/o).touch()
    with pytest.warns(UserWarning, match='runs/latest .what a run has written.*ring/inside|ring/inside.*runs/latest .what a run'):
        assert {k: len(v) for k, v in find_pictures(flat)['train'].items()} == dict(disc=30, ring=30, square=30)


def test_where_results_go_is_no_data_unless_it_holds_some(flat):
    (flat/'results').mkdir()
    with pytest.warns(UserWarning, match='results .what a run has written'): assert len(find_pictures(flat, flat/'results')['train']) == 3
    with pytest.raises(DataError, match='disc: results are to go there .out., but it holds pictures'): find_pictures(flat, flat/'disc')


def test_names_that_are_no_utf8(flat, tmp_path, capsys):
    def name(raw): return os.path.join(os.fsencode(flat), raw)
    try: os.rename(flat/'disc', name(b'd\xe4sc'))
    except OSError: pytest.skip('this file system takes UTF-8 only')
    file = min((o for o in os.scandir(name(b'd\xe4sc'))), key=lambda o: o.name)
    os.rename(file.path, name(b'd\xe4sc/caf\xe9.png'))
    sets = quiet(flat)
    assert sets['train'].classes == (r'd\xe4sc', 'ring', 'square') and counts(sets) == dict(train=72, valid=18)
    said = train(tmp_path/'a', capsys, data=str(flat), size=16, epochs=1)
    assert 'wrote metrics.json' in said and load_model(tmp_path/'a').classes[0] == r'd\xe4sc'
    p = predict(tmp_path/'a', os.fsdecode(name(b'd\xe4sc')))
    assert r'caf\xe9.png' in p.sources and p.text().encode()
    with open(name(b'd\xe4sc/bad\xe9.png'), 'wb') as f: f.write(b'x')
    with pytest.raises(DataError) as e: quiet(flat)
    assert r'd\xe4sc/bad\xe9.png: ' in str(e.value) and str(e.value).encode()


# ---- damaged pictures

def test_damaged_pictures_are_left_out_by_name(flat, tmp_path, capsys):
    before = quiet(flat)
    for o in (before['train'].files[0], before['valid'].files[-1]): o.write_bytes(b'x')
    with pytest.raises(DataError, match="2 of 90 pictures can't be read: .*--on-bad skip"): quiet(flat)
    for _ in range(2):   # decoded, and found
        with pytest.warns(UserWarning, match="2 of 90 pictures can't be read and are left out: .*png: can't be decoded"):
            sets = load_image_folder(flat, 16, on_bad='skip')
    assert counts(sets) == dict(train=71, valid=17)
    for k, part in (('train', slice(1, None)), ('valid', slice(-1))):
        assert torch.equal(sets[k].images, before[k].images[part]) and sets[k].files == before[k].files[part]
        assert torch.equal(sets[k].labels, before[k].labels[part])
    bad = [str(o.relative_to(flat)) for o in (before['train'].files[0], before['valid'].files[-1])]
    assert [sets[k].left_out for k in sets] == [(o,) for o in bad]
    with pytest.raises(DataError, match="can't be read"): quiet(flat)   # a copy that lacks some is no excuse
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        train(tmp_path/'a', capsys, data=str(flat), size=16, epochs=1, on_bad='skip')
    recipe = json.loads((tmp_path/'a/metrics.json').read_text())['recipe']
    assert recipe['left_out'] == [f'train: {bad[0]}', f'valid: {bad[1]}']


def test_a_class_of_damaged_pictures(flat):
    for o in (flat/'ring').iterdir(): o.write_bytes(b'x')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(DataError, match="train: no picture of 'ring' can be read"): load_image_folder(flat, 16, on_bad='skip')
        for o in flat.rglob('*.png'): o.write_bytes(b'x')
        with pytest.raises(DataError, match="90 of 90 pictures can't be read"): load_image_folder(flat, 16, on_bad='skip')


# ---- the first hour of a user

def test_the_first_command_twice_in_the_folder_itself(flat, capsys, monkeypatch):
    for o in list(flat.rglob('*.png'))[72:]: o.unlink()
    monkeypatch.chdir(flat)
    with pytest.warns(UserWarning, match='bs: 64 pictures a batch are more than the'):
        train('runs/latest', capsys, data='.', bs=None, epochs=1)
    with pytest.warns(UserWarning, match='left out runs/latest .what a run has written'):
        said = train('runs/latest', capsys, data='.', bs=None, epochs=1)
    assert 'runs/latest holds a finished run; it is kept in runs/latest/former-1' in said
    latest = flat/'runs/latest'
    assert load_model(latest).classes == ('disc', 'ring', 'square') and weights(latest) == weights(latest/'former-1')
    with pytest.warns(UserWarning, match='left out runs/latest'):
        assert 'nothing left to do' in train('runs/latest', capsys, data='.', bs=None, epochs=1, resume=True)
    assert not (latest/'former-2').exists()


def test_nothing_but_the_named_device_is_touched(split, tmp_path, capsys, monkeypatch):
    "As on a machine whose best device is another one: here one that isn't there"
    import sys
    for k, m in list(sys.modules.items()):
        if k.startswith('slowai.') and hasattr(m, 'default_device'): monkeypatch.setattr(m, 'default_device', lambda: 'cuda:99')
    write_shapes_parquet(tmp_path/'tiny-imagenet', 48, 16, n_classes=4)
    monkeypatch.setenv('SLOWAI_DATA', str(tmp_path))
    for i, kw in enumerate((dict(data=str(split), size=16), dict(data='shapes', bs=5000), dict(data='tiny_imagenet'))):
        assert 'wrote metrics.json' in train(tmp_path/f'{i}', capsys, device='cpu', epochs=1, **kw)
    with pytest.raises(ValueError, match='cuda:99'): train(tmp_path/'x', capsys, data=str(split), size=16)
    def small(bs, device=None, **kwargs):
        check_device(device)
        return shapes_dls(bs, 300, 60)
    for o in ('own', 'resnet', 'schedules'): monkeypatch.setattr(f'slowai.{o}.fashion_mnist', small)
    summarize(build_model('cnn', 10, 1), device='cpu')
    assert len(compare_blocks({'a': Conv}, n_epochs=1, seeds=(0,), device='cpu')) == 1
    train_1cycle(build_model('cnn', 10, 1), n_epochs=1, device='cpu', plot=False)
    lr_find(build_model('cnn', 10, 1), shapes_dls(100, 300, 60), plot=False, device='cpu')
    with pytest.raises(ValueError, match='cuda:99'): summarize(build_model('cnn', 10, 1))


def test_a_device_is_refused_before_a_picture_is_read(split, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(own, 'find_pictures', None)
    with pytest.raises(ValueError, match="device: 'cuda:99' can't be used"):
        train(tmp_path/'a', capsys, data=str(split), device='cuda:99')
    with pytest.raises(ValueError, match="device: 'cuda:99' can't be used"): image_folder_dls(split, device='cuda:99')
    assert not (tmp_path/'a').exists()


# ---- what others have learnt

def test_a_fine_tuned_network_becomes_a_page(flat, split, tmp_path, capsys, monkeypatch):
    "From weights in a file to the page of slowai_demo, whose graph says what predict says, by the numbers that the weights know"
    for o in ('onnx', 'onnxscript'): pytest.importorskip(o)
    rt, browser = pytest.importorskip('onnxruntime'), pytest.importorskip('slowai.browser')
    train(tmp_path/'theirs', capsys, data=str(split), model='timm:test_resnet', size=32, epochs=1)
    Image.new('RGB', (40, 40), 'red').save(flat/'disc/red.png')   # another mean
    train(tmp_path/'mine', capsys, data=str(flat), model='timm:test_resnet', weights=str(tmp_path/'theirs/model.safetensors'), epochs=1)
    monkeypatch.setattr(browser, '_engine_files', {})   # the engine is its own affair
    browser.demo_command(str(tmp_path/'mine'), [str(flat/'ring')], str(tmp_path/'page'), engine=str(tmp_path))
    about, clf = json.loads((tmp_path/'page/manifest.json').read_text()), load_model(tmp_path/'mine')
    theirs = load_model(tmp_path/'theirs')
    assert (about['arch'], about['size'], about['classes']) == ('timm:test_resnet', [32, 32], ['disc', 'ring', 'square'])
    assert about['mean'] == theirs.norm.mean.flatten().tolist()
    assert about['mean'] != Normalize.from_images(quiet(flat)['train'].images).mean.flatten().tolist()
    assert len(about['layers']) > 2 and len(about['examples']) == 30 and 'wrote ' in capsys.readouterr().out
    p = predict(clf, flat/'ring')
    ask = rt.InferenceSession((tmp_path/'page/model.onnx').read_bytes(), providers=['CPUExecutionProvider'])
    for x, want in zip(p.images[:3], p.probs):
        said, = ask.run(['probabilities'], {'pictures': x[None].numpy()})
        torch.testing.assert_close(torch.as_tensor(said[0]), want, atol=1e-4, rtol=0)
