"""Photos become checked, hashed, split Parquet shards, and shards become pixels."""
