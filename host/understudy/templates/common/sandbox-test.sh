#!/bin/bash
# Restores a sample with the built component in the sandbox of the program understudy, starts the result, and checks that a damaged backup
# is not restored. Run it as a user other than root, as PostgreSQL requires.
#
#   BIN_DIR=/usr/lib/postgresql/15/bin ./sandbox-test.sh COMPONENT
#
# UNDERSTUDY is the program; the default is `understudy` in PATH.
set -euo pipefail
shopt -s nullglob

here=$(cd "$(dirname "$0")" && pwd)
understudy=${UNDERSTUDY:-understudy}

fail() {
    echo "sandbox-test: $*" >&2
    exit 1
}

[[ $# == 1 && -f $1 ]] || fail "usage: sandbox-test.sh COMPONENT, and the component must be built"
component=$(realpath "$1")
[[ $(id -u) != 0 ]] || fail "PostgreSQL does not run as root: run this as another user"
if [[ -z ${BIN_DIR:-} ]]; then
    installed=(/usr/lib/postgresql/*/bin)
    if ((${#installed[@]})); then
        BIN_DIR=${installed[-1]}
    else
        BIN_DIR=$(dirname "$(command -v initdb || echo /usr/bin/initdb)")
    fi
fi
export BIN_DIR
[[ -x $BIN_DIR/initdb ]] || fail "there is no initdb in $BIN_DIR: set BIN_DIR to the directory with PostgreSQL's programs"

work=$(mktemp -d)
stop() {
    for server in "$work/primary" "$work/replica"; do
        [[ ! -e $server/postmaster.pid ]] || "$BIN_DIR/pg_ctl" stop --silent --mode=immediate --pgdata="$server" || true
    done
    rm -rf "$work"
}
trap stop EXIT

# Starts the server in a directory. It listens on a socket in the work directory alone.
start() {
    "$BIN_DIR/pg_ctl" start --wait --silent --pgdata="$1" --log="$work/server.log" \
        --options="-c listen_addresses= -c unix_socket_directories=$work" || fail "$(tail "$work/server.log")"
}

query() {
    "$BIN_DIR/psql" --no-psqlrc --quiet --tuples-only --no-align --host="$work" --username=postgres --dbname=postgres \
        --set=ON_ERROR_STOP=1 --command="$1"
}

echo "making a sample with $("$BIN_DIR/postgres" --version)"
"$BIN_DIR/initdb" --username=postgres --auth=trust --no-sync --data-checksums --pgdata="$work/primary" >/dev/null
start "$work/primary"
query "CREATE TABLE parcels AS SELECT n, repeat(md5(n::text), 10) AS body FROM generate_series(1, 1000) n"
"$BIN_DIR/pg_ctl" stop --wait --silent --mode=fast --pgdata="$work/primary"
"$here/make-backup.sh" "$work/primary" "$work/store" 2026-11-27

cat >"$work/understudy.toml" <<TOML
scope = "test"

[replica]
datadir = "$work/replica"
bin_dir = "$BIN_DIR"
state_dir = "$work/state"
methods = ["my-method"]

[method.my-method]
plugin = "$component"
no_leader = true
grants.stores.backups = { url = "file://$work/store" }
TOML

echo "planning in the sandbox"
"$understudy" check --config "$work/understudy.toml" || fail "the method would not be used"

echo "restoring in the sandbox"
"$understudy" create --config "$work/understudy.toml" --log-level warn --progress none || fail "no replica was created"
start "$work/replica"
rows=$(query "SELECT count(*) FROM parcels WHERE body = repeat(md5(n::text), 10)")
[[ $rows == 1000 ]] || fail "the replica has $rows of 1000 rows"
"$BIN_DIR/pg_ctl" stop --wait --silent --mode=fast --pgdata="$work/replica"

echo "restoring a damaged backup, which must fail"
damaged=$work/store/files/2026-11-27/base/1/PG_VERSION.gz
echo 99 | gzip >"$damaged"
if "$understudy" create --config "$work/understudy.toml" --log-level error --progress none 2>"$work/errors"; then
    fail "a damaged backup was restored"
fi
grep --quiet "PG_VERSION.gz" "$work/errors" || fail "the failure does not name the object: $(cat "$work/errors")"
[[ ! -e $work/replica/global/pg_control ]] || fail "half a restore was left behind"

echo "passed"
