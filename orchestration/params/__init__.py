"""params.yaml: its sections (data, training, verdict, search, cluster, arrival), how they are read, and their reference."""
