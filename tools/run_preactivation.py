"""The runs of nbs/05_preactivation.ipynb and nbs/05a_seventeen.ipynb:
`python tools/run_preactivation.py [--seeds 0 1 2] [--only 'post*'] [--part 1/2]`

Each takes some minutes; what is finished is in results/, in preact_answer.json (the first page's) or preact_seventeen.json (the second's),
and is not run again, so that the list may be stopped at any moment and started again. On a CPU two parts side by side, with one thread
each (OMP_NUM_THREADS=1), are faster than one part after the other: these networks are too small to share."""
import argparse
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import torch

from slowai.checks import DataError
from slowai.files import locked
from slowai.laboratory import arena, run_recipe
from slowai.preactivation import experiments
from slowai.records import load_records, save_record
from slowai.seventeen import every_recipe
from slowai.tiny_imagenet import load_tiny_imagenet

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[0], help='of weights, order and augmentation (default: 0)')
    p.add_argument('--only', nargs='+', default=['*'], metavar='NAME', help="names or patterns, such as 'post*' (default: all)")
    p.add_argument('--part', default='1/1', help='which part of the list, such as 1/2 or 2/2 (default: all of it)')
    p.add_argument('--data', type=Path, help='folder of the pictures; left out: the usual places')
    p.add_argument('--results', type=Path, help="one file for all records (default: each page's own)")
    return p.parse_args()


def part_of(text):
    "'1/2' as two numbers"
    found = re.fullmatch(r'(\d+)/(\d+)', text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        sys.exit(f'run_preactivation: --part: expected something like 1/2, got {text!r}')
    return int(found[1]), int(found[2])


def file_of(recipe, results=None):
    "Where its record belongs: to the page that has it, unless one file is named for all"
    first = any(recipe.name == r.name for r in experiments)
    return results or ROOT/'results'/('preact_answer.json' if first else 'preact_seventeen.json')


def todo(seeds, only, results=None, part='1/1'):
    "Seed and recipe of what was asked for, belongs to the part and is not among the results yet"
    i, n = part_of(part)
    done = {(o['name'], o['seed']) for file in {file_of(r, results) for r in every_recipe} for o in load_records(file)}
    asked = [(s, r) for s in seeds for r in every_recipe if any(fnmatch(r.name, o) for o in only)]
    if not asked: sys.exit(f"run_preactivation: --only: {only} is none of {', '.join(r.name for r in every_recipe)}")
    return [(s, r) for s, r in asked[i - 1::n] if (r.name, s) not in done]


def main():
    args = arguments()
    left = todo(args.seeds, args.only, args.results, args.part)
    try: sets = arena(load_tiny_imagenet(args.data))
    except DataError as e: sys.exit(f'run_preactivation: {e}')
    print(f'{len(left)} runs, {torch.get_num_threads()} threads', flush=True)
    for seed, r in left:
        record, _ = run_recipe(r, seed, sets)
        file = file_of(r, args.results)
        with locked(file.with_name(f'.{file.name}')): save_record(record, file)   # another part may save now
        print(f"{r.name}, seed {seed}: held-out {100*record['acc_last']:.2f} %, evaluation {100*record['test_acc']:.2f} %", flush=True)


if __name__ == '__main__': main()
