"""From a command to a job on a Slurm cluster, and what became of it.

Runs on a bare login node: nothing here imports torch, h5py or the extension.
"""
