"""Pictures in memory that look like a data set, for tests of what reads one."""

from pathlib import Path

import numpy as np

from hpcscale.data.jpeg import BadPicture, dimensions


def size(jpeg: np.ndarray) -> tuple[int, int]:
    try:
        return dimensions(jpeg.tobytes())
    except BadPicture:
        return 1, 1


class Pictures:
    """The face of a DataSet over JPEG bytes in memory."""

    def __init__(self, jpegs: list[bytes], stored_size: int | None) -> None:
        self.folder, self.stored_size, self.samples = Path("pictures"), stored_size, len(jpegs)
        self.bytes = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
        self.tags = ("even", "odd")

    def jpegs(self, samples: np.ndarray) -> list[np.ndarray]:
        return [self.bytes[sample] for sample in samples]

    def sizes(self, samples: np.ndarray) -> np.ndarray:
        return np.array([size(self.bytes[sample]) for sample in samples], np.int32).reshape(-1, 2)

    def names(self, samples: np.ndarray) -> list[str]:
        return [f"{sample}.jpg" for sample in samples]

    def tag_rows(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(samples) + 1), (samples % 2).astype(np.int32)
