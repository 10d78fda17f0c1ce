"Several real processes against one: the same losses, the same accuracy, the same bits after a fall; and what is said when one is missing"
import numpy as np
import pytest
from teams import team


def ok(res):
    for o in res: assert o.code == 0, o.said
    return [o.final for o in res]


@pytest.mark.parametrize('pieces', [1, 3])
def test_loss_is_that_of_one_process(tmp_path, pieces):
    one, = ok(team('same_loss', tmp_path/'one', size=1, team=False, pieces=pieces))
    two = ok(team('same_loss', tmp_path/'two', pieces=pieces))
    assert len(one['losses']) == 60   # 12 batches of 20, the last one of 10, 5 times
    np.testing.assert_allclose(two[0]['losses'], one['losses'], rtol=2e-5)
    assert two[0]['losses'] == two[1]['losses'] == two[0]['curve']
    for f in two: assert [r['accuracy'] for r in f['history']] == [r['accuracy'] for r in one['history']]
    assert two[0]['images'] == one['images']
