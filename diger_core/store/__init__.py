"""Content hashes, atomic files on a disk or S3, immutable artefacts and append-only records."""
