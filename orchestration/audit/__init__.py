"""Questions about what a store holds, answered from the store alone: no scheduler's database, no training framework.

index.py      records, artefacts, snapshots and the champion log, read once; cached beside the store's evidence, never instead of it
names.py      what a person types (a hash prefix, a path, an alias, a row) -> the thing meant
chain.py      backwards: from anything to the snapshot's bytes
forward.py    forwards: from anything to the models, tables, reports and releases made with it
items.py      every semantic ID that an item has had, and why it changed
tree.py, page.py      a chain as text, as JSON, as a page
verify.py     bytes, names, links and canonical content; file_check.py: one file; journal.py: what an interrupted run has verified
removal.py    what was taken out on purpose, and when; collect.py, forget.py: taking it out
lineage_events.py, mlflow_runs.py     what happened, for the company's other tools: OpenLineage events, MLflow runs
reproduce.py, compare.py     building a run again and saying how far the results are apart
"""
