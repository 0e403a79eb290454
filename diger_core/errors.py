"""The one exception that a user is meant to read."""


class DigerError(Exception):
    """A fault that the user can fix: the message names the file, column, row or item, and the remedy.

    The command line prints it as one line and exits with 1; Dagster shows it as the failure's description.
    It never carries user data beyond an id, and never a secret.
    """


class CollapseError(DigerError):
    """Training stopped because the codebooks collapsed or the loss diverged; the last good state was kept."""
