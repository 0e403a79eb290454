"""`diger serve`: the online room over HTTP. The only place that imports FastAPI, uvicorn and the Prometheus client (extra `serve`)."""
