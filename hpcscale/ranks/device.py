"""Which of the GPUs that a rank sees is its own?

In: their number, and the rank's place on its node. Out: an index.
"""

from hpcscale.ranks.slurm import SlurmError


def choose(visible: int, local_rank: int, local_size: int) -> int:
    """Index of the device of a rank among the `visible` ones.

    At some sites every rank sees only its own GPU (`--gpu-bind`); that is then device 0 on every rank. Raises
    SlurmError if there is no GPU, or if there are several but not one for each rank.
    """
    if visible == 1:
        return 0
    if local_rank >= visible or local_size > visible:
        raise SlurmError(
            f"local rank {local_rank} of {local_size} sees {visible} GPUs: each rank needs its own; start "
            "fewer ranks on a node (ranks_per_node of the site, --ranks), or ask for more GPUs"
        )
    return local_rank
