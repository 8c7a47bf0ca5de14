"""How many records go into a shard, so that it has about 2 GB whatever the pictures are.

In: some records of a source. Out: a number that is a pure function of their pictures and of how they are
stored: a few are stored, to see what that takes.
"""

from contextlib import closing

from hpcscale.ingest.record import Record
from hpcscale.ingest.survey import UNIT
from hpcscale.ingest.transcode import store_picture
from hpcscale.ingest.workers import answers

WANTED = 2e9  # bytes of a shard
INDEX = 175  # bytes of a sample beside its picture, about
MOST = 2_000_000  # records of a shard; ingest holds the index of two in memory


def choose_shard_samples(
    sample: list[Record], total: int, resize: int | None, quality: int, workers: int
) -> int:
    """Records of a shard: a multiple of `UNIT`, up to `MOST`. What fits into the smallest is not looked at.

    sample: evenly spread records of all `total`. Raises what `answers` raises.
    """
    if total <= UNIT:
        return UNIT
    with closing(answers(sample, min(workers, 8), store_picture, resize, quality)) as pictures:
        stored = sum(len(picture.jpeg) for _, picture in pictures if picture is not None)
    records = WANTED / (stored / len(sample) + INDEX)
    return int(max(1, min(MOST // UNIT, records // UNIT))) * UNIT
