"The package as pip sees it: it builds, installs elsewhere, and importing it does nothing but import"
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

MODULES = sorted(o.stem for o in (ROOT/'slowai').glob('*.py') if not o.stem.startswith('_'))

# Imports the modules it is given, under watch, and fails if that said, asked, read or set anything
WATCH = '''
import io, os, random, sys
data_ends = ('.gz', '.parquet', '.arrow', '.ubyte', '.pt', '.pth', '.safetensors', '.tsv', '.png', '.jpg')
seen = []
def watch(event, args):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'): seen.append((event, str(args)))
    if event == 'open' and isinstance(args[0], str) and args[0].endswith(data_ends) and 'site-packages' not in args[0]: seen.append(args[0])
sys.addaudithook(watch)
import numpy, torch
def state():
    return (torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_default_dtype(),
        torch.get_default_device(), torch.is_grad_enabled(), torch.get_num_threads(), torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(), torch._tensor_str.PRINT_OPTS.precision)
before, said = state(), io.StringIO()
out, err, sys.stdout, sys.stderr = sys.stdout, sys.stderr, said, said
for m in sys.argv[1:]: mod = __import__(f'slowai.{m}', fromlist=['x'])
sys.stdout, sys.stderr = out, err
assert not said.getvalue(), f"an import said: {said.getvalue()!r}"
assert not seen, f"an import reached out: {seen}"
assert state() == before, "an import changed torch's or random's global state"
print(mod.__file__)
'''


# Runs scripts by turns, each as a process of its own would, in one that is forked off: the package, and torch below it, are imported once
FORKED = '''
import json, os, runpy, sys
import slowai.cli
for cmd in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if not (pid := os.fork()):
        sys.argv, sys.path[0] = cmd, os.path.dirname(cmd[0])
        runpy.run_path(cmd[0], run_name='__main__')
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code: sys.exit(f"{cmd} ended with {code}")
    print(end=chr(0))
'''


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "An sdist, and the wheel built from it, from a copy of the project"
    from conftest import project_files
    tmp = tmp_path_factory.mktemp('build')
    for o in project_files():
        dest = tmp/'tree'/o.relative_to(ROOT)
        dest.parent.mkdir(parents=True, exist_ok=True)
        dest.write_bytes(o.read_bytes())
    cmd = [sys.executable, '-m', 'build', '--outdir', str(tmp/'dist')]
    pins = (ROOT/'tools/constraints.txt').as_uri()   # a new setuptools is no affair of who runs the tests
    env = {**os.environ, 'PIP_CONSTRAINT': pins, 'PIP_BUILD_CONSTRAINT': pins}
    res = subprocess.run(cmd, cwd=tmp/'tree', env=env, capture_output=True, text=True)
    if res.returncode:   # offline, where no setuptools can be fetched for the isolated build, the one that is installed serves
        res = subprocess.run([*cmd, '--no-isolation'], cwd=tmp/'tree', capture_output=True, text=True)
    assert res.returncode == 0, res.stdout[-3000:] + res.stderr[-3000:]
    return tmp/'dist'


@pytest.fixture(scope='module')
def elsewhere(built, tmp_path_factory):
    "The Python of a new virtual environment that holds the wheel; what the package needs is seen through a .pth file"
    venv = tmp_path_factory.mktemp('elsewhere')/'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', venv], check=True)
    python = venv/'bin/python'
    cmd = [sys.executable, '-m', 'pip', '--python', python, 'install', '-q', '--no-deps', '--no-index', *built.glob('*.whl')]
    subprocess.run(cmd, check=True, capture_output=True)
    where = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    site = subprocess.run([python, '-c', where], check=True, capture_output=True, text=True)
    (Path(site.stdout.strip())/'needs.pth').write_text('\n'.join(sorted({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')})))
    return python


def test_sdist_holds_what_a_build_needs(built):
    sdist, = built.glob('*.tar.gz')
    names = {n.partition('/')[2] for n in tarfile.open(sdist).getnames()}
    assert {'settings.ini', 'setup.py', 'README.md', 'LICENSE', 'slowai/__init__.py', *(f'slowai/{m}.py' for m in MODULES)} <= names
    assert not [n for n in names if n.startswith(('nbs/', 'tests/', 'tools/', 'bench/', 'results/', 'runs/'))]


def test_wheel_holds_the_package_and_nothing_else(built):
    wheel, = built.glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    have = {f'slowai/{o.relative_to(ROOT/"slowai")}' for g in ('*.py', 'web/*') for o in (ROOT/'slowai').glob(g)}
    assert {n for n in names if '.dist-info/' not in n} == have
    meta = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith('/METADATA'))).decode()
    assert re.search(r'^Requires-Python: >=3\.11$', meta, re.M) and re.search(r'^License(-Expression)?: Apache-2\.0$', meta, re.M)
    assert 'Programming Language :: Python :: 3.13' in meta and 'Requires-Dist: torch' in meta


def test_importing_does_nothing_else(elsewhere, run, tmp_path):
    res = run(elsewhere, '-c', WATCH, *MODULES, cwd=tmp_path, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert Path(res.stdout.strip()).is_relative_to(elsewhere.parent.parent), "not the installed package"


@pytest.fixture
def forked(elsewhere, run, tmp_path):
    "Run scripts, each with its arguments, and return what each has printed"
    def call(*cmds, **env):
        cmds = json.dumps([[str(o) for o in cmd] for cmd in cmds])
        return run(elsewhere, '-c', FORKED, cmds, cwd=tmp_path, **env).stdout.split('\0')[:-1]
    return call


def test_commands_are_installed(elsewhere, forked):
    names = 'slowai_train', 'slowai_predict', 'slowai_demo'
    scripts = [elsewhere.parent/o for o in names]
    for o in scripts: assert os.access(o, os.X_OK) and str(elsewhere) in o.read_text()
    train, demo, *versions = forked(*([scripts[i], '--help'] for i in (0, 2)), *([o, '--version'] for o in scripts))
    assert '--engine' in demo and all(o.startswith('slowai ') for o in versions) and len(versions) == 3
    for flag in '--data --model --epochs --lr --bs --seed --device --out'.split(): assert flag in train


def test_two_runs_and_a_prediction_far_from_a_checkout(elsewhere, run, forked, tmp_path):
    "As after `pip install`: data are found, the second run keeps the first one, and the network is asked about a picture"
    env = dict(HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path/'cache'), SLOWAI_CACHE=str(tmp_path/'cache'), OMP_NUM_THREADS='1')
    for i in range(24):
        file = tmp_path/'photos'/('dark', 'light')[i % 2]/f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (20, 20), 200*(i % 2) + i).save(file)
    train = elsewhere.parent/'slowai_train', *'--data photos --model cnn --size 16 --epochs 1 --seed 3'.split()
    assert 'wrote metrics.json' in run(*train, cwd=tmp_path, **env).stdout   # a program that a shell starts
    predict = elsewhere.parent/'slowai_predict', 'runs/latest', 'photos/dark', '--json'
    find = tmp_path/'find.py'
    find.write_text("from slowai.fashion import fashion_mnist_or_shapes as f; o = f()['train']; print(o.name, len(o))")
    again, asked, found = forked(train, predict, [find], **env)
    assert 'runs/latest holds a finished run; it is kept in runs/latest/former-1' in again
    latest = tmp_path/'runs/latest'
    assert (latest/'model.safetensors').read_bytes() == (latest/'former-1/model.safetensors').read_bytes()
    assert len(json.loads(asked)) == 12 and {o['name'] for o in json.loads(asked)[0]['top']} == {'dark', 'light'}
    assert found.split()[-2:] in (['fashion_mnist', '60000'], ['shapes', '10000'])
