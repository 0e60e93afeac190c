# Functions that the examples share: they start a primary on loopback, and have Understudy create a replica on the same
# machine. All files are in one temporary folder, which belongs to the user postgres if root runs the example. At the end, all servers are
# stopped and the folder is removed.
#
# Before a run.sh sources this file, it sets `example`, `primary_port` and `replica_port`. If the method is not `command`, it also sets
# `component` to the name of the method's file without `.wasm`.
# shellcheck shell=bash
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
project=$(cd "$here/../.." && pwd)
understudy=${UNDERSTUDY:-$project/target/debug/understudy}
plugins=${PLUGINS:-$project/plugins/target/components}
component=${component:-command}
bin_dir=/usr/lib/postgresql/15/bin
python=/usr/bin/python3

say() { printf '==> %s\n' "$*"; }

# Replaces this shell with a command that runs as the server's user. Must be called in a subshell.
become() {
    if [ "$(id -u)" = 0 ]; then
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"
    fi
    exec "$@"
}
as_server() { (cd / && become "$@"); }

folder=$(mktemp -d "/tmp/$example-example-XXXXXX")
pids=()

finish() {
    local status=$? server pid
    for server in replica primary; do
        if [ -e "$folder/$server/data/postmaster.pid" ]; then
            as_server "$bin_dir/pg_ctl" stop --silent --mode=immediate --pgdata "$folder/$server/data" || true
        fi
    done
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [ "$status" != 0 ]; then
        tail -n 20 "$folder"/*/log "$folder"/log 2>/dev/null || true
    fi
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Fails if one of these files does not exist.
need() {
    local file
    for file in "$bin_dir/postgres" "$understudy" "$plugins/$component.wasm" "$@"; do
        if [ ! -e "$file" ]; then
            say "$file is missing: \`cargo xtask set-up\`, \`cargo xtask plugins\`, \`cargo build -p understudy\` bring it"
            exit 1
        fi
    done
}

# Creates the folders, and copies the program and the method, so that the server's user may read them wherever the checkout is.
make_folders() {
    umask 077
    mkdir -p "$folder"/{plugins,primary/fast,replica/fast,keys}
    cp "$understudy" "$folder/understudy"
    cp "$plugins/$component.wasm" "$folder/plugins/"
    echo "127.0.0.1:$primary_port:*:replicator:change-me-replicator" >"$folder/replica/pgpass"
}

# Copies a file of the example, and replaces the paths in the copy.
place() { sed "s|/srv/$example-example|$folder|g" "$here/$1" >"$folder/$2"; }

# Gives everything to the server's user.
hand_over() {
    if [ "$(id -u)" = 0 ]; then
        chown -R postgres: "$folder"
    fi
}

query() {
    local port=$primary_port
    [ "$1" = replica ] && port=$replica_port
    as_server "$bin_dir/psql" --host "$folder/$1" --port "$port" --username=postgres --dbname=postgres \
        --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --command "$2"
}

# Waits up to a minute until a query on the primary returns this result.
wait_for() {
    local deadline=$((SECONDS + 60))
    while ((SECONDS < deadline)); do
        [ "$(query primary "$1")" = "$2" ] && return
        sleep 0.2
    done
    say "waited a minute for: $1"
    return 1
}

# Starts a primary that has a table with 50000 rows. Reads additional lines for postgresql.conf from standard input.
start_primary() {
    as_server "$bin_dir/initdb" --username=postgres --auth=trust --no-sync --data-checksums --encoding=UTF8 \
        --pgdata "$folder/primary/data" >/dev/null
    as_server tee -a "$folder/primary/data/postgresql.conf" >/dev/null <<END
listen_addresses = '127.0.0.1'
port = $primary_port
unix_socket_directories = '$folder/primary'
$(cat)
END
    as_server tee "$folder/primary/data/pg_hba.conf" >/dev/null <<END
local all postgres trust
local replication postgres trust
host replication replicator 127.0.0.1/32 scram-sha-256
END
    as_server "$bin_dir/pg_ctl" start --wait --silent --log "$folder/primary/log" --pgdata "$folder/primary/data"
    query primary "CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'change-me-replicator'"
    query primary "CREATE TABLE letters AS SELECT n AS id, repeat(md5(n::text), 14) AS body FROM generate_series(1, 50000) n"
}

# Shows the plan, creates and starts the replica with the method $1, waits until the replica streams, and compares it with the primary.
create_and_compare() {
    local letters="SELECT count(*), sum(hashtext(body)) FROM letters"
    say "what Understudy would do"
    as_server "$folder/understudy" check --config "$folder/replica/understudy.toml"
    say "creating the replica"
    as_server "$folder/understudy" create --config "$folder/replica/understudy.toml" --report "$folder/replica/report.json"
    "$python" - "$folder/replica/report.json" "$1" <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
attempts = [(attempt["method"], attempt["outcome"]) for attempt in report["attempts"]]
assert attempts == [(sys.argv[2], "created")], attempts
END
    say "starting it"
    as_server tee -a "$folder/replica/data/postgresql.conf" >/dev/null <<END
port = $replica_port
unix_socket_directories = '$folder/replica'
cluster_name = 'replica'
archive_mode = off
END
    as_server "$bin_dir/pg_ctl" start --wait --silent --log "$folder/replica/log" --pgdata "$folder/replica/data"
    wait_for "SELECT state FROM pg_stat_replication WHERE application_name = 'replica'" streaming
    query primary "INSERT INTO letters VALUES (-1, 'written while the replica streams')"
    wait_for "SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication" t
    say "the rows of the primary and of the replica, and what the replica has that no backup had"
    query primary "$letters"
    query replica "$letters"
    query replica "SELECT body FROM letters WHERE id = -1"
    [ "$(query primary "$letters")" = "$(query replica "$letters")" ]
    say "the replica streams and has the same rows: ending the servers and removing $folder"
}
