"""Near-duplicates: pictures to hashes or embeddings, to pairs, to groups, drop lists and audits."""
