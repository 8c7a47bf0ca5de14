"""The catalogue: a TOML file that says what the name of a data set stands for.

    ["train-IG-940M-1.5k"]
    data = "packed/ig"  # folder written by `hpcscale data ingest`; paths are relative to this file
    vocabulary = "1.5k.json"  # optional, as what follows
    index = "940M.index"
    selection = {size = 940_000_000}

It is the file in $HPCSCALE_CATALOGUE, else catalogue.toml in the working folder. In: `data.train` and
`data.validation` of a recipe (config.py). Out: the same recipe with paths and the selection.
"""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.choice import Selection
from hpcscale.names import BadName, Name, alike, parse
from hpcscale.sections import ConfigError, Place, Section, check, read_toml

EXAMPLE = "train-IG-940M-1.5k"
VARIABLE, FILE = "HPCSCALE_CATALOGUE", "catalogue.toml"
HOW_MANY = {"size", "share"}  # of a selection: one choice


class Entry(Section):
    # As the keys of these names in a recipe.
    data: Place
    vocabulary: Place | None = None
    index: Place | None = None
    selection: Selection = Selection()

    def beside(self, folder: Path) -> "Entry":
        """The entry with paths that hold in the working folder, of a catalogue in `folder`."""
        keys = ("data", "vocabulary", "index")
        paths = {key: folder / path for key in keys if (path := getattr(self, key)) is not None}
        lists = {key: folder / path for key in ("classes", "names") if (path := getattr(self.selection, key))}
        return self.model_copy(update=paths | {"selection": self.selection.model_copy(update=lists)})


class Catalogue(NamedTuple):
    file: Path
    entries: dict[str, Entry]  # in the order of the file


def find() -> Path | None:
    """The catalogue's file, or None. That of $HPCSCALE_CATALOGUE need not exist: `read` tells."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(FILE) if Path(FILE).exists() else None


def needed() -> Path:
    """The same; ConfigError where there is none."""
    if (file := find()) is None:
        raise ConfigError(f"there is no catalogue: ${VARIABLE} is not set, and here is no {FILE}")
    return file


def read(file: Path) -> Catalogue:
    """Raises ConfigError, which names file, entry and key."""
    entries = {}
    for name, values in read_toml(file).items():
        try:
            parse(name)
        except BadName as error:
            raise ConfigError(f"{file}: {error}") from None
        where = f'{file}: ["{name}"]'
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: must be a section with the key 'data'; found {values!r:.80}")
        if pieces := [
            key for key in values if key not in Entry.model_fields and isinstance(values[key], dict)
        ]:
            raise ConfigError(
                f'{file}: [{name}.{pieces[0]}]: a name with a point stands in quotes, as ["{EXAMPLE}"]'
            )
        entries[name] = check(Entry, values, where).beside(file.parent)
    return Catalogue(file, entries)


def fill(values: dict[str, Any]) -> Path | None:
    """Replace names in the plain values of a recipe by what they stand for, in place.

    `data.train` becomes the folder. `data.vocabulary`, `data.index` and the keys of `[selection]` are filled
    in where the recipe does not set them. `selection.size` and `selection.share` are one choice: with one of
    them the recipe sets both. The entry's index is left out if the recipe has a selection of its own.
    `data.validation` becomes the folder, and the entry's selection is that of `[validation]`, unless the
    recipe has one. A path that exists is no name; without a catalogue, only a text with a role is one.

    Returns the catalogue's file if it was used. Raises ConfigError where a name is not in the catalogue.
    """
    data = values.get("data")
    named = {key: name for key in ("train", "validation") if (name := _name_in(data, key)) is not None}
    if not isinstance(data, dict) or not named:
        return None
    file = find()
    if file is None:
        for key, name in named.items():
            if name.role is not None:
                raise ConfigError(
                    f"data.{key}: {data[key]!r} is not there, and no catalogue says what that name stands "
                    f"for: ${VARIABLE} is not set, and here is no {FILE}; for a folder, write ./{data[key]}"
                )
        return None
    catalogue = read(file)
    for key, name in named.items():
        found = look_up(catalogue, data[key], name, f"data.{key}")
        entry = catalogue.entries[found]
        data[key] = entry.data
        if key == "train":
            _fill_train(values, entry)
        elif entry.selection != Selection():
            values.setdefault("validation", entry.selection)
    return file


def _name_in(data: Any, key: str) -> Name | None:
    """The name that a key of `[data]` is, if it is one."""
    text = data.get(key) if isinstance(data, dict) else None
    if not isinstance(text, str) or os.path.exists(text):
        return None
    try:
        return parse(text)
    except BadName:
        return None


def look_up(catalogue: Catalogue, text: str, asked: Name, key: str) -> str:
    """The entry of this name; else the only one that is alike (see names.alike). A name without a role means
    the role of the key, if several are alike. Raises ConfigError."""
    if text in catalogue.entries:
        return text
    found = [name for name in catalogue.entries if alike(asked, parse(name))]
    if len(found) > 1:
        role = "train" if key == "data.train" else "val"
        found = [name for name in found if parse(name).role == role] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{key}: {text!r} may be each of {', '.join(found)} in {catalogue.file}: write one")
    close = get_close_matches(text, catalogue.entries, 5, 0.6) or list(catalogue.entries)[:5]
    nearest = f"; near it are {', '.join(close)}" if close else ", which is empty"
    raise ConfigError(
        f"{key}: {text!r} is neither a folder nor in the catalogue {catalogue.file}{nearest}; for a folder "
        f"that is made later, write ./{text}"
    )


def _fill_train(values: dict[str, Any], entry: Entry) -> None:
    data, given = values["data"], values.get("selection", {})
    if entry.vocabulary is not None:
        data.setdefault("vocabulary", entry.vocabulary)
    if entry.index is not None and not given:
        data.setdefault("index", entry.index)
    if not isinstance(given, dict):
        return  # which `check` tells
    keys = entry.selection.model_fields_set
    own = {
        key: getattr(entry.selection, key)
        for key in keys
        if key not in HOW_MANY or not HOW_MANY & given.keys()
    }
    if own or given:
        values["selection"] = own | given
