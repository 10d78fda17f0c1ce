"The live figures of the site, in headless Chromium and with the network cut off: what they do, and that their answers are PyTorch's"
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from pictures import corpus
from test_demo import strange
from test_site import BASE, CACHE, built_site, look, missing, serving, skip_unless

from slowai.checks import DataError
from slowai.data import draw_shapes

sys.path.insert(0, str(ROOT/'tools'))
from docs import live, weights  # noqa: E402

HERE = Path(__file__).parent
CHECKS = 'windows', 'skips', 'memory', 'everybody', 'without_script', 'old_browser'
GOOD = '640x480-gray.jpg'
BAD = {'letter.jpg': "can't be decoded as a picture", 'empty.png': 'the file is empty', 'ninety.png': 'has 90 million pixels'}


def expected(figure):
    "What PyTorch says of a figure's pictures, as the build noted it"
    folder = live.made(figure, CACHE, ROOT/'slowai', quick='SLOWAI_SITE' not in os.environ)
    return {**json.loads((folder/'expected.json').read_text()), 'labels': json.loads((folder/'manifest.json').read_text())['labels']}


def convolutions():
    "Random windows on random pictures, and what torch says"
    gen = torch.Generator().manual_seed(0)
    for h, w in (28, 28), (56, 56), (5, 9):
        x, k = torch.randint(0, 256, (h, w), generator=gen), torch.randn(3, 3, generator=gen)
        want = F.conv2d(x[None, None]/255, k[None, None]).flatten().tolist()
        yield dict(pixels=x.flatten().tolist(), size=[h, w], k=k.flatten().tolist(), want=want)


@pytest.fixture(scope='module')
def report(request, tmp_path_factory):
    "What each check that is asked for finds wrong: {check: [words]}"
    skip_unless(missing())
    served, files = built_site(tmp_path_factory.getbasetemp())[0], tmp_path_factory.mktemp('files')
    if not (served/BASE/'live').exists(): pytest.skip('the build could not have the engine, and left the still pictures')
    for k, raw in {**corpus(), **strange()}.items(): (files/k).write_bytes(raw)
    figures = [[o.name, k] for o in sorted((served/BASE).glob('*.html')) for k in live.WANTED.findall(o.read_text(encoding='utf-8'))]
    where = {k: page for page, k in reversed(figures)}
    assert where.keys() == weights.FIGURES.keys()
    args = {k: dict(where=page) for k, page in where.items()}
    args['windows'] |= dict(cases=list(convolutions()), good=GOOD, bad=BAD)
    args |= dict(everybody=dict(figures=[[page, k] for k, page in where.items()]), without_script=dict(figures=figures))
    args['old_browser'] = dict(where=where['skips'], name='skips')
    asked = {o.callspec.params['check'] for o in request.session.items if o.path == Path(__file__) and hasattr(o, 'callspec')}
    for k in asked & {'skips', 'memory'}: args[k]['expected'] = expected(k)
    checks = {k: v for k, v in args.items() if k in asked}
    with serving(served) as url: return look('live.js', dict(url=f'{url}{BASE}/', files=str(files), checks=checks))


@pytest.mark.parametrize('check', CHECKS)
def test_live(check, report):
    wrong = report[check]
    assert not wrong, '\n'.join([f'{len(wrong)} things', *wrong[:12]])


def test_build_says_why_a_figure_stays_a_picture(tmp_path, monkeypatch, capsys):
    "Without npm: the page as it was, and a sentence; a name that is none is a fault"
    def no_engine(**kwargs): raise DataError('npm is not here')
    monkeypatch.setattr('slowai.browser.get_engine', no_engine)
    page = '<html><head></head><body><figure class="figure"{}><img></figure></body></html>'
    (tmp_path/'a.html').write_text(page.format(' data-live="skips"'))
    assert live.place(tmp_path, tmp_path/'cache', ROOT/'slowai') == []
    assert 'stay pictures: npm is not here' in capsys.readouterr().out
    assert (tmp_path/'a.html').read_text() == page.format('') and not (tmp_path/'live').exists()
    (tmp_path/'b.html').write_text(page.format(' data-live="magic"'))
    assert live.place(tmp_path, tmp_path/'cache', ROOT/'slowai') == ['b.html: no live figure is called magic']


def test_weights_are_kept_by_what_they_depend_on():
    names = {o.name for o in live.files_behind(Path(weights.__file__), ROOT/'slowai')}
    assert {'weights.py', 'resnet.py', 'learner.py', 'tiny_imagenet_preact.py', 'checks.py'} <= names and 'cli.py' not in names
    sets = {'train': draw_shapes(20, 10)['train']}
    assert live.key_of('skips', sets, ROOT/'slowai') == live.key_of('skips', sets, ROOT/'slowai')
    assert live.key_of('skips', sets, ROOT/'slowai') != live.key_of('skips', {'train': draw_shapes(20, 10, seed=1)['train']}, ROOT/'slowai')
    named = replace(sets['train'], labels=sets['train'].labels.flip(0))
    assert live.key_of('skips', sets, ROOT/'slowai') != live.key_of('skips', {'train': named}, ROOT/'slowai')


def test_data_of_figures_are_kept_while_they_are_used(tmp_path, monkeypatch):
    "What can't be put into its place is said, what no build has used for a month goes, and other things in the cache stay"
    def dot(folder, sets): (folder/'dot').write_text('.')
    monkeypatch.setitem(weights.FIGURES, 'dot', (lambda: draw_shapes(20, 10), dot))
    folder = live.made('dot', tmp_path, ROOT/'slowai')
    (tmp_path/'live-dot-old').mkdir()
    (tmp_path/'tiny_imagenet').mkdir()
    for o in tmp_path.iterdir(): os.utime(o, (0, 0))
    assert live.made('dot', tmp_path, ROOT/'slowai') == folder
    live.tidy(tmp_path)
    assert sorted(o.name for o in tmp_path.iterdir()) == sorted([folder.name, 'tiny_imagenet']) and (folder/'dot').exists()
    (folder/'dot').unlink()
    folder.rmdir()
    def full(*args): raise OSError('no space left')
    monkeypatch.setattr(Path, 'rename', full)
    with pytest.raises(OSError, match='no space left'): live.made('dot', tmp_path, ROOT/'slowai')
