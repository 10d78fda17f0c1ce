"""The run that the tests in this folder kill, starve and damage: a small one, with everything that a checkpoint must hold.

Also a script, `python faults_child.py FOLDER OUT [slow] [all]`, for the tests that need a process of its own."""
import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from slowai.batches import shapes_dls
from slowai.best import EMACB, BestModelCB, EarlyStopCB
from slowai.checkpoint import CheckpointCB
from slowai.learner import Callback
from slowai.schedules import train_1cycle
from slowai.states import set_seed
from slowai.steps import GradientAccumulationCB, GradientClipCB

EVERY = 4   # training batches between checkpoints; an epoch has 12 batches and 6 optimiser steps
SKIP = 77   # exit status: this system doesn't let us try that


def network(width=6):
    "Dropout draws random numbers, BatchNorm keeps statistics"
    return nn.Sequential(nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Dropout(.3),
        nn.Linear(36*width, 10))


class At(Callback):
    "Do something at one place of the loop: an event, an epoch, a batch (None: any), in training or evaluation"
    def __init__(self, act, event='after_batch', epoch=0, batch=None, training=True, order=300):
        self.act, self.place, self.order = act, (epoch, batch, training), order
        setattr(self, event, self.hit)

    def hit(self, learn):
        epoch, batch, training = self.place
        if learn.epoch == epoch and learn.training == training and batch in (None, learn.iter): self.act()


def sig(*signums):
    def act():
        for s in signums: os.kill(os.getpid(), s)
    return act


def kill(): os.kill(os.getpid(), signal.SIGKILL)


def kill_in(call, which, nth=1, half=False):
    "Let the process die in the `nth` call of `os.<call>` about a file whose name holds `which`, before that call does anything"
    real, seen = getattr(os, call), []

    def deadly(*args, **kwargs):
        files = [os.readlink(f'/proc/self/fd/{o}') if call == 'fsync' else str(o) for o in args if isinstance(o, (int, str, os.PathLike))]
        if which in Path(files[-1]).name:
            seen.append(1)
            if len(seen) == nth:
                if half: os.ftruncate(args[0], os.fstat(args[0]).st_size//2)
                kill()
        return real(*args, **kwargs)
    setattr(os, call, deadly)


def train(folder, out=None, cbs=(), resume=False, every=EVERY, seed=0, data_seed=0, bs=20, width=6, n_epochs=3, opt_func=torch.optim.AdamW,
        lr=.02, pieces=2, device='cpu', **kwargs):
    "One run; leaves all that it computed in the file `out`"
    torch.set_num_threads(1)
    set_seed(seed)
    dls = shapes_dls(bs=bs, n_train=230, n_test=60, size=12, seed=data_seed)
    net, ema, best = network(width), EMACB(.9), BestModelCB()
    cbs = [CheckpointCB(folder, every=every, **kwargs), ema, best, EarlyStopCB(patience=9), GradientAccumulationCB(pieces),
        GradientClipCB(), *cbs]
    recorder, stats = train_1cycle(net, lr, n_epochs, cbs, dls=dls, opt_func=opt_func, device=device, fast=False, resume=resume)
    learn = recorder.learn
    final = dict(model=net.state_dict(), ema=ema.averaged.state_dict(), history=learn.metrics.history, lrs=recorder.recs['lr'],
        best=best.best, epochs=len(learn.record['history']), means=[h.means for h in stats.hooks],
        random=torch.get_rng_state())
    if out: torch.save(final, out)
    return final


# What a test can ask for, by name: a function and its arguments must travel to the process that runs it

def killed(folder, out=None, **place): train(folder, out, [At(kill, **place)], resume=True)


def killed_in(folder, out=None, **moment):
    kill_in(**moment)
    train(folder, out, resume=True)


def signalled(folder, out=None, signums=(), **place): train(folder, out, [At(sig(*signums), **place)], resume=True)


def ignoring_sigint(folder, out):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signalled(folder, out, [signal.SIGINT], epoch=1)


def caught(folder, out, signum):
    "A notebook catches what a signal raises and goes on: are the handlers the old ones again?"
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try: signalled(folder, None, [signum], epoch=1, batch=5)
    except (KeyboardInterrupt, SystemExit) as e: print(f'caught {type(e).__name__}: {e}')
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    train(folder, out, resume=True)


def ascii_only(folder, out):
    for f in (sys.stdout, sys.stderr): f.reconfigure(encoding='ascii', errors='strict')
    train(folder, out, resume=True)


def in_a_thread(folder, out):
    t = threading.Thread(target=train, args=(folder, out))
    t.start(); t.join()


def at_the_very_end(folder, out):
    "The signal comes after the last batch"
    train(folder, out, [At(sig(signal.SIGTERM), event='cleanup_epoch', epoch=2, training=False, order=100)])


# Disks

def private_mounts():
    "Give this process a view of the mounts that is its own and goes with it; ends it with `SKIP` where that isn't allowed"
    libc, uid, gid = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    new_ns, new_user, private = 0x20000, 0x10000000, 0x4000 | 0x40000   # CLONE_NEWNS, CLONE_NEWUSER, MS_REC | MS_PRIVATE
    if libc.unshare(new_ns | (new_user if uid else 0)): sys.exit(SKIP)
    if uid:
        for f, s in (('setgroups', 'deny'), ('uid_map', f'0 {uid} 1'), ('gid_map', f'0 {gid} 1')): Path('/proc/self', f).write_text(s)
    mount = partial(_mount, libc)
    mount('none', '/', None, private, None)
    return mount


def _mount(libc, src, dst, kind, flags, data):
    if libc.mount(*(o and str(o).encode() for o in (src, dst, kind)), flags, data and data.encode()): sys.exit(SKIP)


def small_disk(folder, kb):
    "A disk of `kb` KB in memory, at `folder`"
    Path(folder).mkdir(exist_ok=True)
    mount = private_mounts()
    mount('tmpfs', folder, 'tmpfs', 0, f'size={kb}k')
    return mount


def fill(folder):
    fd = os.open(Path(folder)/'filler', os.O_WRONLY | os.O_CREAT)
    try:
        while True: os.write(fd, bytes(4096))
    except OSError: os.close(fd)


class Stop(Exception): pass


def stop(): raise Stop


def full_from_the_start(folder):
    small_disk(folder, 256)
    fill(folder)
    train(folder)


def little_room(folder):
    "Room for one checkpoint, not for those that are to be kept"
    small_disk(folder, 256)
    train(folder, keep=5)


def full_in_between(folder, out):
    "The disk fills up in epoch 1; the run is stopped in epoch 2, the disk cleared, the run resumed"
    small_disk(folder, 2048)
    try: train(folder, cbs=[At(partial(fill, folder), epoch=1, batch=1), At(stop, epoch=2, batch=5)])
    except Stop: print('left:', sorted(p.name for p in Path(folder).iterdir() if p.suffix != '.sha256'))
    (Path(folder)/'filler').unlink()
    train(folder, out, resume=True)


def full_to_the_end(folder, out):
    small_disk(folder, 2048)
    train(folder, out, cbs=[At(partial(fill, folder), epoch=1, batch=1)])


def no_larger_files(folder, out):
    "Without a disk of our own: a limit on the size of files, from epoch 1 on"
    import resource
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE)
    try: train(folder, cbs=[At(partial(limit, (8192, -1)), epoch=1, batch=1), At(stop, epoch=2, batch=5)])
    except Stop: limit((-1, -1))
    train(folder, out, resume=True)


def read_only(folder):
    mount = small_disk(folder, 2048)
    mount('none', folder, None, 1 | 32, None)   # MS_RDONLY | MS_REMOUNT
    train(folder)


def no_rights(folder):
    Path(folder).mkdir()
    os.chmod(folder, 0o555)
    if os.getuid() == 0: os.setuid(65534)   # root may write anywhere, nobody may not
    train(folder)


def below(folder, out): train(Path(folder)/'a'/'run', out)


def vanishing(folder, out):
    "Somebody deletes the folder in epoch 1"
    import shutil
    train(folder, out, cbs=[At(partial(shutil.rmtree, folder), epoch=1, batch=1)])


def waits(flag):
    "Stand still until the file `flag` is there; that one does is told by another"
    def wait():
        Path(f'{flag}.up').touch()
        while not Path(flag).exists(): time.sleep(.02)
    return wait


def waiting(folder, out, flag): train(folder, out, cbs=[At(waits(flag), epoch=1, batch=5)], resume=True)


def sgd(folder): train(folder, resume=True, opt_func=torch.optim.SGD)


def from_a_gpu(folder, out, file):
    "Make the checkpoint `file` look as if it came from a GPU, as far as that can be done without one; then resume on the CPU"
    from slowai.checkpoint_files import read_checkpoint, to_bytes, write_checkpoint
    payload, tag = read_checkpoint(file), torch.serialization.location_tag
    payload['circumstances']['device'] = 'cuda'
    payload['random']['cuda'] = payload['start']['random']['cuda'] = [torch.zeros(16, dtype=torch.uint8)]
    torch.serialization.location_tag = lambda storage: 'cuda:0'
    write_checkpoint(file, to_bytes(payload))
    torch.serialization.location_tag = tag
    train(folder, out, resume=True)


def there_and_back(folder, out):
    "Half a run on the GPU, the other half on the CPU"
    try: train(folder, device='cuda', cbs=[At(stop, epoch=1, batch=5)])
    except Stop: train(folder, out, resume=True)


def gpu_only(folder, out, broken):
    os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'
    torch.use_deterministic_algorithms(True)
    try: train(folder, out, device='cuda', cbs=[At(stop, epoch=1, batch=5)]*broken)
    except Stop: train(folder, out, device='cuda', resume=True)


class Extra(Callback): saved, thing = ('thing',), 1
class Odd(Callback): saved, thing = ('thing',), Path('x')


def another_callback(folder): train(folder, resume=True, cbs=[Extra()])
def unsavable_callback(folder): train(folder, cbs=[Odd()])


def program(file, *args, cwd, **env):
    "A Python program with its arguments, as a process of its own would run it"
    os.environ |= env
    os.chdir(cwd)
    sys.argv, sys.path[:0] = [file, *args], [str(Path(file).parent)]
    runpy.run_path(file, run_name='__main__')


if __name__ == '__main__':
    stand = [At(waits(sys.argv[4]), epoch=1, batch=5)] if 'stand' in sys.argv else []
    train(*sys.argv[1:3], cbs=stand, keep=99 if 'all' in sys.argv else 2, resume=True)
