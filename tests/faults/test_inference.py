"Saved models and predictions: what is damaged, hostile or does not fit is refused in words, and nothing from a file is run"
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from PIL import Image
from runs import finish, start
from safetensors.torch import save as safetensors_bytes
from torch import nn

import slowai.export
import slowai.inference as inf
from slowai.batches import Normalize
from slowai.checks import DataError
from slowai.export import export_onnx, export_program, model_card, save_model_card
from slowai.inference import Classifier, load_model, predict, predict_loader, save_model
from slowai.networks import architectures, build_model

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def clf():
    torch.manual_seed(0)
    return Classifier(build_model('residual', 3, 1, nfs=(4,)*5).eval(), 'residual', ('disc', 'ring <b>', 'cross'), Normalize([.5], [.25]),
        (28, 28),
        dict(nfs=[4]*5), 'shapes', dict(name='r', epochs=2, seconds_per_epoch=1., recipe=dict(lr=.1), acc_last=.5))


@pytest.fixture
def saved(clf, tmp_path): return save_model(clf, tmp_path/'m')


def change(path, **new):
    "The saved model with another description, its SHA-256 made to fit: what somebody who means harm would do"
    tensors, about = inf._read_saved(path)
    about = {k: v for k, v in {**about, **new}.items() if v is not None}
    about['sha256'] = inf._fingerprint_of(tensors, about)
    path.write_bytes(safetensors_bytes(tensors, metadata=dict(slowai=json.dumps(about))))
    return path



class Hostile:
    def __reduce__(self): return os.system, ('touch ran',)


FILES = {
    'empty': (lambda raw: b'', 'no safetensors file'),
    'one byte': (lambda raw: b'x', 'no safetensors file'),
    'text': (lambda raw: b'Hello, this is no model at all', 'no safetensors file'),
    'cut in the header': (lambda raw: raw[:200], 'header is damaged or cut off'),
    'cut in the numbers': (lambda raw: raw[:-7], 'truncated or overlong: the header promises'),
    'half': (lambda raw: raw[:len(raw)//2], 'truncated or overlong'),
    'longer': (lambda raw: raw + b'\0', 'truncated or overlong'),
    'a bit in the numbers': (lambda raw: raw[:-100] + bytes([raw[-100] ^ 1]) + raw[-99:], "don't match their SHA-256"),
    'a letter of a class': (lambda raw: raw.replace(b'disc', b'dusc'), "don't match their SHA-256"),
    'header length enormous': (lambda raw: b'\xff'*8 + raw[8:], 'no safetensors file'),
    'pickle': (lambda raw: pickle.dumps(Hostile()), 'this is a pickle'),
    'old pickle': (lambda raw: pickle.dumps(Hostile(), protocol=2), 'this is a pickle'),
}


@pytest.mark.parametrize('f, words', FILES.values(), ids=FILES)
def test_file(f, words, saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    saved.write_bytes(f(saved.read_bytes()))
    with pytest.raises(DataError) as e: load_model(saved)
    assert words in str(e.value) and 'model.safetensors' in str(e.value)
    assert not (saved.parent/'ran').exists()


def test_hostile_checkpoint_runs_nothing(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    torch.save(dict(model=Hostile()), saved)
    assert zipfile.is_zipfile(saved)
    with pytest.raises(DataError, match='this is a pickle, .* which could run anything; it was not opened'): load_model(saved)
    assert not (saved.parent/'ran').exists()


DESCRIPTIONS = {
    'newer format': (dict(format=99), 'expected format 1, got 99; it may come from a newer slowai'),
    'a function by name': (dict(arch='os.system'), "timm:<name>, got 'os.system'"),
    'a network from the hub': (dict(arch='timm:hf-hub:evil/model', args={}), 'timm has no model'),
    'no architecture': (dict(arch=None), "the description lacks 'arch'"),
    'architecture a number': (dict(arch=7), 'model: expected one of'),
    'unknown argument': (dict(args=dict(block='x')), 'args: '),
    'enormous network': (dict(args=dict(nfs=[100_000]*5)), "the weights don't fit this architecture; shapes: layers.0"),
    'another width': (dict(args=dict(nfs=[4, 4, 4, 4, 8])), '(4, 4, 3, 3) instead of (8, 4, 3, 3)'),
    'another depth': (dict(args=dict(nfs=[4]*4)), "the weights don't fit this architecture; unexpected: layers.5"),
    'another architecture': (dict(arch='deeper'), "the weights don't fit this architecture; missing: layers.0.weight"),
    'another number of classes': (dict(classes=list('abcd')), "the weights don't fit this architecture; shapes:"),
    'std 0': (dict(std=[0.]), 'std: expected numbers above 0'),
    'size of one number': (dict(size=[28]), 'size: expected (height, width)'),
    'an unknown way to fit': (dict(fit='stretch'), 'fit: expected one of crop, squash'),
}


@pytest.mark.parametrize('new, words', DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_description(new, words, saved):
    with pytest.raises((DataError, ValueError)) as e: load_model(change(saved, **new))
    assert words in str(e.value), str(e.value)


def test_weights_without_a_description(tmp_path):
    (tmp_path/'w.safetensors').write_bytes(safetensors_bytes(dict(a=torch.zeros(2))))
    with pytest.raises(DataError, match='weights without a description'): load_model(tmp_path/'w.safetensors')


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="can't be read .No such file or directory"): load_model(tmp_path/'none')


def test_one_file_is_enough_and_the_json_is_not_believed(saved, clf, tmp_path):
    (saved.parent/'model.json').write_text('{"arch": "os.system"}')
    assert load_model(saved).classes == clf.classes
    alone = tmp_path/'other name.safetensors'
    alone.write_bytes(saved.read_bytes())
    assert load_model(alone).arch == 'residual'


def test_same_bytes_in_every_process(saved, clf, tmp_path):
    "Python draws a new seed for its hash tables in each process, Rust one for each table; the file must not show it"
    for _ in range(8): assert save_model(clf, tmp_path/'again.safetensors').read_bytes() == saved.read_bytes()
    file, log = tmp_path/'code.py', tmp_path/'log'
    file.write_text('import sys; from slowai.inference import *; save_model(load_model(sys.argv[1]), sys.argv[2])')
    end = finish(start('program', log, file, saved, tmp_path/'other.safetensors', cwd=str(tmp_path)), log)
    assert end.code == 0, end.said
    assert (tmp_path/'other.safetensors').read_bytes() == saved.read_bytes()


def test_times_do_not_change_the_bytes(clf, saved, tmp_path):
    other = Classifier(**{**vars(clf), 'record': {**clf.record, 'seconds_per_epoch': 9., 'commit': 'abc'}})
    assert save_model(other, tmp_path).read_bytes() == saved.read_bytes()
    beside = json.loads((tmp_path/'model.json').read_text())
    assert beside['record']['commit'] == 'abc' and beside['file_sha256'] == hashlib.sha256(saved.read_bytes()).hexdigest()


def test_a_failing_write_leaves_the_old_file(clf, saved, monkeypatch):
    old = saved.read_bytes()
    def full(*a): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'): save_model(Classifier(**{**vars(clf), 'classes': ('x', 'y', 'z')}), saved)
    assert saved.read_bytes() == old and len(list(saved.parent.iterdir())) == 2


def test_a_network_of_ones_own(clf, tmp_path, monkeypatch):
    def mine(n_outputs, c_in, width=4): return nn.Sequential(nn.Flatten(), nn.Linear(c_in*16, width), nn.Linear(width, n_outputs))
    monkeypatch.setitem(architectures, 'mine', mine)
    m = Classifier(mine(3, 1, width=6), 'mine', clf.classes, clf.norm, (4, 4), dict(width=6))
    path = save_model(m, tmp_path)
    assert predict(path, torch.zeros(1, 4, 4).byte()).probs.shape == (1, 3)
    monkeypatch.delitem(architectures, 'mine')
    with pytest.raises(DataError, match="got 'mine'. A network of your own must be in `architectures` first"): load_model(path)


def test_loading_does_not_touch_the_random_state(saved):
    before = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(before, torch.get_rng_state())


# ---- predictions

def picture(path, mode='L', size=(28, 28), **kwargs): Image.new(mode, size, **kwargs).save(path); return path


@pytest.mark.parametrize('mode, name', [('L', 'a.png'), ('RGB', 'a.png'), ('RGBA', 'a.png'), ('P', 'a.gif'), ('1', 'a.png'),
    ('LA', 'a.png'),
    ('CMYK', 'a.jpg'), ('RGB', 'a.jpg'), ('RGB', 'A.JPEG'), ('RGB', 'ä ö.png'), ('RGB', 'a.webp')])
def test_kinds_of_pictures(mode, name, clf, tmp_path):
    p = predict(clf, picture(tmp_path/name, mode, (40, 30)))
    assert len(p) == 1 and p.images.shape == (1, 1, 28, 28) and '30×40 → 28×28, centre cut out' in p.changes[0]
    assert predict(clf, tmp_path).sources == [name]


BROKEN = {'empty': b'', 'text': b'hello', 'truncated': None, 'web page': b'<html></html>'}


@pytest.mark.parametrize('raw', BROKEN.values(), ids=BROKEN)
def test_picture_that_cannot_be_decoded(raw, clf, tmp_path):
    if raw is None:
        Image.effect_noise((64, 64), 90).save(tmp_path/'b.png')
        raw = (tmp_path/'b.png').read_bytes()[:1000]
    (tmp_path/'b.png').write_bytes(raw)
    with pytest.raises(DataError, match="b.png: can't be decoded as a picture"): predict(clf, tmp_path/'b.png')
    with pytest.raises(DataError, match='no picture could be read: .*b.png'): predict(clf, tmp_path)
    picture(tmp_path/'a.png')
    p = predict(clf, tmp_path)
    assert p.sources == ['a.png'] and list(p.skipped) == ['b.png'] and 'skipped: ' in repr(p)


def test_sixteen_bits_are_not_cut_to_eight_in_silence(clf, tmp_path):
    Image.new('I;16', (28, 28), 40_000).save(tmp_path/'a.png')
    assert predict(clf, tmp_path/'a.png').images.unique().tolist() == [156]
    Image.new('F', (28, 28), 40_000).save(tmp_path/'a.tif')
    with pytest.raises(DataError, match="expected 8 bits a channel or gray of 16, got mode 'F'"): predict(clf, tmp_path/'a.tif')


def test_a_picture_bomb(clf, tmp_path, monkeypatch):
    picture(tmp_path/'a.png', size=(300, 300))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(DataError,
            match=r"a.png: Image size \(90000 pixels\) exceeds limit of 2000 pixels; .*SLOWAI_MAX_PIXELS"): predict(clf, tmp_path/'a.png')


def test_an_empty_folder(clf, tmp_path):
    with pytest.raises(DataError, match='the folder holds no pictures'): predict(clf, tmp_path)


def test_missing_picture(clf, tmp_path):
    with pytest.raises(DataError, match='there is no such picture'): predict(clf, tmp_path/'x.png')


def test_a_large_jpeg_is_decoded_at_a_fraction_and_says_its_real_size(clf, tmp_path):
    im = Image.linear_gradient('L').resize((1600, 1200))
    im.save(tmp_path/'a.jpg'); im.save(tmp_path/'a.png')
    a, b = predict(clf, tmp_path/'a.jpg'), predict(clf, tmp_path/'a.png')
    assert a.changes == b.changes == ['1200×1600 → 28×28, centre cut out']
    assert (a.images.float() - b.images.float()).abs().max() <= 4
    assert inf.open_picture(tmp_path/'a.jpg', clf.size).size == (200, 150)


def test_the_way_of_fitting_is_saved(clf, tmp_path):
    picture(tmp_path/'a.png', size=(40, 30))
    path = save_model(Classifier(**{**vars(clf), 'fit': 'squash'}), tmp_path/'squash')
    assert predict(path, tmp_path/'a.png').changes == ['30×40 → 28×28, squashed']
    assert predict(path, tmp_path/'a.png', fit='crop').changes == ['30×40 → 28×28, centre cut out']


def test_a_file_from_before_the_fit_was_saved(saved):
    assert load_model(change(saved, fit=None)).fit == 'crop'


def test_the_way_of_a_picture_does_not_matter(clf, tmp_path):
    x = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    im = Image.fromarray(x[0].numpy())
    im.save(tmp_path/'a.png')
    ways = [im, tmp_path/'a.png', str(tmp_path/'a.png'), tmp_path, x, x[None], x/255, x[0], [im], [x, ]]
    assert all(torch.allclose(predict(clf, o).probs, predict(clf, im).probs, atol=1e-6) for o in ways)
    assert torch.allclose(predict(clf, [im]*5, bs=2).probs, predict(clf, [im]*5).probs, atol=1e-6)


def test_a_turned_photograph_is_turned_back(clf, tmp_path):
    im = Image.new('L', (40, 20))
    exif = im.getexif()
    exif[274] = 6
    im.save(tmp_path/'a.jpg', exif=exif)
    assert predict(clf, tmp_path/'a.jpg').changes == ['40×20 → 28×28, centre cut out']


def test_tta_of_a_mirror_image_is_the_same(clf):
    x = torch.rand(3, 1, 28, 28)
    a, b = predict(clf, x, tta=True).probs, predict(clf, x.flip(-1), tta=True).probs
    assert torch.allclose(a, b, atol=1e-6) and not torch.allclose(predict(clf, x).probs, predict(clf, x.flip(-1)).probs, atol=1e-6)


def test_scores_that_are_not_finite(clf):
    m = build_model('residual', 3, 1, nfs=(4,)*5)
    nn.init.constant_(m.layers[0].conv_a.weight, float('nan'))
    bad = Classifier(m, 'residual', clf.classes, clf.norm, (28, 28))
    with pytest.raises(FloatingPointError, match="the network's scores are not finite"): predict(bad, torch.zeros(1, 28, 28))
    assert m.training


def test_names_are_escaped_in_html(clf): assert 'ring <b>' not in predict(clf, torch.zeros(1, 28, 28))._repr_html_()


def test_empty_loader(clf):
    with pytest.raises(ValueError, match='dl: the loader is empty'): predict_loader(clf, [])


# ---- the command

SCRIPT = 'import sys; from slowai.inference import slowai_predict; slowai_predict()'


@pytest.mark.parametrize('args, words', [(('none', 'a.png', {}), "can't be read"), (('m', 'none.png', {}), 'there is no such picture'),
    (('m', 'a.png', dict(k=0)), 'k: expected a whole number'), (('m', 'a.png', dict(fit='x')), 'fit: expected one of crop, squash')])
def test_command_fails_in_one_line(args, words, saved, tmp_path, capsys):
    picture(tmp_path/'a.png')
    with pytest.raises(SystemExit) as e: inf.slowai_predict(tmp_path/args[0], [tmp_path/args[1]], **args[2])
    out = capsys.readouterr()
    assert e.value.code == 2 and not out.out
    assert out.err.count('\n') == 1 and out.err.startswith('slowai_predict: ') and words in out.err


def test_command_in_ascii(saved, tmp_path):
    picture(tmp_path/'a.png', 'RGB', (40, 30))
    (tmp_path/'slowai_predict').write_text(SCRIPT)
    env = dict(LC_ALL='POSIX', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', PYTHONIOENCODING='ascii:strict')
    r = subprocess.run([sys.executable, tmp_path/'slowai_predict', saved, tmp_path/'a.png', '--k', '2'], capture_output=True,
        env={**os.environ, **env})
    assert r.returncode == 0 and not r.stderr and r.stdout.isascii(), r.stderr
    assert b'a.png: ' in r.stdout and r.stdout.count(b'%') == 2 and b'(30?40 ? 28?28' in r.stdout, r.stdout


# ---- export and card

def test_export_program(saved, clf, tmp_path):
    x = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    run = torch.export.load(export_program(saved, tmp_path/'m.pt2')).module()
    for n in (1, 3, 5): assert torch.allclose(run(x[:n]), clf.probs(clf.norm(x[:n])), atol=1e-5)


def test_export_onnx(saved, clf, tmp_path):
    pytest.importorskip('onnx', reason='onnx is not installed')
    pytest.importorskip('onnxscript', reason='onnxscript is not installed')
    rt = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    x = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    s = rt.InferenceSession(export_onnx(saved, tmp_path/'m.onnx'))
    for n in (1, 3, 5): assert torch.allclose(torch.tensor(s.run(None, {'pictures': x[:n].numpy()})[0]), clf.probs(clf.norm(x[:n])),
        atol=1e-4)


def test_onnx_not_installed(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(slowai.export, 'find_spec', lambda o: None)
    with pytest.raises(ImportError, match='this needs onnx, onnxscript, onnxruntime: pip install onnx onnxscript onnxruntime'):
        export_onnx(saved, tmp_path/'m.onnx')
    assert not (tmp_path/'m.onnx').exists()


def test_an_export_that_says_something_else_is_not_written(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(slowai.export.Deployed, 'forward', lambda self, x: self.model(x.float()).softmax(1))
    with pytest.raises(RuntimeError, match="torch.export: its probabilities differ from the network's by"): export_program(saved,
        tmp_path/'m.pt2')
    assert not (tmp_path/'m.pt2').exists()


def test_exporting_leaves_the_network_alone(clf, tmp_path):
    m = clf.model
    m.train().to(memory_format=torch.channels_last)
    export_program(clf, tmp_path/'m.pt2')
    assert m.training and m.layers[0].conv_b.weight.is_contiguous(memory_format=torch.channels_last)
    m.eval()


def test_card(clf, saved):
    data = [(torch.randn(6, 1, 28, 28), torch.tensor([0, 1, 2, 0, 1, 2]))]
    card = model_card(clf, data)
    for o in ('# r', '## Results', '## Data', '## Recipe', '| lr | 0.1 |', '## Limits', 'most often taken for',
        '| accuracy, last epoch | 0.5 |'): assert o in card
    assert 'Not recorded in this file' in model_card(saved)
    path = save_model_card(saved, saved.parent/'README.md')
    assert path.read_text(encoding='utf-8') == model_card(saved)


def test_card_without_a_record(clf): assert 'No record of the run was saved' in model_card(Classifier(**{**vars(clf), 'record': None}))


def test_buffers_that_are_no_file(clf):
    with pytest.raises(TypeError, match='what: expected a picture'): predict(clf, io.BytesIO())
