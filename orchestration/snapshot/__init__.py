"""The shop's data as it came: `raw_items` and `raw_interactions`; ingest from exports, the embedded shop, arrival."""
