"""What serves: the champion log, bundles, and the bundle that a run starts from."""
