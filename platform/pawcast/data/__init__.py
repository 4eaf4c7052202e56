"""From photos to a published dataset of verified Parquet shards, and back. See README.md."""
