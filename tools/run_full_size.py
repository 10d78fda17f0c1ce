"""The question of nbs/05a_seventeen.ipynb at full size, on a GPU: `python tools/run_full_size.py [--minutes 25]`

Runs the list of that page in its order, the most telling first: all channels, 64×64, 25 epochs. What is finished is in
results/preact_full_size.json and is not run again; a run that would end after `--minutes`, by an estimate corrected by the runs before it,
is left for the next call. `--estimate` prints what each would take and runs nothing. `--try` goes the whole way in a minute on a CPU: an
eighth of the width, one epoch, a few pictures; its records say nothing, and want a `--results` of their own."""
import argparse
import sys
import time
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from slowai.checks import DataError
from slowai.files import locked
from slowai.laboratory import arena, run_recipe
from slowai.records import load_records, save_record
from slowai.seventeen import full_size, gpu_minutes
from slowai.tiny_imagenet import load_tiny_imagenet, tiny_imagenet_or_shapes
from slowai.tiny_imagenet_preact import preprocess_and_trivial_augment

RESULTS = Path(__file__).resolve().parent.parent/'results/preact_full_size.json'


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=25, help='start no run that would end later (default: %(default)s)')
    p.add_argument('--seed', type=int, default=0, help='of weights, order and augmentation (default: %(default)s)')
    p.add_argument('--only', nargs='+', default=['*'], metavar='NAME', help="names or patterns, such as 'post*' (default: all)")
    p.add_argument('--estimate', action='store_true', help='print the list with its estimates, and run nothing')
    p.add_argument('--try', dest='small', action='store_true', help='at a tiny size, to see that it runs')
    p.add_argument('--data', type=Path, help='folder of the pictures; left out: the usual places')
    p.add_argument('--results', type=Path, help=f'file of the records (default: results/{RESULTS.name})')
    args = p.parse_args()
    if args.small and not args.results: p.error('--try: give its records a file with --results; they are no results')
    args.results = args.results or RESULTS
    return args


def todo(args):
    "The recipes that were asked for, at the size that was asked for, and whether each is finished"
    asked = [r for r in full_size if any(fnmatch(r.name, o) for o in args.only)]
    if not asked: sys.exit(f"run_full_size: --only: {args.only} is none of {', '.join(r.name for r in full_size)}")
    if args.small: asked = [replace(r, width=.125, epochs=1, bs=16) for r in asked]
    done = {(o['name'], o['seed']) for o in load_records(args.results)}
    return [(r, (r.name, args.seed) in done) for r in asked]


def pictures(args):
    "Training, held-out and evaluation images at 64×64"
    if args.small: return {k: v.subset(slice(32)) for k,v in arena(tiny_imagenet_or_shapes(args.data), 2, 1, k=1).items()}
    return arena(load_tiny_imagenet(args.data), 475, 25, k=1)


def show_estimate(runs):
    total = 0.
    for r,done in runs:
        total += (m := gpu_minutes(r))
        print(f"{m:6.1f} min {total:7.1f} in all  {r.precision}  {r.name}{' (done)' if done else ''}")
    print('By multiply-adds, at an assumed speed of one H100-class GPU. Not measured.')


def main():
    args = arguments()
    runs = todo(args)
    if args.estimate: return show_estimate(runs)
    if not args.small and not torch.cuda.is_available():
        sys.exit('run_full_size: no GPU is here, and on a CPU this takes weeks; --try runs the same at a tiny size')
    left = [r for r,done in runs if not done]
    try: sets = pictures(args)
    except DataError as e: sys.exit(f'run_full_size: {e}')
    begun, estimated = time.monotonic(), 0.
    for i,r in enumerate(left):
        spent, m = (time.monotonic() - begun)/60, 0. if args.small else gpu_minutes(r)
        if spent + m*(spent/estimated if estimated else 1) > args.minutes:
            print(f'{len(left) - i} runs are left for the next call: ' + '; '.join(o.name for o in left[i:]))
            break
        record, _ = run_recipe(r, args.seed, sets, augment=preprocess_and_trivial_augment)
        with locked(args.results.with_name(f'.{args.results.name}')): save_record(record, args.results)   # another GPU may save now
        estimated += m
        print(f"{r.name}: held-out {100*record['acc_last']:.2f} %, evaluation {100*record['test_acc']:.2f} %", flush=True)
    else: print(f'All {len(runs)} runs are finished.')


if __name__ == '__main__': main()
