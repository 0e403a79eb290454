"""The champion for other engines: flat files with a description (`write`), and a check that needs numpy alone (`check`)."""
