"Teams of processes for the tests of `slowai.distributed`: forked off a process that has imported torch already"
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

import distributed_child
import pytest
import torch
from runs import LIMIT, fork


class Ended(NamedTuple):
    code: int       # exit status; negative: the signal that ended it
    said: str       # stdout and stderr together
    final: dict     # what the run left, None if it didn't get there


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def _child(log, env, name, args, kwargs):
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for n in (1, 2): os.dup2(fd, n)
    os.environ |= env
    assert torch.get_num_threads() == 1, 'several processes with several threads each slow each other many times over'
    getattr(distributed_child, name)(*args, **kwargs)


def start(name, folder, *args, size=2, ranks=None, port=None, **kwargs):
    "Processes that run `distributed_child.<name>(folder/'out', …)`; what they say goes to files log.RANK"
    Path(folder).mkdir(exist_ok=True)
    port, ps = port or free_port(), []
    for r in range(size) if ranks is None else ranks:
        env = dict(RANK=str(r), LOCAL_RANK=str(r), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size), MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port)) if size > 1 else {}
        ps.append(fork(_child, f'{folder}/log.{r}', env, name, [f'{folder}/out', *args], kwargs))
    return ps


def finish(ps, folder, timeout=LIMIT):
    "Wait for all of them; what became of each"
    until, res = time.monotonic() + timeout, []
    for p in ps: p.join(max(0, until - time.monotonic()))
    late = [p for p in ps if p.is_alive()]
    for p in late: p.kill(); p.join()
    logs = {o.suffix[1:]: o.read_text() for o in sorted(Path(folder).glob('log.*'))}
    if late: pytest.fail(f'still running after {timeout} s:\n' + '\n'.join(f'--- {k}\n{v}' for k, v in logs.items()))
    for p, (r, said) in zip(ps, logs.items(), strict=True):
        out = Path(folder)/f'out.{r}'
        res.append(Ended(p.exitcode, said, torch.load(out, weights_only=False) if out.exists() else None))
    return res


def team(name, folder, *args, timeout=LIMIT, **kwargs):
    "Run `distributed_child.<name>` as a team, to its end"
    return finish(start(name, folder, *args, **kwargs), folder, timeout)
