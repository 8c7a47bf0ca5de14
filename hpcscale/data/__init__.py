"""From pictures and tags to shards, and back to bytes: sources → ingest (transcode) → store → order."""
