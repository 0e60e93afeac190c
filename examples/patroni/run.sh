#!/usr/bin/env bash
# Shows Understudy as Patroni's way to create replicas: starts etcd and a leader, takes a backup of it, and lets a second
# member create itself. Everything runs on loopback from one temporary folder and is ended and removed at the end.
# As root, the servers and Understudy run as the user postgres.
#
# usage: examples/patroni/run.sh    after `cargo xtask set-up`, `cargo xtask plugins` and `cargo build -p understudy`
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
understudy=${UNDERSTUDY:-$project/target/debug/understudy}
plugins=${PLUGINS:-$project/plugins/target/components}
environment=$project/target/patroni-venv
python=/usr/bin/python3
bin_dir=/usr/lib/postgresql/15/bin

say() { printf '==> %s\n' "$*"; }

# Replaces this shell with a command that runs as the server's user. Must be called in a subshell.
become() {
    if [ "$(id -u)" = 0 ]; then
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"
    fi
    exec "$@"
}
as_server() { (become "$@"); }

folder=$(mktemp -d /tmp/patroni-example-XXXXXX)
pids=()

# Ends the processes that were started, the last one first. Patroni stops its PostgreSQL before it ends.
finish() {
    local status=$? i pid
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        pid=${pids[i]}
        kill "$pid" 2>/dev/null || true
        for _ in {1..100}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    done
    for member in first second; do
        if [ -e "$folder/$member/data/postmaster.pid" ]; then
            as_server "$bin_dir/pg_ctl" stop --silent --mode=immediate --pgdata "$folder/$member/data" || true
        fi
    done
    if [ "$status" != 0 ]; then
        tail -n 20 "$folder"/*.log "$folder"/*/patroni.log 2>/dev/null || true
    fi
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits at most a minute until a command succeeds.
wait_for() {
    local what=$1
    local deadline=$((SECONDS + 60))
    shift
    while ((SECONDS < deadline)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    say "waited a minute for $what"
    return 1
}

# Succeeds if the server at this URL answers with a success status.
answers() {
    "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' "$1"
}

query() {
    as_server "$bin_dir/psql" --host "$folder/first" --port 15431 --username=postgres --dbname=postgres \
        --quiet --tuples-only --no-align --command "$1"
}

streams() {
    [ "$(query "SELECT state FROM pg_stat_replication WHERE application_name = 'second'")" = streaming ]
}

start_member() {
    (cd / && HOME=$folder PYTHONPATH=$folder/site-packages \
        become "$python" -m patroni "$folder/$1/patroni.yml") >"$folder/$1/patroni.log" 2>&1 &
    pids+=($!)
}

for needed in etcd "$python" "$bin_dir/pg_basebackup" "$understudy" "$plugins/tarball.wasm"; do
    if ! command -v "$needed" >/dev/null && [ ! -e "$needed" ]; then
        say "$needed is missing: \`cargo xtask set-up\`, \`cargo xtask plugins\`, \`cargo build -p understudy\` bring it"
        exit 1
    fi
done
if [ ! -e "$environment/requirements.txt" ]; then
    say "installing Patroni from PyPI into $environment"
    "$python" -m venv --clear "$environment"
    "$environment/bin/pip" install --quiet --requirement "$project/tests/patroni/requirements.txt"
    cp "$project/tests/patroni/requirements.txt" "$environment/requirements.txt"
fi

# Copies the files, so that the server's user can read them wherever the checkout is.
mkdir "$folder/plugins" "$folder/backups" "$folder/first" "$folder/second"
cp "$understudy" "$folder/understudy"
cp "$plugins/tarball.wasm" "$folder/plugins/"
cp -r "$environment"/lib/python3*/site-packages "$folder/site-packages"
for member in first second; do
    for file in patroni.yml understudy.toml; do
        sed "s|/srv/patroni-example|$folder|g" "$here/$file" >"$folder/$member/$file"
    done
done
sed -i 's/second/first/g; s/15432/15431/g; s/18012/18011/g' "$folder"/first/*
chmod 700 "$folder"/{first,second,backups}
if [ "$(id -u)" = 0 ]; then
    chown -R postgres: "$folder"
fi

say "starting etcd"
(cd / && become etcd --data-dir "$folder/etcd" --logger zap \
    --listen-client-urls http://127.0.0.1:12379 --advertise-client-urls http://127.0.0.1:12379 \
    --listen-peer-urls http://127.0.0.1:12380 --initial-advertise-peer-urls http://127.0.0.1:12380 \
    --initial-cluster default=http://127.0.0.1:12380) >"$folder/etcd.log" 2>&1 &
pids+=($!)
wait_for etcd answers http://127.0.0.1:12379/health

say "starting the first member, which becomes the leader"
start_member first
wait_for "the leader" answers http://127.0.0.1:18011/leader
query "CREATE TABLE letters AS SELECT n AS id, repeat(md5(n::text), 14) AS body FROM generate_series(1, 50000) n"

say "taking a backup of it"
as_server "$bin_dir/pg_basebackup" --host "$folder/first" --port 15431 --username=postgres \
    --format=tar --gzip --checkpoint=fast --pgdata "$folder/backups/latest"

say "starting the second member, whose data directory does not exist"
start_member second
wait_for "the replica" answers http://127.0.0.1:18012/replica
wait_for "the replica to stream" streams

say "what Patroni and Understudy logged"
sed 's/^/    /' "$folder/second/patroni.log"
say "Understudy's report"
"$python" -c '
import json, sys
for attempt in json.load(open(sys.argv[1]))["attempts"]:
    print("   ", attempt["method"], attempt["outcome"], attempt["bytes"], "bytes", attempt["message"])
' "$folder/second/report.json"
say "pg_stat_replication on the leader"
query "SELECT '    ' || application_name || ' ' || state FROM pg_stat_replication"
say "done: ending the servers and removing $folder"
