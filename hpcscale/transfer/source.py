"""What is transferred: a run, a file of weights, or a network with random weights.

In: SOURCE of the command line. Out: the keys of a recipe that follow from it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from hpcscale import config
from hpcscale.config import Config, ConfigError
from hpcscale.models.places import NAME, run_of

RANDOM = "random"
# Of a run's [model] and [input]: what weights need, and shapes do not tell.
MODEL, INPUT = ("name", "stride", "output_stride"), ("values",)


class Source(NamedTuple):
    place: Path | None  # None: random weights
    run: Config | None  # of a run: how it was trained

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.place is None:
            return RANDOM
        place = run_of(self.place) if self.run else self.place
        return place.resolve().name

    def recipe(self) -> dict[str, dict[str, Any]]:
        """Sections and keys of a recipe that starts from it, where the recipe does not say otherwise."""
        values: dict[str, dict[str, Any]] = {"model": {}, "input": {}}
        if self.run is not None:
            values["model"] |= {key: getattr(self.run.model, key) for key in MODEL}
            values["input"] |= {key: getattr(self.run.input, key) for key in INPUT}
        if self.place is not None:
            values["model"]["init"] = self.place
        return values


def find(text: str) -> Source:
    """SOURCE as it was typed: `random`, a run folder, one of its checkpoints, or a file. A folder of the name
    `random` is ./random. What the weights are is not looked at. Raises ConfigError."""
    if text == RANDOM:
        return Source(None, None)
    place = Path(text)
    if place.is_file() and not NAME.fullmatch(place.name):
        return Source(place, None)
    settings = run_of(place) / "config.json" if place.exists() else place / "config.json"
    if not settings.exists():
        raise ConfigError(
            f"{place}: neither a run folder, nor a file of weights, nor '{RANDOM}', for random weights"
        )
    return Source(place, config.read(settings))
