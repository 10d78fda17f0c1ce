"Killed, interrupted and taken up again: every run here ends with the bits of the one that nobody disturbed"
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from runs import LIMIT, SETTINGS, assert_same, finish, python, resume, run, saved, start, wait_for

pytestmark = pytest.mark.same_everywhere   # runs of generated pictures, in fp32

INT, TERM = int(signal.SIGINT), int(signal.SIGTERM)

# An epoch has batches 0 … 11, an optimiser step every second batch, a checkpoint every fourth; see faults_child.py
PLACES = {
    'before the first checkpoint': dict(epoch=0, batch=1),
    'in mid-epoch': dict(epoch=1, batch=5),
    'in a forward pass': dict(event='after_predict', epoch=1, batch=6),
    'between backward and step': dict(event='after_backward', epoch=1, batch=7, order=65),
    'between step and checkpoint': dict(epoch=1, batch=7, order=150),
    'after the last batch of a training pass': dict(epoch=1, batch=11),
    'before the last checkpoint of a training pass': dict(epoch=1, batch=11, order=150),
    'before an evaluation': dict(event='before_epoch', epoch=1, training=False),
    'in an evaluation': dict(event='after_loss', epoch=1, batch=1, training=False),
    'after an evaluation': dict(event='cleanup_epoch', epoch=1, training=False),
    'at the start of an epoch': dict(event='before_epoch', epoch=2),
    'in the last evaluation': dict(event='after_loss', epoch=2, batch=0, training=False),
    'in the cleaning up': dict(event='cleanup_fit', epoch=2, training=False, order=150),
}


@pytest.mark.parametrize('place', PLACES.values(), ids=PLACES)
def test_kill_9(tmp_path, place):
    assert run('killed', tmp_path/'run', **place).code == -signal.SIGKILL
    assert_same(resume(tmp_path/'run').final)


SAVES = {
    'while a checkpoint is half written': dict(call='fsync', which='.pt.', nth=4, half=True),
    'between writing and renaming': dict(call='replace', which='.pt', nth=4),
    'before the digest has its name': dict(call='replace', which='.pt.sha256', nth=3),
    'between digest and checkpoint': dict(call='fsync', which='-batch8.pt.', nth=2),
    'between renaming and deleting the old': dict(call='unlink', which='checkpoint-'),
    'between deleting the old and its digest': dict(call='unlink', which='checkpoint-', nth=2),
    'while the best is linked': dict(call='link', which='best-'),
    'in the trial before step one': dict(call='fsync', which='.checkpoint-'),
    'in the last save': dict(call='replace', which='finished.pt'),
}


@pytest.mark.parametrize('moment', SAVES.values(), ids=SAVES)
def test_kill_9_in_a_save(tmp_path, moment):
    assert run('killed_in', tmp_path/'run', **moment).code == -signal.SIGKILL
    res = resume(tmp_path/'run')
    assert 'UserWarning' not in res.said   # nothing was damaged, so nobody has to be told
    assert_same(res.final)
    assert not [p for p in (tmp_path/'run').iterdir() if p.name.startswith(('.checkpoint', '.best'))]
    assert len(list((tmp_path/'run').glob('*.sha256'))) == len(list((tmp_path/'run').glob('*.pt')))


def test_three_times_in_a_row(tmp_path):
    for place in (dict(epoch=0, batch=7), dict(epoch=1, batch=3), dict(epoch=1, batch=11)):
        assert run('killed', tmp_path/'run', **place).code == -signal.SIGKILL
    res = resume(tmp_path/'run')
    assert 'going on from epoch 1, batch 12 (checkpoint-' in res.said
    assert_same(res.final)


def test_at_any_time(tmp_path):
    "Not at a place that we thought of: after a random time, until the run gets through"
    dice, log, out, kills = random.Random(), tmp_path/'log', tmp_path/'out', 0
    while not out.exists() and kills < 40:
        p = start('train', log, tmp_path/'run', out, resume=True, every=1)
        p.join(dice.uniform(.05, .7))
        if p.is_alive(): p.kill(); kills += 1
        p.join()
    if not out.exists(): assert finish(start('train', log, tmp_path/'run', out, resume=True), log).code == 0
    assert_same(finish(p, log, out).final)


def test_saving_changes_nothing(tmp_path):
    res = run('train', tmp_path/'run', every=1)
    assert_same(res.final)
    assert len(saved(tmp_path/'run')) == 2 and len(saved(tmp_path/'run', 'best')) == 1


def test_sigterm(tmp_path):
    res = run('signalled', tmp_path/'run', signums=[TERM], epoch=1, batch=5, order=100)
    assert res.code == 143
    assert 'SIGTERM: stopped at epoch 1, training batch 5; resume=True goes on from' in res.said
    assert saved(tmp_path/'run')[-1].endswith('epoch1-batch6.pt')
    assert_same(resume(tmp_path/'run').final)


def test_sigterm_in_evaluation(tmp_path):
    res = run('signalled', tmp_path/'run', signums=[TERM], event='after_loss', epoch=1, batch=0, training=False)
    assert res.code == 143 and 'SIGTERM: stopped at epoch 1, evaluation batch 0' in res.said
    assert saved(tmp_path/'run')[-1].endswith('epoch1-batch12.pt')
    assert_same(resume(tmp_path/'run').final)


def test_sigterm_in_the_evaluation_that_a_resumed_run_begins_with(tmp_path):
    "Nothing new was saved since; the place that it names is the one that it came from"
    run('killed', tmp_path/'run', epoch=1, batch=11)
    res = run('signalled', tmp_path/'run', signums=[TERM], event='after_loss', epoch=1, batch=0, training=False)
    assert res.code == 143 and f"goes on from {tmp_path/'run'/saved(tmp_path/'run')[-1]}" in res.said
    assert_same(resume(tmp_path/'run').final)


def test_sigterm_at_the_very_end(tmp_path):
    res = run('at_the_very_end', tmp_path/'run')
    assert res.code == 143 and 'SIGTERM: stopped at the end of training; the finished run is in' in res.said
    res = resume(tmp_path/'run')
    assert 'nothing left to do' in res.said
    assert_same(res.final)


def test_sigterm_waits_for_a_whole_step(tmp_path):
    "In the first of two batches that make up a step"
    assert run('signalled', tmp_path/'run', signums=[TERM], event='after_loss', epoch=1, batch=6).code == 143
    assert saved(tmp_path/'run')[-1].endswith('epoch1-batch8.pt')
    assert_same(resume(tmp_path/'run').final)


def test_ctrl_c(tmp_path):
    res = run('signalled', tmp_path/'run', signums=[INT], epoch=1, batch=5, order=100)
    assert 'KeyboardInterrupt: stopped at epoch 1, training batch 5; resume=True goes on from' in res.said
    assert saved(tmp_path/'run')[-1].endswith('epoch1-batch6.pt')
    assert_same(resume(tmp_path/'run').final)


@pytest.mark.parametrize('signums, code', [([INT, INT], 1), ([TERM, TERM], 143), ([INT, TERM], 143)],
    ids=['Ctrl-C', 'SIGTERM', 'one of each'])
def test_the_second_stops_at_once(tmp_path, signums, code):
    res = run('signalled', tmp_path/'run', signums=signums, epoch=1, batch=5, order=100)
    assert res.code == code and 'stopped at once; the step under way is lost' in res.said
    assert saved(tmp_path/'run')[-1].endswith('epoch1-batch4.pt')
    assert_same(resume(tmp_path/'run').final)


@pytest.mark.parametrize('signum, name', [(INT, 'KeyboardInterrupt: stopped at epoch 1, training batch 7'), (TERM, 'SystemExit: 143')])
def test_handlers_are_put_back(tmp_path, signum, name):
    "Caught, as a notebook does, and resumed in the same process"
    res = run('caught', tmp_path/'run', signum=signum)
    assert f'caught {name}' in res.said
    assert_same(res.final)


def test_an_ignored_signal_stays_ignored(tmp_path): assert_same(run('ignoring_sigint', tmp_path/'run').final)
def test_beside_the_main_thread(tmp_path): assert_same(run('in_a_thread', tmp_path/'run').final)


def test_signals_from_outside(tmp_path):
    "Told to stop by another process; Ctrl-C reaches a real program, since Python itself then ends it by the signal"
    flags = [tmp_path/'term.go', tmp_path/'int.go']
    cmd = python(tmp_path/'int', tmp_path/'int.out', 'stand', flags[1])
    program = subprocess.Popen(cmd, env={**os.environ, **SETTINGS}, stdout=-1, stderr=subprocess.STDOUT, text=True)
    forked = start('waiting', tmp_path/'log', tmp_path/'term', tmp_path/'term.out', flags[0])
    alive = forked.is_alive, lambda: program.poll() is None
    for signum, flag, pid, o in zip((TERM, INT), flags, (forked.pid, program.pid), alive):
        wait_for(Path(f'{flag}.up').exists, o)
        os.kill(pid, signum)
        flag.touch()
    res = finish(forked, tmp_path/'log')
    assert res.code == 143 and 'SIGTERM: stopped at epoch' in res.said
    said = program.communicate(timeout=LIMIT)[0]
    assert program.returncode == -INT and 'KeyboardInterrupt: stopped at epoch' in said
    for k in ('term', 'int'): assert_same(resume(tmp_path/k).final)


def test_ascii_only(tmp_path):
    "What a resumed run says into a pipe that knows nothing but ASCII"
    run('killed', tmp_path/'run', epoch=1, batch=5)
    res = run('ascii_only', tmp_path/'run')
    assert res.said.startswith('going on from epoch 1, batch 4 (checkpoint-') and 'epoch 2  train:' in res.said
    assert res.said.isascii() and '\r' not in res.said and '\x1b' not in res.said
    assert_same(res.final)
