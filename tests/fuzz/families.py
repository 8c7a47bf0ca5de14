"""Every family of cases, and its weight among all."""

from tests.fuzz import documents, options, pictures, places, results, runs, stores, studies, transfers
from tests.fuzz.harness import Family

FAMILIES: dict[str, tuple[Family, int]] = {
    "options": (options.options, 12),
    "settings": (options.settings, 10),
    "recipes": (options.recipes, 8),
    "sites": (options.sites, 5),
    "catalogues": (options.catalogues, 5),
    "manifests": (documents.manifests, 10),
    "vocabularies": (documents.vocabularies, 8),
    "pairs": (documents.pairs, 8),
    "tars": (pictures.tars, 7),
    "pictures": (pictures.pictures, 10),
    "shards": (stores.shards, 10),
    "folders": (stores.folders, 8),
    "upgrades": (stores.upgrades, 4),
    "indexes": (stores.indexes, 4),
    "codes": (stores.codes, 8),
    "checkpoints": (stores.checkpoints, 6),
    "runs": (runs.runs, 8),
    "jobs": (runs.jobs, 5),
    "transfers": (transfers.transfers, 8),
    "features": (transfers.features, 6),
    "judgements": (transfers.judgements, 8),
    "galleries": (transfers.galleries, 6),
    "results": (results.results, 9),
    "annotations": (results.annotations, 6),
    "detections": (results.detections, 5),
    "studies": (studies.studies, 8),
    "kinds": (places.kinds, 9),
    "outputs": (places.outputs, 9),
    "names": (places.names, 6),
    "locales": (places.locales, 1),
}
