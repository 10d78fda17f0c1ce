"""The same faults in slowai, fastai and Lightning, each in a process of its own:
`python bench/faults/run.py --others PYTHON [--only FAULT …]`

PYTHON is an interpreter with fastai==2.8.12 and lightning==2.6.6. Writes results/bench_faults.json: what was observed, in words.
The full disk is a small tmpfs, which only root can mount; without it that row is left as it was."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent/'results/bench_faults.json'
FAULTS = dict(
    kill='kill -9 in mid-epoch, then go on', term='SIGTERM in mid-epoch, then go on', truncated='the checkpoint is cut in half',
    disk_full='the disk is full while saving', hostile='a pickle that runs code', nan='a NaN in one picture', label='a label out of range',
    one_image='a last batch of one image, under BatchNorm', lr_find='lr_find', lr_find_fails='lr_find, an exception in its fifth batch',
    callback='an exception in a callback', even_kernel='a kernel of even size', bs_zero='batch size 0',
    device="device 'cuda:99' on this machine")


def observe(python, framework, fault, work):
    "What one case says in a fresh process"
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg', 'PYTHONWARNINGS': 'ignore'}
    r = subprocess.run([python, str(HERE/f'{framework}_case.py'), fault, str(work)], capture_output=True, text=True, env=env, cwd=work,
        timeout=500)
    try: got = json.loads(r.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise SystemExit(f'{framework} {fault}: no observation\n{r.stdout[-2000:]}\n{r.stderr[-4000:]}') from None
    return dict(fault=FAULTS[fault], framework=framework, version=got['version'], what_happened=tidy(got['what_happened'], work))


def tidy(text, work):
    "No places of this machine, no addresses in memory, no process numbers"
    text = text.replace(str(work), '…')
    text = re.sub(r'(?<![:/\w…])(/[\w.+-]+){2,}/', '…/', text)
    text = re.sub(rf'{tempfile.gettempdir()}/[\w.]*', '…', text)
    return re.sub(r'0x[0-9a-f]{6,}', '0x…', text)


def run(python, framework, fault):
    with tempfile.TemporaryDirectory() as d:
        if fault != 'disk_full': return observe(python, framework, fault, Path(d))
        if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', d], capture_output=True).returncode: return None
        try: return observe(python, framework, fault, Path(d))
        finally: subprocess.run(['umount', d], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--others', help='an interpreter with fastai and lightning; left out: only slowai is run')
    p.add_argument('--only', nargs='*', choices=FAULTS, default=list(FAULTS))
    p.add_argument('--frameworks', nargs='*', default=['slowai', 'fastai', 'lightning'])
    args = p.parse_args()
    pythons = dict(slowai=sys.executable, fastai=args.others, lightning=args.others)
    rows = {(r['fault'], r['framework']): r for r in (json.loads(OUT.read_text(encoding='utf-8')) if OUT.exists() else [])}
    for fault in args.only:
        for fw in args.frameworks:
            if pythons[fw] is None: continue
            if (r := run(pythons[fw], fw, fault)) is None: print(f'{fault}: a tmpfs could not be mounted'); continue
            rows[r['fault'], fw] = r
            print(f"{fault:14} {fw:10} {r['what_happened']}", flush=True)
    order = {v: i for i, v in enumerate(FAULTS.values())}, {k: i for i, k in enumerate(pythons)}
    out = sorted(rows.values(), key=lambda r: (order[0].get(r['fault'], 99), order[1][r['framework']]))
    OUT.parent.mkdir(exist_ok=True)
    tmp = OUT.with_suffix('.tmp')
    tmp.write_text(json.dumps(out, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    tmp.replace(OUT)


if __name__ == '__main__': main()
