"The page that slowai_demo makes, in headless Chromium and with no other host: what it does, and that its answers are predict's"
import json
import shutil
import subprocess
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from pictures import corpus, drawn, jpegs, others, pngs
from PIL import Image, __version__ as pil_version
from test_site import CACHE, look, missing, serving, skip_unless

from slowai.batches import Normalize
from slowai.browser import get_engine, make_demo
from slowai.checks import DataError
from slowai.inference import Classifier, predict, save_model
from slowai.networks import build_model
from slowai.pictures import fit_picture, open_picture

HERE = Path(__file__).parent
NAMES = '<b>bold</b>', '"quoted" & \'single\'', '🦊 fox', 'שלום עולם', '<img src=x onerror="document.title=1">'


def network(
    arch, # as build_model knows it
    c_in, # channels
    size, # height and width
    classes=tuple('abcdefgh'), # names
    fit='crop', # how pictures are brought to the size
    **args, # more for build_model
):
    "A network with weights that were drawn, made so sure of itself that a small difference in the picture shows"
    torch.manual_seed(0)
    net, norm = build_model(arch, len(classes), c_in, **args), Normalize([.4]*c_in, [.25]*c_in)
    clf = Classifier(net.eval(), arch, classes, norm, (size, size), args=args, fit=fit)
    x = norm(torch.stack([fit_picture(drawn_file(i), clf.size, c_in)[0] for i in range(64)]).float())
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.momentum = None
    with torch.no_grad():
        net.train()(x)   # the norms' statistics
        last = [m for m in net.modules() if getattr(m, 'weight', None) is not None and len(m.weight) == len(classes)][-1]
        by = 3/net.eval()(x).std()
        for p in last.parameters(recurse=False): p.mul_(by)
    return clf


def drawn_file(i): return drawn(np.random.default_rng(i), (90, 80))


@pytest.fixture(scope='module')
def needs():
    why = missing()
    if not why:
        try: get_engine(cache=CACHE)
        except DataError as e: why = str(e)
    skip_unless(why)


@pytest.fixture(scope='module')
def demos(needs, tmp_path_factory):
    "A folder to serve: pages of several networks, and in `files` pictures of all kinds; and the networks"
    root, engine = tmp_path_factory.mktemp('demos'), get_engine(cache=CACHE)
    (root/'files').mkdir()
    for k, raw in {**corpus(), **strange()}.items(): (root/'files'/k).write_bytes(raw)
    nets = dict(gray=network('residual', 1, 28), tiny=network('tiny_pre_quarter', 3, 64, fit='squash'),
        timm=network('timm:resnet18', 3, 96), names=network('cnn', 1, 28, NAMES))
    example = root/'files/64x64-RGB.png'
    for k, clf in nets.items(): make_demo(save_model(clf, root/f'{k}-run').parent, root/k, [example], f'The {k} page', engine)
    return root, nets


@cache
def strange():
    "Files that are no ordinary pictures"
    def png(im, **kwargs):
        buf = BytesIO()
        im.save(buf, 'PNG', **kwargs)
        return buf.getvalue()
    big, buf, gif = Image.linear_gradient('L').resize((8000, 5000)), BytesIO(), BytesIO()
    big.convert('RGB').save(buf, 'JPEG')
    frames = [drawn_file(i) for i in range(3)]
    frames[0].save(gif, 'GIF', save_all=True, append_images=frames[1:])
    jpeg = buf.getvalue()
    return {'letter.jpg': b'Dear all, this is no picture.', 'empty.png': b'', 'forty.jpg': jpeg, 'forty.png': png(big),
        'animated.gif': gif.getvalue(), 'animated.png': png(frames[0], save_all=True, append_images=frames[1:]),
        'cut.jpg': jpeg[:len(jpeg)//2], 'cut.png': png(frames[0])[:3000],
        'ninety.png': png(Image.new('1', (9500, 9500))), 'cmyk.jpg': cmyk()}


def cmyk():
    buf = BytesIO()
    drawn_file(0).convert('CMYK').save(buf, 'JPEG')
    return buf.getvalue()


def wanted(
    root, # the folder that is served
    nets, # {name: classifier}
    kinds, # of pictures, a tuple
):
    "What predict says of the pictures: [page, file, probabilities, what was done to it]"
    for demo in 'gray', 'tiny', 'timm':
        names = sorted(corpus(kinds=kinds))
        p = predict(nets[demo], [root/'files'/o for o in names])
        yield from ([demo, name, probs.tolist(), words] for name, probs, words in zip(names, p.probs, p.changes))


SAYS = {'letter.jpg': "can't be decoded as a picture", 'empty.png': 'the file is empty', 'cut.jpg': 'it is cut off',
    'forty.jpg': '5000×8000 → 28×28', 'forty.png': '5000×8000 → 28×28', 'ninety.png': 'has 90 million pixels',
    'animated.gif': 'of the animation, the first picture', 'animated.png': 'of the animation, the first picture',
    'cut.png': 'its data are damaged', 'cmyk.jpg': 'CMYK'}
SOME = ['64x64-RGB.png', '640x480-gray.jpg', '100x75-RGBA.png']
CHECKS = 'equal_jpeg_png equal_others ways_in keyboard strange responsive memory names from_file old_browser everybody'.split()


@pytest.fixture(scope='module')
def report(demos, request):
    "What each check that is asked for finds wrong: {check: [words]}"
    root, nets = demos
    args = dict(ways_in=dict(demo='gray', pictures=SOME), keyboard=dict(demo='gray'), strange=dict(demo='gray', says=SAYS, good=SOME[0]),
        responsive=dict(demo='gray', picture='forty.png'), memory=dict(demo='gray', pictures=sorted(corpus(kinds=(pngs,))), most=60),
        names=dict(demo='names', picture=SOME[0], classes=NAMES), from_file=dict(folder=str(root/'gray')), old_browser=dict(demo='gray'),
        everybody=dict(demo='gray', pictures=SOME), speed=dict(demos=['gray', 'tiny'], pictures=SOME))
    equal = dict(equal_jpeg_png=(jpegs, pngs), equal_others=(others,))
    asked = {o.callspec.params['check'] for o in request.session.items if 'check' in getattr(getattr(o, 'callspec', None), 'params', {})}
    checks = {k: dict(check='equal', jobs=list(wanted(root, nets, kinds)), atol=1e-4) for k, kinds in equal.items() if k in asked}
    checks |= {k: v for k, v in args.items() if k in asked}
    with serving(root) as url: return look('demo.js', dict(url=url, files=str(root/'files'), checks=checks))


@pytest.mark.parametrize('check', CHECKS)
def test_demo(check, report):
    wrong = report[check]
    assert not wrong, '\n'.join([f'{len(wrong)} things', *wrong[:12]])


def test_javascript_says_what_pil_says(tmp_path):
    "Pixels of our decoders and our filter against PIL's, each the very same"
    if not shutil.which('node'): pytest.skip('no Node.js (Debian: apt install nodejs)')
    jobs, new_pil = [], int(pil_version.split('.')[0]) >= 13
    for name, raw in corpus(kinds=(jpegs, pngs)).items():
        (tmp_path/name).write_bytes(raw)
        for size, channels, fit in ((28, 28), 1, 'crop'), ((64, 64), 3, 'crop'), ((24, 40), 3, 'squash'), ((224, 224), 3, 'crop'):
            x, words = fit_picture(open_picture(tmp_path/name, size), size, channels, fit)
            o = dict(file=name, size=size, channels=channels, fit=fit, words=words, newPIL=new_pil)
            (tmp_path/f'{len(jobs)}.raw').write_bytes(x.contiguous().numpy().tobytes())
            jobs.append(dict(o, want=f'{len(jobs)}.raw'))
    (tmp_path/'jobs.json').write_text(json.dumps(jobs))
    shutil.copytree(ROOT/'slowai/web', tmp_path/'web')
    (tmp_path/'web/package.json').write_text('{"type": "module"}')   # as a browser takes them anyway
    res = subprocess.run(['node', HERE/'pixels.mjs', tmp_path/'web', tmp_path], capture_output=True, text=True)
    assert res.returncode == 0 and res.stdout.strip() == f'{len(jobs)} equal', res.stdout[-2000:] + res.stderr[-2000:]
