"""Public formats into a snapshot: read as a stream, filter, number the ids, take the k-core, write.

amazon.py, recbole.py, table.py   one module a format; each makes a `Source`
writer.py                         Source -> snapshot directory, the only place that writes
"""
