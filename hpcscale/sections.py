"""Sections of settings, strictly: TOML, JSON and `section.key=value` in, frozen models out, every error told.

For the configuration of a run (config.py), the catalogue (catalogue.py) and site files (cluster/site.py).
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from hpcscale import files
from hpcscale.files import FileError, Usage

M = TypeVar("M", bound=BaseModel)
MOST = 16 << 20  # bytes of a file of settings


class ConfigError(Usage):
    """A configuration that cannot be used; the message names file, key, value and what is allowed."""


def _can_be(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path has no NUL")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("a path has no halves of characters") from None
    return path


# TOML and JSON write paths as texts and tuples as lists: for these alone, another type is accepted.
Place = Annotated[Path, Strict(False), AfterValidator(_can_be)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
# Marks a key that a run may be continued with another value of.
MAY_CHANGE = "may change when a run goes on"


class Section(BaseModel):
    """Strict: true is not a number, 1 is not true, numbers are finite; an integer is accepted for a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def find(file: Path, recipes: Path) -> Path:
    """The file; of a plain name that does not exist here, the one in that folder of the package, if it is
    there."""
    ours = recipes / file.name
    return ours if not file.exists() and file.parent == Path() and ours.exists() else file


def read_toml(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(files.read_text(file, MOST), str(file))
    except (OSError, FileError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Raises ConfigError, also for text that is nested too deep and for numbers of thousands of digits."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{where}: not TOML that can be read: nested too deep") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None


def check(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Turn plain values into a model. ConfigError lists all problems; where: names their origin in it."""
    try:
        return model.model_validate(values)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deep") from None
    except ValidationError as error:
        lines = [f"{where}: {error.error_count()} problem(s)"]
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = _known(model, problem["loc"][:-1])
                lines.append(f"  {key}: unknown key; known are {', '.join(known)}")
            elif problem["type"] == "missing":
                lines.append(f"  {key}: missing")
            else:
                said = "a path must be a text" if problem["type"] == "path_type" else problem["msg"]
                lines.append(f"  {key}: {said}; found {problem['input']!r:.80}")
        raise ConfigError("\n".join(lines)) from None


def override_into(values: dict[str, Any], override: str) -> None:
    """Apply one `section.key=value` to nested values, in place. Raises ConfigError."""
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    shown = f"--set {override!r:.80}"
    if not equals or not last or not all(sections):
        raise ConfigError(f"{shown}: expected section.key=value")
    if "\n" in text or "\r" in text:
        raise ConfigError(f"{shown}: a line break in the value; give each key a --set of its own")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{shown}: '{section}' is a value, not a section")
    values[last] = _value(text, shown)


def _value(text: str, where: str) -> Any:
    """The text as a TOML value, if it is one without anything else (such as a comment); else the text."""
    try:
        found = tomllib.loads(f"value = [{text}]")["value"]
    except RecursionError:
        raise ConfigError(f"{where}: nested too deep") from None
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{where}: {error}") from None
    return found[0] if len(found) == 1 and not text.rstrip().endswith(",") else text


def may_change(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The keys of a model that are marked MAY_CHANGE, as `section.key`."""
    for name, field in model.model_fields.items():
        if MAY_CHANGE in field.metadata:
            yield prefix + name
        elif isinstance(kind := field.annotation, type) and issubclass(kind, BaseModel):
            yield from may_change(kind, f"{prefix}{name}.")


def _known(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if str(part) not in model.model_fields:
            continue  # a name in a table of sections
        annotation = model.model_fields[str(part)].annotation
        # A section, `Section | None`, or a table of sections, `dict[str, Section]`.
        kinds = (annotation, *get_args(annotation))
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
