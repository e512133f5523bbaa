#!/bin/sh
# Run sish with the password of the database: it is read from a file, and handed to libpq in a file, so that no
# command line and no environment holds it.
set -eu
umask 077
escaped=$(sed 's/[\\:]/\\&/g' "${PASSWORD_FILE:-/run/secrets/db-password}")
printf 'db:5432:*:sish:%s\n' "$escaped" > "$PGPASSFILE"
exec sish "$@"
