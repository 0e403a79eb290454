"""The gate: what a candidate shows beside the champion (`measures`), what it must show (`rules`), and whether it can serve (`servability`)."""
