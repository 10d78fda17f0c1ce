"""What `make` installs, to the version: `python tools/pins.py` renews tools/constraints.txt from the ranges in settings.ini

One file for Python 3.11 and newer, on Linux, macOS and Windows. `--keep` leaves a version that stands there and still fits, so that only
what settings.ini asks for changes. `--resolution lowest-direct --out FILE` writes, for the Python that runs this, the lowest versions that
the ranges allow. Asks the package index by uv, which `make pins` installs."""
import argparse
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT/'tools/constraints.txt'
BUILD = 'setuptools>=77', 'wheel>=0.45'   # what pip builds the package with
HEAD = """# What `make` installs. Made by `make pins` from the ranges in settings.ini, as one set that works together; not edited by hand.
"""


def wanted():
    "What settings.ini asks for, for use and for work on the project, and what builds it"
    c = ConfigParser(delimiters=['='], interpolation=None)
    c.read(ROOT/'settings.ini', encoding='utf-8')
    return [*f"{c['DEFAULT']['requirements']} {c['DEFAULT']['dev_requirements']}".split(), *BUILD]


def resolve(
    was, # a constraints file's text, whose versions stay where they fit
    *args, # options of `uv pip compile`
):
    "The lines of a constraints file, without an index's address"
    with tempfile.TemporaryDirectory() as tmp:
        (out := Path(tmp)/'constraints.txt').write_text(was, encoding='utf-8')
        cmd = [sys.executable, '-m', 'uv', 'pip', 'compile', '-', '--quiet', '--no-header', '--no-annotate', '-o', out, *args]
        res = subprocess.run(cmd, input='\n'.join(wanted()), stdout=subprocess.DEVNULL, text=True)
        if res.returncode: sys.exit(f"uv ended with status {res.returncode}")
        return [o for o in out.read_text(encoding='utf-8').splitlines() if o and not o.startswith(('#', '-'))]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--keep', action='store_true', help='change only what no longer fits')
    p.add_argument('--resolution', choices=['highest', 'lowest-direct'], help="for this Python alone; a file for all of them if left out")
    p.add_argument('--out', type=Path, default=FILE)
    args = p.parse_args()
    here = f'{sys.version_info.major}.{sys.version_info.minor}'
    how = ['--python-version', here, '--resolution', args.resolution] if args.resolution else ['--universal', '--python-version', '3.11']
    lines = resolve(FILE.read_text(encoding='utf-8') if args.keep and FILE.exists() else '', *how)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(HEAD + '\n'.join(lines) + '\n', encoding='utf-8')
    print(f"{len(lines)} versions in {args.out}")


if __name__ == '__main__': main()
