"""What leaves the pipeline: the entry in the champion log (`release`) and lists for users (`recommendations`)."""
