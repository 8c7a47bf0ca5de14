"""Detectors: networks of hpcscale.models below torchvision's pyramids and heads."""
