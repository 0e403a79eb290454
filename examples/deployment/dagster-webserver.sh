#!/bin/sh
# Dagster's own webserver answers any Host and any site. Whoever starts it in this image, as the Helm chart does, gets it behind the doors.
exec python -m orchestration.on_dagster.webserver "$@"
