"""The report: one self-contained HTML page, a Markdown summary and pictures, made from stored artefacts alone."""
