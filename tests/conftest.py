"What the tests share: the project's files, and a copy of them that a test may change"
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MADE = {'.git', '.venv', 'runs', 'build', 'dist', '_docs', '_proc', '__pycache__', '.ipynb_checkpoints', '.pytest_cache', '.ruff_cache'}


def pytest_configure(config):
    config.addinivalue_line('markers', 'same_everywhere: data, a hub and bf16 change nothing in it: not run once more without')


def project_files():
    "The project's files as git sees them, new ones included; without git, all but what is known to be made"
    git = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=ROOT, capture_output=True)
    if git.returncode == 0: found = [ROOT/o for o in git.stdout.decode().split('\0') if o]
    else: found = [o for o in ROOT.rglob('*') if not MADE & set(o.relative_to(ROOT).parts) and '.egg-info' not in str(o)]
    return sorted({o for o in found if o.is_file()})


def copy_project(
    dest, # a new folder
):
    "Copy the project's files to `dest`"
    for o in project_files():
        to = dest/o.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(o, to)
    return dest


def run_command(*cmd, cwd, ok=True, **env):
    "Run a command as a user would type it; fails with its output if it fails"
    environ = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTHONPATH', 'MPLBACKEND')}
    cmd = [str(o) for o in cmd]
    res = subprocess.run(cmd, cwd=cwd, env={**environ, **env}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not ok or res.returncode == 0, f"{' '.join(cmd)} ended with {res.returncode}\n{res.stdout[-4000:]}\n{res.stderr[-4000:]}"
    return res


@pytest.fixture
def tree(tmp_path):
    "A copy of the project in a folder of its own"
    return copy_project(tmp_path/'tree')


@pytest.fixture
def run(): return run_command
