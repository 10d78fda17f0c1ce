"Install packages where there is apt-get, without a question: `python tools/debian.py PACKAGE …`. Needs nothing but Python itself"
import os
import shutil
import subprocess
import sys


def apt_install(
    *packages, # packages of Debian or Ubuntu; options of `apt-get install` may stand among them
):
    "Install `packages`. Returns None, or in words why that did not work"
    if not shutil.which('apt-get'): return 'this machine has no apt-get'
    root = hasattr(os, 'geteuid') and os.geteuid() == 0
    if not root and not shutil.which('sudo'): return 'apt-get wants root, and there is no sudo'
    for cmd in ['apt-get', '-qq', 'update'], ['env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-qq', 'install', '-y', *packages]:
        if not root: cmd = ['sudo', '-n', *cmd]
        code = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
        if code: return f"`{' '.join(cmd)}` ended with status {code}"


if __name__ == '__main__':
    why = apt_install(*sys.argv[1:])
    if why: sys.exit(f"not installed: {' '.join(o for o in sys.argv[1:] if o[0] != '-')}: {why}")
