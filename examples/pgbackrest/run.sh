#!/usr/bin/env bash
# From `pgbackrest backup` to a streaming replica: starts a primary that archives into an encrypted repository, takes a full and
# an incremental backup, lets the primary recycle the log that they need, and has Understudy create a replica, which then
# streams. Everything runs on loopback from one temporary folder and is ended and removed at the end.
# As root, the servers, pgBackRest and Understudy run as the user postgres.
#
# usage: examples/pgbackrest/run.sh    after `cargo xtask set-up`, `cargo xtask plugins` and `cargo build -p understudy`
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
understudy=${UNDERSTUDY:-$project/target/debug/understudy}
plugins=${PLUGINS:-$project/plugins/target/components}
bin_dir=/usr/lib/postgresql/15/bin

say() { printf '==> %s\n' "$*"; }

# Runs a command as the server's user, in place of this shell: to be called in a subshell.
become() {
    if [ "$(id -u)" = 0 ]; then
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"
    fi
    exec "$@"
}
as_server() { (cd / && become "$@"); }

folder=$(mktemp -d /tmp/pgbackrest-example-XXXXXX)

finish() {
    local status=$? server
    for server in replica primary; do
        if [ -e "$folder/$server/data/postmaster.pid" ]; then
            as_server "$bin_dir/pg_ctl" stop --silent --mode=immediate --pgdata "$folder/$server/data" || true
        fi
    done
    if [ "$status" != 0 ]; then
        tail -n 20 "$folder"/*/log 2>/dev/null || true
    fi
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits at most a minute until a query of the primary answers this.
wait_for() {
    local deadline=$((SECONDS + 60))
    while ((SECONDS < deadline)); do
        [ "$(query primary "$1")" = "$2" ] && return
        sleep 0.2
    done
    say "waited a minute for: $1"
    return 1
}

query() {
    local port=15441
    [ "$1" = replica ] && port=15442
    as_server "$bin_dir/psql" --host "$folder/$1" --port "$port" --username=postgres --dbname=postgres \
        --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --command "$2"
}

pgbackrest() {
    as_server /usr/bin/pgbackrest --config="$folder/primary/pgbackrest.conf" --stanza=example "$@"
}

for needed in /usr/bin/pgbackrest "$bin_dir/postgres" "$understudy" "$plugins/pgbackrest.wasm"; do
    if [ ! -e "$needed" ]; then
        say "$needed is missing: \`cargo xtask set-up\`, \`cargo xtask plugins\`, \`cargo build -p understudy\` bring it"
        exit 1
    fi
done

# Copies, so that the server's user may read them wherever the checkout is.
umask 077
mkdir "$folder"/{plugins,keys,repository,primary,replica} "$folder"/{primary,replica}/fast "$folder/primary/pgbackrest"
cp "$understudy" "$folder/understudy"
cp "$plugins/pgbackrest.wasm" "$folder/plugins/"
head -c 32 /dev/urandom | base64 >"$folder/keys/repository.pass"
pass=$(cat "$folder/keys/repository.pass")
sed "s|/srv/pgbackrest-example|$folder|g; s|change-me|$pass|" "$here/pgbackrest.conf" >"$folder/primary/pgbackrest.conf"
sed "s|/srv/pgbackrest-example|$folder|g" "$here/understudy.toml" >"$folder/replica/understudy.toml"
echo '127.0.0.1:15441:*:replicator:change-me-replicator' >"$folder/replica/pgpass"
if [ "$(id -u)" = 0 ]; then
    chown -R postgres: "$folder"
fi

say "starting a primary that archives into an encrypted repository"
as_server "$bin_dir/initdb" --username=postgres --auth=trust --no-sync --data-checksums --encoding=UTF8 \
    --pgdata "$folder/primary/data" >/dev/null
as_server tee -a "$folder/primary/data/postgresql.conf" >/dev/null <<END
listen_addresses = '127.0.0.1'
port = 15441
unix_socket_directories = '$folder/primary'
archive_mode = on
archive_command = '/usr/bin/pgbackrest --config=$folder/primary/pgbackrest.conf --stanza=example archive-push %p'
END
as_server tee "$folder/primary/data/pg_hba.conf" >/dev/null <<END
local all postgres trust
host replication replicator 127.0.0.1/32 scram-sha-256
END
as_server "$bin_dir/pg_ctl" start --wait --silent --log "$folder/primary/log" --pgdata "$folder/primary/data"
query primary "CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'change-me-replicator'"
query primary "CREATE TABLESPACE fast LOCATION '$folder/primary/fast'"
query primary "CREATE TABLE letters AS SELECT n AS id, repeat(md5(n::text), 14) AS body FROM generate_series(1, 50000) n"
query primary "CREATE TABLE parcels (id bigint, body text) TABLESPACE fast"

say "pgbackrest stanza-create, a full backup, changes, an incremental backup"
pgbackrest stanza-create
pgbackrest --type=full backup
query primary "INSERT INTO parcels SELECT n, 'between the backups' FROM generate_series(1, 1000) n"
pgbackrest --type=incr backup
query primary "INSERT INTO parcels VALUES (-1, 'after the backups')"
pgbackrest info

say "the primary archives on and recycles what the backups need"
for _ in {1..3}; do
    query primary "SELECT FROM pg_create_restore_point('example')"
    segment=$(query primary "SELECT pg_walfile_name(pg_switch_wal())")
    wait_for "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver" t
    query primary CHECKPOINT
done

say "what Understudy would restore, and what the method asks for"
as_server "$folder/understudy" check --config "$folder/replica/understudy.toml"
say "creating the replica"
as_server "$folder/understudy" create --config "$folder/replica/understudy.toml"

say "starting it"
as_server tee -a "$folder/replica/data/postgresql.conf" >/dev/null <<END
port = 15442
unix_socket_directories = '$folder/replica'
cluster_name = 'replica'
archive_mode = off
END
as_server "$bin_dir/pg_ctl" start --wait --silent --log "$folder/replica/log" --pgdata "$folder/replica/data"
wait_for "SELECT state FROM pg_stat_replication WHERE application_name = 'replica'" streaming
wait_for "SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication" t
say "pg_stat_replication on the primary, and what the replica has that no backup had"
query primary "SELECT '    ' || application_name || ' ' || state FROM pg_stat_replication"
query replica "SELECT '    ' || body FROM parcels WHERE id = -1"
[ "$(query replica "SELECT count(*) FROM letters")" = 50000 ]
say "done: ending the servers and removing $folder"
