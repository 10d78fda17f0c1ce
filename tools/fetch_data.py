"""See to it that FashionMNIST can be loaded: ask slowai for it, and where it finds none, install Debian's package of it

Ends well in any case that has a name: without the data set the tests use drawn shapes, and a training says what it misses."""
import sys
from pathlib import Path

from debian import apt_install

from slowai.checks import DataError, DataMissingError
from slowai.fashion import load_fashion_mnist

PACKAGE = 'dataset-fashion-mnist'


def load():
    "Where slowai loads FashionMNIST from, in words; installs the package if it lies nowhere"
    try: return load_fashion_mnist()['train'].source
    except DataMissingError: print(f"FashionMNIST was not found; installing the package {PACKAGE}", flush=True)
    why = apt_install(PACKAGE)
    if why: print(f"That did not work: {why}.")
    return load_fashion_mnist()['train'].source


def main(
    stamp=None, # a file to write once the data are there, so that make need not ask again
):
    try: source = load()
    except DataError as e:
        return print(f"{e}\nGoing on without FashionMNIST: tests use drawn shapes, a training on it will say this again.", flush=True)
    print(f"FashionMNIST is there ({source}).", flush=True)
    if stamp: Path(stamp).write_text(f"{source}\n")


if __name__ == '__main__': main(*sys.argv[1:])
