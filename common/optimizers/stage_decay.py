"""Learning rates that decay over the stages of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from ..errors import InputError

__all__ = ["poly_decay"]


def poly_decay(
    stages: Sequence[int], power: float = 0.9, restart: bool = False, first_stage: int = 1
) -> Callable[[int], float]:
    """The factor of the learning rate by epoch, for `torch.optim.lr_scheduler.LambdaLR`: (1 - epoch / epochs)^power.

    FANCL's paper names the decay and not over what; here it is over all stages together, as for a training without
    stages.

    Args:
        stages: epochs of each stage.
        power: of the decay.
        restart: let it begin anew with each stage.
        first_stage: stage that epoch 0 is the first epoch of, counted from 1.

    Raises:
        InputError: there is no such stage.
    """
    if not 1 <= first_stage <= len(stages):
        raise InputError(f"first_stage {first_stage}: stages {list(stages)} are counted from 1 to {len(stages)}")
    ends = [*accumulate(stages)]
    begin = ends[first_stage - 1] - stages[first_stage - 1]

    def factor(epoch: int) -> float:
        done, length = epoch + begin, ends[-1]
        if restart:
            stage = next((index for index, end in enumerate(ends) if done < end), len(ends) - 1)
            done, length = done - ends[stage] + stages[stage], stages[stage]
        return max(0.0, 1 - done / length) ** power

    return factor
