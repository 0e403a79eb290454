"""The parts of the Dagster definitions: partitions, jobs, sensors, checks, and how results look in the UI."""
