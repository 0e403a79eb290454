"""Stages on Ray: the session, data loading, training workers, trials, and jobs behind a job server."""
