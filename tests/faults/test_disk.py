"Disks that are full, small, read-only or gone, and two runs that want the same folder"
import os
import signal
import tempfile
from pathlib import Path

import pytest
from runs import assert_same, finish, resume, run, saved, start, wait_for

pytestmark = pytest.mark.same_everywhere   # runs of generated pictures, in fp32


def refused(res, *words):
    "Ended with a ValueError that says this, before the first step"
    assert res.code == 1, res.said
    last = [o for o in res.said.splitlines() if o.startswith('ValueError: ')]
    assert last and all(w in last[-1] for w in words), res.said
    assert 'epoch 0  train' not in res.said


def test_full_before_step_one(tmp_path):
    refused(run('full_from_the_start', tmp_path/'run', out=False), "folder: can't write checkpoints in", 'No space left on device',
        'make room there')


def test_too_little_room_for_what_is_kept(tmp_path):
    refused(run('little_room', tmp_path/'run', out=False), 'MB left, and 5 checkpoints, the best one and the one being written need',
        'make room, or keep fewer')


def test_full_in_mid_training(tmp_path):
    "Training goes on and says so; the last good checkpoint is intact, and the run can be taken up from it"
    res = run('full_in_between', tmp_path/'run')
    assert 'UserWarning: no checkpoint at epoch 1, training batch 3: No space left on device. Training goes on; the last good' in res.said
    left = next(o for o in res.said.splitlines() if o.startswith('left:'))
    assert 'epoch0-batch12.pt' in left and 'epoch1' not in left and '.checkpoint-' not in left
    assert 'going on from epoch 0, batch 12' in res.said
    assert_same(res.final)


def test_full_to_the_end(tmp_path):
    "A run that can't be saved is still a run"
    res = run('full_to_the_end', tmp_path/'run')
    assert res.code == 0 and res.said.count('UserWarning: no checkpoint at') == 2   # once an epoch
    assert_same(res.final)


def test_a_limit_on_the_size_of_files(tmp_path):
    res = run('no_larger_files', tmp_path/'run')
    assert 'no checkpoint at epoch 1, training batch 3: File too large. Training goes on' in res.said
    assert 'going on from epoch 0, batch 12' in res.said
    assert_same(res.final)


def test_read_only_disk(tmp_path):
    refused(run('read_only', tmp_path/'run', out=False), "folder: can't write checkpoints in", 'Read-only file system',
        'choose another folder')


def test_folder_without_rights(tmp_path):
    with tempfile.TemporaryDirectory() as d:   # pytest's own folder can't be seen by others
        os.chmod(d, 0o755)
        refused(run('no_rights', Path(d)/'run', out=False), "folder: can't write checkpoints in", 'Permission denied')


def test_folders_are_made(tmp_path):
    assert_same(run('below', tmp_path/'new').final)
    assert len(saved(tmp_path/'new'/'a'/'run')) == 2


def test_a_file_in_the_way(tmp_path):
    (tmp_path/'file').write_text('')
    refused(run('train', tmp_path/'file', out=False), "folder: can't write checkpoints in", 'File exists')
    refused(run('below', tmp_path/'file'), "folder: can't write checkpoints in", 'Not a directory')


def test_folder_deleted_in_mid_training(tmp_path):
    res = run('vanishing', tmp_path/'run')
    assert res.code == 0
    assert_same(res.final)
    assert saved(tmp_path/'run')[-1].endswith('finished.pt')


def test_two_runs_in_one_folder(tmp_path):
    "The second is refused for as long as the first lives, whether it wants to resume or to start; kill -9 frees the folder"
    folder, log, out, flag = tmp_path/'run', tmp_path/'log', tmp_path/'out', tmp_path/'go'
    first = start('waiting', log, folder, out, flag)
    wait_for((tmp_path/'go.up').exists, first.is_alive)
    for again in (True, False):
        refused(run('train', folder, resume=again), 'is in use by another run (process', 'wait for it to end, or choose another folder')
    first.kill()
    assert finish(first, log).code == -signal.SIGKILL
    res = resume(folder)
    assert 'going on from epoch 1, batch 4' in res.said
    assert_same(res.final)


def test_the_first_of_two_is_not_disturbed(tmp_path):
    folder, log, out, flag = tmp_path/'run', tmp_path/'log', tmp_path/'out', tmp_path/'go'
    first = start('waiting', log, folder, out, flag)
    wait_for((tmp_path/'go.up').exists, first.is_alive)
    refused(run('train', folder), 'in use by another run')
    flag.touch()
    assert_same(finish(first, log, out).final)


def test_start_afresh_over_an_unfinished_run(tmp_path):
    "Without resume=True, what lies there is replaced, with a warning, and the newest is that of the new run"
    run('killed', tmp_path/'run', epoch=2, batch=5)
    res = run('train', tmp_path/'run')
    assert "UserWarning" in res.said and "holds checkpoints of a run that isn't finished" in res.said
    assert 'To go on from them, use resume=True' in res.said
    assert_same(res.final)
    assert saved(tmp_path/'run')[-1].endswith('finished.pt') and len(saved(tmp_path/'run')) == 2
