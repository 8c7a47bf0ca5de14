"""hpcscale: pretrain vision models on weakly labelled pictures, and prove what the data bought.

photos + tags ──ingest──> shards (HDF5, raw tags) ──order──> pipeline (DALI) ──> model ─┐
tags ──vocabulary (WordNet)──> classes, hierarchy ──targets (C++)───────────────────────┤
                                     report <── evaluate <── train loop (Horovod) <─────┘

Stages talk through files, so every stage can be run, tested and submitted alone.
"""

__version__ = "0.1.0"
