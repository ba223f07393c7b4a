"""A process alone agrees with itself; those of several are in `tests/end_to_end/test_processes.py`."""

import torch

from common.processes import count, gather, greatest, rank


def test_alone():
    assert (rank(), count()) == (0, 1)
    assert gather({"any": "thing"}) == [{"any": "thing"}]
    assert greatest(2, torch.device("cpu")) == 2
