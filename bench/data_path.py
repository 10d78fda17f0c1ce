"""Images per second of augmented, normalised Tiny ImageNet batches: ours, from the decoded file, a batch at a time; against `datasets` with
torchvision's PIL pipeline as its transform, and torchvision's ImageFolder with the same pipeline, each in a DataLoader with 2 workers.

Interleaved rounds on the same cores; start-up and what was fetched ahead don't count, for anybody. Also: the share of a training
step, of the quarter-width network, that the data take. `python bench/data_path.py` prints it and writes results/bench_data_path.json."""
import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path

import datasets
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from slowai.files import write_atomically
from slowai.hub import NotHereError
from slowai.records import device_name
from slowai.states import set_seed
from slowai.steps import has_fast_bf16
from slowai.tiny_imagenet import load_tiny_imagenet, mean_color, tiny_folder, tiny_mean, tiny_std
from slowai.tiny_imagenet_preact import get_imagenet_dls, get_model, preprocess_and_trivial_augment

OUT = Path(__file__).resolve().parent.parent/'results/bench_data_path.json'
BS, WORKERS = 512, 2
PIPELINE = T.Compose([T.RandomCrop(64, 4, fill=mean_color), T.RandomHorizontalFlip(), T.TrivialAugmentWide(fill=mean_color), T.ToTensor(),
    T.Normalize(tiny_mean, tiny_std)])


def transform(batch):
    "What `datasets` calls, once a fetch"
    return {'image': [PIPELINE(o.convert('RGB')) for o in batch['image']], 'label': batch['label']}


def table(files, folder):
    "The training pictures through `datasets`"
    return datasets.load_dataset('parquet', data_files=[str(f) for f in files['train']], split='train', cache_dir=str(folder))


def picture_folder(ds, folder):
    "The pictures of `ds` as JPEG files, a folder for each class, through ImageFolder"
    for i, o in enumerate(ds.cast_column('image', datasets.Image(decode=False))):
        d = folder/'pictures'/f"{o['label']:03}"
        d.mkdir(parents=True, exist_ok=True)
        (d/f'{i}.JPEG').write_bytes(o['image']['bytes'])
    return ImageFolder(folder/'pictures', PIPELINE)


def endless(loader):
    "Batches without an end"
    while True: yield from loader


def images_per_second(batches, n):
    "Speed over `n` batches with everybody else's workers at rest, after those that lay ready"
    time.sleep(2)   # until all workers have filled their queues
    for _ in islice(batches, 2*WORKERS + 2): pass
    start, seen = time.perf_counter(), 0
    for b in islice(batches, n): seen += len(b['image'] if isinstance(b, dict) else b[0])
    return seen/(time.perf_counter() - start)


def share_of_step(dls, n):
    "Seconds that the data and the rest of a training step take: medians over `n` steps"
    model = get_model(.25, n_outputs=len(dls.classes)).to(memory_format=torch.channels_last)
    opt, batches, bf16, times = torch.optim.AdamW(model.parameters()), endless(dls['train']), has_fast_bf16('cpu'), []
    for _ in range(n + 1):
        t0 = time.perf_counter()
        x, y = next(batches)
        t1 = time.perf_counter()
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16): loss = F.cross_entropy(model(x), y)
        loss.backward(); opt.step(); opt.zero_grad()
        times.append((t1 - t0, time.perf_counter() - t1))
    return tuple(statistics.median(o) for o in zip(*times[1:], strict=True))


def spread(values):
    "Median, least and greatest"
    return dict(median=statistics.median(values), min=min(values), max=max(values))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--rounds', type=int, default=15, help='measurements of each path')
    p.add_argument('--batches', type=int, default=16, help='batches a measurement')
    p.add_argument('--steps', type=int, default=5, help='training steps for the share')
    p.add_argument('--data', type=Path, help='folder of parquet files; left out: tiny-imagenet in $SLOWAI_DATA')
    p.add_argument('--out', type=Path, default=OUT, help='where the numbers go')
    args = p.parse_args()
    data = args.data or Path(os.environ.get('SLOWAI_DATA', '.'))/'tiny-imagenet'
    try: files = tiny_folder(data)[1]
    except NotHereError as e: files = print(f'nothing measured: {e}')
    if not files: return
    set_seed(0); datasets.disable_progress_bars()
    dls = get_imagenet_dls(BS, preprocess_and_trivial_augment, sets=load_tiny_imagenet(data), device='cpu')
    with tempfile.TemporaryDirectory() as d, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        kw = dict(batch_size=BS, shuffle=True, num_workers=WORKERS, persistent_workers=True)
        ds = table(files, d)
        paths = dict(ours=endless(dls['train']), datasets=endless(DataLoader(ds.with_transform(transform), **kw)),
            image_folder=endless(DataLoader(picture_folder(ds, Path(d)), **kw)))
        speeds = {k: [] for k in paths}
        for i in range(args.rounds):
            for k in list(paths)[::1 if i % 2 else -1]:
                speeds[k].append(images_per_second(paths[k], args.batches*(8 if k == 'ours' else 1)))
        del paths
    data_s, step_s = share_of_step(dls, args.steps)
    times = {f'times_{k}': spread([a/b for a, b in zip(speeds['ours'], v, strict=True)]) for k, v in speeds.items() if k != 'ours'}
    result = dict(device=device_name('cpu'), torch=torch.__version__, rounds=args.rounds, batch=BS,
        images_per_second={k: spread(v) for k, v in speeds.items()}, **times,
        data_ms=1e3*data_s, rest_of_step_ms=1e3*step_s, share_of_step=data_s/(data_s + step_s))
    for k, v in result.items(): print(f'{k}: {v}')
    write_atomically(args.out, json.dumps(result, indent=1) + '\n')


if __name__ == '__main__': main()
