"""From pictures and tags, as they come, to the shards of a data set."""
