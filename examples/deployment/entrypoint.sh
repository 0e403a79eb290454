#!/bin/sh
# libpq takes a password from a variable or from a file that is for one user alone; a mounted secret is neither. So it never stands in the image, in
# compose.yaml or in what `docker inspect` shows.
set -eu
if [ -r /run/secrets/postgres_password ]; then
  PGPASSWORD=$(cat /run/secrets/postgres_password)
  export PGPASSWORD
fi
exec "$@"
