"""What changed since the starting bundle was made (`catalogue_diff`), and IDs for new items without training (`cold_start`)."""
