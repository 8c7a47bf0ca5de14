"""Which of the GPUs that a rank sees is its own: their number and the rank's place on its node in, an index
out."""

from hpcscale.ranks.slurm import SlurmError


def choose(visible: int, local_rank: int, local_size: int) -> int:
    """Index of the device of a rank among the `visible` ones.

    A site that gives each rank a device of its own shows it that one alone (`--gpu-bind`), and it is device 0
    on every rank. Raises SlurmError if there is none, or if there are several, but not one for each rank.
    """
    if visible == 1:
        return 0
    if local_rank >= visible or local_size > visible:
        raise SlurmError(
            f"local rank {local_rank} of {local_size} sees {visible} GPUs: each rank needs its own; start "
            "fewer ranks on a node (ranks_per_node of the site, --ranks), or ask for more GPUs"
        )
    return local_rank
