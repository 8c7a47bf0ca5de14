"""What findings of doctor come to."""

from collections.abc import Iterable

from hpcscale.cluster.node import Finding


def worst(findings: Iterable[Finding]) -> tuple[str, str]:
    found = sorted(findings, key=lambda f: ("ok", "warning", "problem").index(f.state))[-1]
    return found.state, found.found
