"""Run notebooks top to bottom in fresh kernels and save what comes out: `python tools/run_notebooks.py [--slow] [nbs/01_conv.ipynb …]`

How long each took goes to results/bench_pages.json, from which the site tells its readers; `--no-record` leaves that file alone."""
import argparse
import base64
import io
import json
import os
import sys
import time
from pathlib import Path

import nbformat
from execnb.nbio import nb2str
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbdev.clean import _nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.process import extract_directives
from PIL import Image

from slowai.files import write_atomically


def skipped(
    cell, # a cell of a notebook
    flags, # the names of the directives that keep a cell from running
):
    "Whether `cell` is left as it is: nbdev_test's own rule"
    if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: return True
    d = extract_directives(cell, remove=False) or {}
    return (d.get('eval:') or [''])[0].lower() == 'false' or bool(flags & d.keys())


class Runner(NotebookClient):
    "A notebook client that passes over skipped cells and leaves them the outputs they were saved with"
    flags = frozenset()

    async def async_execute_cell(self, cell, cell_index, **kw):
        return cell if skipped(cell, self.flags) else await super().async_execute_cell(cell, cell_index, **kw)


def lighten(
    nb, # a notebook; its outputs are changed
):
    "Store drawings, which have few colours, with a palette: a third of the bytes. Photographs stay as they are"
    for o in (o for c in nb['cells'] for o in c.get('outputs', []) if 'image/png' in o.get('data', {})):
        image, buf = Image.open(io.BytesIO(base64.b64decode(o['data']['image/png']))), io.BytesIO()
        if image.mode == 'P' or image.convert('RGBA').getextrema()[3][0] < 255 or not image.getcolors(8192): continue
        image.convert('RGB').quantize(256, dither=Image.Dither.NONE).save(buf, 'png', optimize=True)
        o['data']['image/png'] = base64.b64encode(buf.getvalue()).decode()


def run(
    path, # a notebook
    flags=frozenset(), # directives whose cells do not run
    timeout=None, # seconds a cell may take; None: as long as it likes
):
    "Run one notebook, clean it as nbdev_clean does and save it; a notebook that fails is not touched. Returns the seconds it took"
    nb, start = nbformat.read(path, 4), time.time()
    client = Runner(nb, timeout=timeout, kernel_name='python3', record_timing=False, coalesce_streams=True,
                    extra_arguments=['--IPKernelApp.log_level=40'],
                    resources=dict(metadata=dict(path=str(path.parent))))
    client.flags = flags
    client.execute()
    lighten(nb)
    clean = json.loads(nbformat.writes(nb))
    _nbdev_clean(clean)
    write_atomically(path, nb2str(clean))
    return time.time() - start


def circumstances():
    "What decides how long a page takes: the device that torch would take, and how many cores it may use"
    import torch
    gpu = torch.accelerator.current_accelerator(check_available=True)
    name = 'cpu' if gpu is None else torch.cuda.get_device_name() if gpu.type == 'cuda' else gpu.type
    return dict(device=name, cores=torch.get_num_threads())


def record(
    path, # the file of records; made if it is not there
    page, # the notebook's name
    seconds, # how long it took
    slow, # did its `#| slow` cells run?
    where, # device and cores, as `circumstances` gives them
    pages, # the names of all notebooks that there are; records of others go
):
    "Write down how long a page took, in place of its former run under the same circumstances"
    key = dict(page=page, slow=slow, **where)
    old = json.loads(path.read_text(encoding='utf-8')) if path.exists() else []
    rows = [r for r in old if r['page'] in pages and any(r[k] != v for k, v in key.items())] + [key | dict(seconds=round(seconds, 1))]
    rows.sort(key=lambda r: (r['page'], r['device'], r['cores'], r['slow']))
    write_atomically(path, '[\n' + ',\n'.join(json.dumps(r) for r in rows) + '\n]\n')


def has_slow_cells(
    path, # a notebook
):
    "Whether a notebook has cells that only `--slow` runs"
    return any('slow' in (extract_directives(c, remove=False) or {}) for c in nbformat.read(path, 4).cells if c.cell_type == 'code')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', type=Path, help='which ones; all of them, in order, if none is named')
    p.add_argument('--slow', action='store_true', help='run the `#| slow` cells too; without it they keep their saved outputs')
    p.add_argument('--timeout', type=int, help='seconds that one cell may take')
    p.add_argument('--no-record', action='store_true', help='do not write down how long each took')
    args = p.parse_args()
    cfg = get_config()
    where = None if args.no_record else circumstances()
    flags = frozenset() if args.slow else frozenset(cfg.tst_flags.split())
    # the kernels find this tree's slowai first, and draw as Jupyter draws
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(cfg.config_path), os.environ.get('PYTHONPATH')]))
    for k in 'MPLBACKEND', 'IN_TEST': os.environ.pop(k, None)
    # …and say nothing of themselves: no hint that ipywidgets is missing, no bars while something is fetched
    os.environ |= dict(JUPYTER_PREFER_ENV_PATH='1', HF_HUB_DISABLE_PROGRESS_BARS='1', TOKENIZERS_PARALLELISM='false',
                       PYTHONWARNINGS=','.join(filter(None, [os.environ.get('PYTHONWARNINGS'), 'ignore:IProgress not found'])))
    failed, pages = [], {o.name for o in nbglob(as_path=True)}
    for nb in args.notebooks or sorted(nbglob(as_path=True)):
        try:
            seconds = run(nb.absolute(), flags, args.timeout)
            print(f"{nb.name:32} {seconds:7.1f} s", flush=True)
            slow = args.slow and has_slow_cells(nb)
            if where: record(cfg.config_path/'results/bench_pages.json', nb.name, seconds, slow, where, pages)
        except (CellExecutionError, DeadKernelError, TimeoutError) as e:
            failed.append(nb.name)
            print(f"{nb.name:32}  failed and left as it was\n{e}", file=sys.stderr, flush=True)
    if failed: sys.exit(f"failed: {', '.join(failed)}")


if __name__ == '__main__': main()
