"""The runs of nbs/13_recipes.ipynb: `python tools/run_records.py trials|ladder|records|seconds|pace [--only PATTERN …] [--seeds 0 1 2]`

- trials    what is tried before a recipe is settled, on images held out of the training set, in the order in which it would tell most
- ladder    the ingredients of a recipe added one by one and left out one by one, on the same images
- records   the recipes themselves: all training images, and one look at the evaluation images at the end
- seconds   the sprints against the plain recipe, in turn: the steps that each needs
- pace      what a step of them takes, in turn; on an idle machine

One run after the other. What is finished is in results/ and is not run again; a run that was stopped (Ctrl-C, SIGTERM, a power cut) goes on
from its newest checkpoint. `--estimate` prints the list, with what each would take and why it is there, and runs nothing."""
import argparse
import json
import sys
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from slowai.checkpoint import CheckpointCB
from slowai.checks import DataError
from slowai.conv import default_device
from slowai.files import locked
from slowai.recipes import RECIPES, Speedrun, ladder, pace, race, reference, reference_4, run_speedrun, tasks, tiny_5, without
from slowai.records import load_records, save_record

ROOT = Path(__file__).resolve().parent.parent


def stacks(*nfs, blocks=None, p_drop=0.):
    return dict(net='stacks', args=dict(nfs=nfs, n_blocks=blocks or (1,)*(len(nfs) - 1), p_drop=p_drop))


# The guesses that the trials began with; what they have led to is in `RECIPES`
f3 = Speedrun('first fashion_3', 'fashion_mnist', budget=36, goal=.932, epochs=3, **stacks(24, 64, 128, 256), bs=256, warmup=.2,
    anneal='linear', decay=.05, decay_all=False, smoothing=.1, refresh=40, augment='flip', alternate=True)
small = replace(f3, name='first fashion_small', goal=.92, most_params=110_156, smoothing=.05, bs=128, **stacks(24, 40, 48, blocks=(2, 1)))
f5 = replace(f3, name='first fashion_5', budget=60, goal=.94, epochs=5, **stacks(24, 64, 128, 256, p_drop=.1))
f20 = replace(f3, name='first fashion_20', budget=120, goal=.952, epochs=20, augment='erase', ema=.998,
    **stacks(16, 40, 96, 192, p_drop=.2))
s90 = replace(f3, name='first sprint_90', budget=4, goal=.90, epochs=2, net='cnn', args=dict(nfs=(32, 64, 128, 256)), opt='Muon', bs=128,
    augment='none', alternate=False, smoothing=0.)
s915 = replace(s90, name='first sprint_915', goal=.915, net='deeper', args=dict(nfs=(16, 32, 64, 128, 256)))
t5 = replace(tiny_5, name='first tiny_5', **stacks(16, 32, 64, 160, 320, 640, p_drop=.1))
r20 = RECIPES['fashion_20']
tiny = RECIPES['first_tiny_25']

plain = dict(opt='Muon', augment='none', alternate=False)   # what the first trials have led to

# Recipe, what is changed, and why it should be tried or what is expected of it
PLAN = [
    (f3, {}, 'the guess; 92.6 to 93.0 % are expected'),
    (f3, dict(opt='Muon'), 'what speedruns on small pictures are made of: expected 0.2 points better'),
    (f3, dict(opt='Muon', lr=2e-2), 'twice the rate: the peak of an edge is no peak'),
    (f3, plain, 'no mirrors, no shifts: three looks at a picture are few'),
    (f3, dict(**plain, lr=2e-2), 'without mirrors, twice the rate'),
    (f3, dict(**plain, lr=5e-3), 'without mirrors, half the rate'),
    (f3, dict(**plain, smoothing=.05), 'without mirrors, half the smoothing: expected level'),
    (f3, dict(**plain, sizes={0: 20, .3: None}, **stacks(24, 72, 144, 272)),
        'without mirrors, a cheap first epoch, and wider for it: expected 0.1 points better'),
    (f3, dict(**plain, zero_init=True), 'without mirrors, an easier start: expected 0.1 points better'),
    (f3, dict(**plain, decay=.01), 'without mirrors, the plain decay: expected level'),
    (f3, dict(**plain, bs=128), 'without mirrors, twice the steps'),
    (f3, dict(opt='Muon', augment='none'), 'mirrors by turns, but no shifts: which of the two is it that costs?'),
    (f3, dict(**plain, ema=.98), 'without mirrors, the mean of fifty steps: expected to change nothing'),
    (f3, dict(**plain, **stacks(20, 40, 80, 160, blocks=(2, 1, 1))), 'without mirrors, narrower, and a second block on the full map'),
    (f3, dict(**plain, bs=128, **stacks(24, 44, 88, 176, blocks=(2, 1, 1))),
        'without mirrors, the two that were best together, as wide as fits: expected 0.2 points better than either'),
    (f3, dict(opt='Muon', augment='none', bs=128, **stacks(24, 44, 88, 176, blocks=(2, 1, 1))),
        'the same with mirrors: expected level, and better with the mirror image'),
    (f3, dict(lr=5e-3), 'half the rate'),
    (f3, dict(lr=2e-2), 'twice the rate: the peak of an edge is no peak'),
    (f3, dict(zero_init=True), 'an easier start, and three epochs are mostly start: expected 0.1 points better'),
    (f3, dict(sizes={0: 20, .3: None}, **stacks(24, 72, 144, 272)), 'a cheap first epoch, and wider for it: expected 0.1 points better'),
    (f3, dict(bs=512), 'the plain batch: half the steps, expected 0.2 points worse'),
    (f3, dict(bs=128, lr=7e-3), 'twice the steps; slower on a CPU, expected level'),
    (f3, dict(smoothing=.05), 'half the smoothing, expected level'),
    (f3, dict(mix='mixup', alpha=.2), 'fits the training images less, of which there is no danger yet: expected 0.3 points worse'),
    (f3, dict(opt='SGD', lr=.4, decay=5e-4), 'Nesterov momentum at the usual rate of batches of 256: expected 0.3 points worse'),
    (f3, stacks(16, 32, 64, 128, blocks=(2, 2, 2)), 'deep and narrow for the same work: expected worse in so few steps'),
    (f3, dict(net='residual', args=dict(nfs=(22, 44, 88, 176, 352))),
        "the residual page's own network, as wide as fits: its end is a block, not an average"),
    (f3, dict(ema=.98), 'the mean of fifty steps after a rate that goes to nothing: expected to change nothing'),
    (small, {}, 'two blocks on full-size maps; 91.8 to 92.3 % are expected'),
    (small, plain, 'what the wide network has gained by it: expected 0.3 points better'),
    (small, dict(**plain, lr=2e-2), 'small networks bear higher rates'),
    (small, stacks(16, 32, 48, 48), 'half the work, one more stack: expected 0.4 points worse'),
    (small, stacks(16, 32, 44, blocks=(2, 2)), 'deeper and narrower: expected level'),
    (small, dict(lr=2e-2), 'small networks bear higher rates'),
    (s90, {}, 'two epochs of a network without skips; 90.3 to 90.8 % are expected'),
    (s90, dict(epochs=1), 'one epoch: half the time, if it gets there'),
    (s90, dict(epochs=1, lr=2e-2, warmup=.1, ema=.97), 'twice the rate, and the average is looked at'),
    (s90, dict(epochs=1, bs=256, lr=2e-2, ema=.97), 'the same in half as many steps: sooner, if it gets there'),
    (s90, dict(bs=512, lr=4e-2, warmup=.1, ema=.9), 'two epochs in large steps, four times the rate'),
    (s915, {}, '91.3 to 91.8 % are expected'),
    (s915, dict(bs=256, lr=2e-2), 'half the steps and twice the rate: sooner at the same place'),
    (s915, dict(bs=256, lr=2e-2, warmup=.1, ema=.97), 'the average is looked at'),
    (s915, dict(bs=256, lr=2e-2, warmup=.1, ema=.97, args=dict(nfs=(16, 32, 64, 128, 128))), 'half the end, of which Muon makes much work'),
    (s915, dict(bs=256, lr=2e-2, warmup=.1, ema=.97, args=dict(nfs=(8, 32, 64, 128, 256))), 'half the channels at full size'),
    (s915, dict(bs=512, lr=4e-2, warmup=.1), 'a quarter of the steps and four times the rate'),
    (s915, dict(bs=256, lr=2e-2, warmup=.1, ema=.97, smoothing=.05), 'half the usual smoothing: surer of 91.5 %'),
    (s915, dict(bs=256, lr=3e-2, warmup=.1, ema=.97), 'half again the rate: sooner at 90 %'),
    (s915, dict(bs=256, lr=2e-2, warmup=.1, ema=.97, smoothing=.05, sizes={0: 20, .5: None}),
        'the first of two epochs on small pictures: half its time, expected level'),
    (s915, dict(bs=256, lr=2e-2, warmup=.3, ema=.97, smoothing=.05, args=dict(nfs=(16, 32, 96, 192, 128))),
        'wider in the middle and half the end, of which Muon makes much work; a longer warm-up: expected level, and sooner'),
    (s915, dict(epochs=3, bs=256, lr=3e-2, warmup=.2, ema=.97, smoothing=.05, args=dict(nfs=(16, 32, 96, 192, 128))),
        'the same in three epochs: surely there, and not much later'),
    (s915, dict(epochs=3, bs=256, lr=3e-2, warmup=.15, ema=.985, smoothing=.05, args=dict(nfs=(16, 32, 96, 192, 128))),
        'twice the memory of the average, with a high rate for longer: expected sooner'),
    (s915, dict(epochs=1, bs=256, lr=2e-2, warmup=.1, ema=.97, smoothing=.05, **stacks(8, 24, 64, 160)),
        'one epoch of stacks with skips, more work for a picture: there at once, if at all'),
    (s915, dict(epochs=1, bs=256, lr=2e-2, warmup=.1, ema=.97), 'one epoch: half the time, if it gets there'),
    (f5, {}, '93.4 to 93.8 % are expected'),
    (f5, dict(opt='Muon'), 'expected 0.1 points better'),
    (f5, plain, 'are five looks few, too? Expected 0.2 points better than with mirrors and shifts'),
    (f5, dict(opt='Muon', augment='none'), 'mirrors by turns, but no shifts: expected better than either'),
    (f5, dict(opt='Muon', augment='none', bs=128, **stacks(24, 44, 88, 176, blocks=(2, 1, 1), p_drop=.1)),
        'what three epochs have taught, with mirrors: 94.2 % are expected'),
    (f5, dict(augment='erase'), 'rectangles as well: expected 0.1 points worse in five epochs'),
    (f20, {}, '94.6 to 95.0 % are expected'),
    (f20, dict(opt='Muon'), 'expected level: twenty epochs are enough for AdamW'),
    (f20, dict(opt='Muon', augment='flip'), 'Muon without rectangles'),
    (f20, dict(opt='Muon', augment='none'), 'Muon with mirrors only: twenty looks at the same picture are many'),
    *((f20, dict(opt='Muon', augment=o, bs=128, **stacks(16, 32, 64, 128, blocks=(2, 1, 1), p_drop=.2)), why)
        for o, why in (('flip', 'what three epochs have taught, with mirrors and shifts: 95 % are expected'),
            ('none', 'the same with mirrors only: expected 0.3 points worse'), ('erase', 'the same with rectangles, too: expected level'))),
    (f20, dict(opt='Muon', augment='flip', bs=128, sizes={0: 20, .2: None}, **stacks(16, 24, 48, 96, blocks=(3, 2, 1), p_drop=.1)),
        'mirrors and shifts, deeper and narrower, on small pictures first: expected 0.2 points better'),
    (f20, dict(opt='Muon', augment='none', bs=128, mix='mixup', alpha=.2, **stacks(16, 32, 64, 128, blocks=(2, 1, 1), p_drop=.2)),
        'mirrors only, and pictures mixed a little instead of moved: expected 0.2 points better'),
    (f20, dict(opt='Muon', augment='flip', bs=128, sizes={0: 16, .35: 22, .65: None},
        **stacks(20, 40, 80, 160, blocks=(2, 1, 1), p_drop=.2)),
        'half again the work for a picture, paid for by small pictures first: expected 0.2 points better'),
    (f20, dict(opt='Muon', augment='erase', bs=128, lr=5e-3, **stacks(16, 32, 64, 128, blocks=(2, 1, 1), p_drop=.1)),
        'rectangles in place of half the dropout, and half the rate: expected 0.2 points better'),
    (f20, dict(mix='cutmix', augment='flip'), 'rectangles of other clothes in place of gray ones: expected 0.1 points better'),
    (f20, dict(sizes={0: 20, .3: 24, .6: None}, **stacks(24, 48, 96, 192, p_drop=.2)), 'half again as wide, on small pictures first'),
    (f20, dict(augment='flip'), 'whether rectangles are worth anything in twenty epochs: expected 0.3 points worse without'),
    (r20, dict(budget=None, **stacks(24, 44, 88, 176, blocks=(2, 1, 1), p_drop=.2)),
        'twice the work, against the rules: is it work that is missing? Expected 0.3 points better'),
    (r20, dict(budget=None, augment='erase', **stacks(24, 44, 88, 176, blocks=(2, 1, 1), p_drop=.2)),
        'twice the work, against the rules, and rectangles: if anything can reach the goal it should be this'),
    (r20, dict(budget=60, **stacks(12, 22, 48, 80, blocks=(2, 1, 1), p_drop=.1)),
        'half the work, so that two of them, asked together, keep to the budget: expected 0.3 points worse alone'),
    (r20, dict(budget=None, **stacks(16, 32, 64, 160, blocks=(1, 2, 1), p_drop=.2)),
        'the second block where the map is halved, a little over the budget: expected 0.1 points better'),
    (f20, dict(ema=None), 'whether the average is: expected 0.1 points worse without'),
    (f20, dict(lr=5e-3), 'half the rate'),
    (t5, {}, 'the long one in small, to choose by, with what the clothes have taught'),
    (tiny_5, {}, 'fewer channels on the largest maps, more in the middle: expected a point better'),
    (tiny_5, dict(opt='AdamW'), 'expected a point worse after 5 epochs'),
    (tiny_5, dict(bs=128), 'twice the steps: expected half a point better'),
    (tiny_5, dict(lr=5e-3), 'half the rate'),
    (tiny_5, dict(lr=2e-2), 'twice the rate'),
    (tiny_5, dict(augment='trivial'), 'expected worse after 5 epochs; after 25 it may not be, so within a point it is run again, long'),
    (tiny_5, dict(sizes=None, **stacks(12, 24, 48, 112, 256, 512, p_drop=.1)), 'large pictures from the start, narrower: two points worse'),
    (tiny_5, dict(mix='cutmix', alpha=1.), 'expected worse after 5 epochs, and level after 25'),
    (tiny_5, dict(zero_init=True), 'expected level'),
    (tiny, {}, 'the twin of the record on held-out images; 56 to 58 % are expected'),
    (tiny, dict(augment='trivial'), 'the twin knew its own pictures by heart: expected two points better'),
    (tiny, dict(mix='cutmix', alpha=1.), 'another remedy for the same: expected two points better'),
]


def trial(r, change):
    "The recipe with its change, and a name that says so"
    said = ', '.join(f"{k} {v if not isinstance(v, dict) else ' '.join(map(str, v.values()))}" for k, v in change.items())
    return replace(r, name=f'{r.name}: {said}' if said else r.name, **change)


def jobs(kind):
    "Recipe, why, and the file of its records, for every run of a kind"
    trials = 'records_trials.json'
    if kind == 'trials': return [(trial(r, change), why, trials) for r, change, why in PLAN]
    tops = RECIPES['fashion_3'], tiny_5
    if kind == 'ladder': return [(o, 'a rung of the ladder', trials) for r in tops for o in (*ladder(r), *without(r))]
    if kind == 'records':
        return [(r, 'record', f'records_{r.name}.json') for r in RECIPES.values() if r.name.startswith(('fashion', 'tiny', 'first'))]
    return [(r, 'race', 'records_seconds.json') for r in (RECIPES['sprint_90'], RECIPES['sprint_915'], reference, reference_4)]


def measure_pace(args):
    "Seconds a step of the sprints and of the plain recipe"
    if args.estimate or args.only != ['*']:
        sys.exit('run_records: pace: it takes no --only and no --estimate; it measures all of its recipes together, in some minutes')
    rs = [RECIPES['sprint_90'], RECIPES['sprint_915'], reference]
    found = pace(rs, sets=tasks[reference.data]['load'](*[args.data] if args.data else []))
    device = f"{default_device()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    for name,s in found.items():
        write(dict(name=name, seed=0, epochs=1, seconds_a_step=s, device=device), args.results/'bench_pace.json')
        print(f'{name}: {1e3*min(s):.0f} to {1e3*max(s):.0f} ms a step')


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('kind', choices=['trials', 'ladder', 'records', 'seconds', 'pace'])
    p.add_argument('--only', nargs='+', default=['*'], metavar='NAME', help="names or patterns, such as 'fashion_3*' (default: all)")
    p.add_argument('--seeds', type=int, nargs='+', default=[0], help='of weights, order and augmentation (default: 0)')
    p.add_argument('--estimate', action='store_true', help='print the list with what each would take, and run nothing')
    p.add_argument('--data', type=Path, help='folder of the pictures; left out: the usual places')
    p.add_argument('--runs', type=Path, default=ROOT/'runs/records', help='folder of the checkpoints (default: runs/records)')
    p.add_argument('--results', type=Path, default=ROOT/'results', help='folder of the records (default: results)')
    return p.parse_args()


def is_done(r, seed, file):
    "Is there a record of this run? One of another recipe under the same name ends the program"
    found = [o for o in load_records(file) if (o['name'], o['seed']) == (r.name, seed)]
    now = json.loads(json.dumps(asdict(r)))
    differ = [k for o in found for k, v in now.items() if k != 'name' and o['recipe'].get(k, v) != v]
    if differ: sys.exit(f'run_records: {file} has a record of {r.name!r} with another {differ[0]}; give the new recipe a name of its own')
    return bool(found)


def todo(args):
    "Seed, recipe, why and file of what was asked for, and whether it is done"
    asked = [o for o in jobs(args.kind) if any(fnmatch(o[0].name, p) for p in args.only)]
    if not asked: sys.exit(f"run_records: --only: {args.only} is none of {', '.join(o[0].name for o in jobs(args.kind))}")
    return [(s, r, why, args.results/file, is_done(r, s, args.results/file)) for s in args.seeds for r, why, file in asked]


def speed():
    "Multiply-adds a second: what the long runs on two cores with bf16 have reached"
    return max(3e6*o['mmacs']*o['images_per_second'] for o in load_records(ROOT/'results/tiny_imagenet.json'))


def show_estimate(args, runs):
    total = 0.
    for seed, r, why, _, done in runs:
        task = tasks[r.data]
        n = task['n'] if args.kind == 'records' else round(task['n']*(1 - task['held']))
        total += 0 if done else (m := r.work(n)/speed()/60)
        print(f"{'done' if done else f'{m:5.0f} min'} {total:6.0f} in all {r.work(n)/1e12:7.1f} T  seed {seed}  {r.name} · {why}")
    print('By multiply-adds, at the speed of the long runs on two cores with bf16. Without it, four times as long.')


def write(record, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f'.{file.name}')): save_record(record, file)   # another process may save now


def save(record, file):
    write(record, file)
    print(f"{record['name']}, seed {record['seed']}: {100*record['acc_last']:.2f} %, {100*record['acc_tta']:.2f} % with the mirror image, "
          f"on {record['evaluated_on']}, {record['macs']/1e12:.1f} T, {record['hours']:.2f} h", flush=True)


def run_one(args, r, seed, sets, final):
    folder = args.runs/f"{'final' if final else 'held'}-{''.join(c if c.isalnum() else '_' for c in r.name)}-seed{seed}"
    print(f'{r.name}, seed {seed}: {torch.get_num_threads()} threads, checkpoints in {folder}', flush=True)
    return run_speedrun(r, seed, sets, final, [CheckpointCB(folder, monitor=None)], resume=True).record


def main():
    args = arguments()
    try:
        if args.kind == 'pace': return measure_pace(args)
    except DataError as e: sys.exit(f'run_records: {e}')
    runs, loaded = todo(args), {}
    if args.estimate: return show_estimate(args, runs)
    def sets(r):
        if r.data not in loaded: loaded[r.data] = tasks[r.data]['load'](*[args.data] if args.data else [])
        return loaded[r.data]
    try:
        if args.kind == 'seconds':
            for seed in args.seeds:
                left = [o for o in runs if o[0] == seed and not o[4]]
                # in turn and in one process, so that the plain recipe meets the same machine
                rs = [r for _, r, *_ in left]
                if not rs: continue
                rs += [o for o in (reference, reference_4) if o not in rs]
                for rec in race(rs, (.9, .915), seed, sets(rs[0])): save(rec | dict(why='race'), args.results/'records_seconds.json')
            return
        for seed, r, why, file, done in runs:
            if not done: save(run_one(args, r, seed, sets(r), args.kind == 'records') | dict(why=why), file)
    except (DataError, ValueError) as e: sys.exit(f'run_records: {e}')
    print(f'All {len(runs)} runs are finished.')


if __name__ == '__main__': main()
