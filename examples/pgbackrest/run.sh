#!/usr/bin/env bash
# From `pgbackrest backup` to a streaming replica: starts a primary that archives into an encrypted repository, takes a full and
# an incremental backup, lets the primary recycle the WAL that they need, and has Understudy create a replica, which then streams.
#
# usage: examples/pgbackrest/run.sh    after `cargo xtask set-up`, `cargo xtask plugins` and `cargo build -p understudy`
example=pgbackrest
component=pgbackrest
primary_port=15441
replica_port=15442
. "$(dirname "$0")/../scene.sh"

pgbackrest() {
    as_server /usr/bin/pgbackrest --config="$folder/primary/pgbackrest.conf" --stanza=example "$@"
}

need /usr/bin/pgbackrest
make_folders
mkdir "$folder"/{repository,primary/pgbackrest}
head -c 32 /dev/urandom | base64 >"$folder/keys/repository.pass"
place understudy.toml replica/understudy.toml
place pgbackrest.conf primary/pgbackrest.conf
sed -i "s|change-me|$(cat "$folder/keys/repository.pass")|" "$folder/primary/pgbackrest.conf"
hand_over

say "starting a primary that archives into an encrypted repository"
start_primary <<END
archive_mode = on
archive_command = '/usr/bin/pgbackrest --config=$folder/primary/pgbackrest.conf --stanza=example archive-push %p'
END
query primary "CREATE TABLESPACE fast LOCATION '$folder/primary/fast'"
query primary "CREATE TABLE parcels (id bigint, body text) TABLESPACE fast"

say "pgbackrest stanza-create, a full backup, changes, an incremental backup"
pgbackrest stanza-create
pgbackrest --type=full backup
query primary "INSERT INTO parcels SELECT n, 'between the backups' FROM generate_series(1, 1000) n"
pgbackrest --type=incr backup
query primary "INSERT INTO parcels VALUES (-1, 'after the backups')"
pgbackrest info

say "the primary archives on and recycles the WAL that the backups need"
for _ in {1..3}; do
    query primary "SELECT FROM pg_create_restore_point('example')"
    segment=$(query primary "SELECT pg_walfile_name(pg_switch_wal())")
    wait_for "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver" t
    query primary CHECKPOINT
done
create_and_compare pgbackrest
[ "$(query replica "SELECT count(*) FROM parcels")" = 1001 ]
[ "$(query replica "SELECT body FROM parcels WHERE id = -1")" = 'after the backups' ]
