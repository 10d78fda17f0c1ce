"Run notebooks top to bottom in fresh kernels and save what comes out: `python tools/run_notebooks.py [--slow] [nbs/01_conv.ipynb …]`"
import argparse
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


def write_atomically(
    path, # the file to write
    text, # all of it
):
    "Write a file whole or not at all: a new file beside it, forced to disk, then renamed over it"
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(tmp, 'w', encoding='utf-8') as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        if path.exists(): tmp.chmod(path.stat().st_mode)
        os.replace(tmp, path)
    finally: tmp.unlink(missing_ok=True)


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
    clean = json.loads(nbformat.writes(nb))
    _nbdev_clean(clean)
    write_atomically(path, nb2str(clean))
    return time.time() - start


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('notebooks', nargs='*', type=Path, help='which ones; all of them, in order, if none is named')
    p.add_argument('--slow', action='store_true', help='run the `#| slow` cells too; without it they keep their saved outputs')
    p.add_argument('--timeout', type=int, help='seconds that one cell may take')
    args = p.parse_args()
    cfg = get_config()
    flags = frozenset() if args.slow else frozenset(cfg.tst_flags.split())
    # the kernels find this tree's slowai first, and draw as Jupyter draws
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(cfg.config_path), os.environ.get('PYTHONPATH')]))
    for k in 'MPLBACKEND', 'IN_TEST': os.environ.pop(k, None)
    # …and say nothing of themselves: no hint that ipywidgets is missing, no bars while something is fetched
    os.environ |= dict(JUPYTER_PREFER_ENV_PATH='1', HF_HUB_DISABLE_PROGRESS_BARS='1', TOKENIZERS_PARALLELISM='false',
                       PYTHONWARNINGS=','.join(filter(None, [os.environ.get('PYTHONWARNINGS'), 'ignore:IProgress not found'])))
    failed = []
    for nb in args.notebooks or sorted(nbglob(as_path=True)):
        try: print(f"{nb.name:32} {run(nb.absolute(), flags, args.timeout):7.1f} s", flush=True)
        except (CellExecutionError, DeadKernelError, TimeoutError) as e:
            failed.append(nb.name)
            print(f"{nb.name:32}  failed and left as it was\n{e}", file=sys.stderr, flush=True)
    if failed: sys.exit(f"failed: {', '.join(failed)}")


if __name__ == '__main__': main()
