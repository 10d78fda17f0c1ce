"""One of the long Tiny ImageNet runs, so that it may be stopped at any moment and started again: `python tools/run_tiny_imagenet.py post`

Goes on from its newest checkpoint if there is one, prints a line for each epoch, and writes its record to results/tiny_imagenet.json, where
nbs/04_tiny_imagenet_preact.ipynb finds it. A run that is finished is not run again. Ctrl-C, SIGTERM and even a power cut lose at most some
minutes; the weights at the end are the same to the last bit."""
import argparse
import sys
from pathlib import Path

import torch

from slowai.checkpoint import CheckpointCB
from slowai.checkpoint_files import read_checkpoint
from slowai.checks import DataError
from slowai.conv import default_device
from slowai.laboratory import init_by_fan_in
from slowai.norms import compare_norms
from slowai.records import device_name, git_commit, load_records, record_line, save_record
from slowai.runs import run_arm
from slowai.states import set_seed
from slowai.tiny_imagenet import load_tiny_imagenet
from slowai.tiny_imagenet_preact import get_imagenet_dls, get_model, preprocess_and_trivial_augment

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('arm', choices=['post', 'pre'], help='post- or pre-activation')
    p.add_argument('--width', type=float, default=.25, help='factor on all channels (default: %(default)s)')
    p.add_argument('--epochs', type=int, default=25, help='passes over the training images (default: %(default)s)')
    p.add_argument('--lr', type=float, default=.1, help='highest learning rate of the cycle (default: %(default)s)')
    p.add_argument('--bs', type=int, default=512, help='images a batch (default: %(default)s)')
    p.add_argument('--seed', type=int, default=0, help='of weights, order and augmentation (default: %(default)s)')
    p.add_argument('--init', choices=['kaiming'], help="where the weights start: 'kaiming' as the reference's did, the bare projections "
        'too; its record goes to tiny_imagenet_start.json beside the results (default: as the networks are built)')
    p.add_argument('--data', type=Path, help='folder of the pictures; left out: the usual places')
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='folder of the checkpoints (default: runs)')
    p.add_argument('--norms', type=Path, metavar='CHECKPOINT', help='train nothing: evaluate the weights in a '
        "checkpoint of this run with remembered, the batch's and newly measured statistics; to tiny_imagenet_norms.json beside the results")
    p.add_argument('--results', type=Path, default=ROOT/'results/tiny_imagenet.json', help='file of the records')
    args = p.parse_args()
    if args.init: args.results = args.results.with_name('tiny_imagenet_start.json')
    return args


def look_at_norms(args, name):
    "The weights in a checkpoint, evaluated with three kinds of statistics"
    state = read_checkpoint(args.norms)
    sets = load_tiny_imagenet(args.data)
    model = get_model(args.width, args.arm == 'pre', len(sets['train'].classes))
    try: model.load_state_dict(state['model'])
    except RuntimeError: raise ValueError(f'--norms: expected a checkpoint of {name}, got one of another network: {args.norms}') from None
    dls = get_imagenet_dls(args.bs, preprocess_and_trivial_augment, sets=sets, seed=args.seed)
    set_seed(args.seed)
    looks = compare_norms(model.to(device := default_device(), memory_format=torch.channels_last), dls)
    epochs = state['epoch'] + state['n_done']/len(dls['train'])
    record = dict(name=name, seed=args.seed, epochs=epochs, of=args.epochs, lr=args.lr, device=device_name(device),
        torch=torch.__version__, commit=git_commit(), **looks)
    save_record(record, args.results.with_name('tiny_imagenet_norms.json'))
    print(f'{name}, after {epochs:.1f} epochs: ' + ', '.join(f"{k} {100*v['acc']:.2f} %" for k,v in looks.items()))


def main():
    args = arguments()
    name = f'{args.arm}-activation, width {args.width:g}' + (f', {args.init} init' if args.init else '')
    key = name, args.seed, args.epochs, args.lr
    if args.norms:
        try: return look_at_norms(args, name)
        except (DataError, ValueError) as e: sys.exit(f'run_tiny_imagenet: {e}')
    done = [r for r in load_records(args.results) if (r['name'], r['seed'], r['epochs'], r['recipe']['lr']) == key]
    if done: return print(f"{name}: done already, {100*done[0]['acc_last']:.2f} %; its record is in {args.results}")
    folder = args.runs/f'tiny_imagenet-{args.arm}-width{args.width:g}-lr{args.lr:g}-epochs{args.epochs}-seed{args.seed}'
    if args.init: folder = folder.with_name(f'{folder.name}-{args.init}')
    print(f'{name}: {args.epochs} epochs, {torch.get_num_threads()} threads, checkpoints in {folder}', flush=True)
    try:
        record, _ = run_arm(args.arm == 'pre', args.width, args.lr, args.epochs, args.seed, load_tiny_imagenet(args.data), args.bs,
            [CheckpointCB(folder, monitor='MulticlassAccuracy')], init_by_fan_in if args.init else None, name=name, plot=False, resume=True)
    except (DataError, ValueError) as e: sys.exit(f'run_tiny_imagenet: {e}')
    save_record(record, args.results)
    print(f'{record_line(record)}\nwritten to {args.results}')


if __name__ == '__main__': main()
