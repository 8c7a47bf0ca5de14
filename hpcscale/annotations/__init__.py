"""Boxes, masks, key points and class maps: from COCO, VOC and PNGs to the shards, and out of them again."""
