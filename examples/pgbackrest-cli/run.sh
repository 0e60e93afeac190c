#!/usr/bin/env bash
# `pgbackrest restore`, confined: starts a primary that archives into an encrypted repository, takes a backup, and has Understudy create
# a replica with pgBackRest itself, which then streams.
#
# usage: examples/pgbackrest-cli/run.sh    after `cargo xtask set-up`, `cargo xtask plugins` and `cargo build -p understudy`
example=pgbackrest-cli
primary_port=15471
replica_port=15472
. "$(dirname "$0")/../scene.sh"

pgbackrest() {
    as_server /usr/bin/pgbackrest --config="$folder/primary/pgbackrest.conf" --stanza=example "$@"
}

need /usr/bin/pgbackrest
make_folders
mkdir "$folder"/{repository,primary/pgbackrest,replica/pgbackrest}
head -c 32 /dev/urandom | base64 >"$folder/keys/repository.pass"
place understudy.toml replica/understudy.toml
place pgbackrest.conf replica/pgbackrest.conf
# The primary's file has the pass phrase; the replica's does not.
sed "s|replica|primary|g; s|^repo1-path.*|&\nrepo1-cipher-pass=$(cat "$folder/keys/repository.pass")|" \
    "$folder/replica/pgbackrest.conf" >"$folder/primary/pgbackrest.conf"
cat >>"$folder/primary/pgbackrest.conf" <<END
pg1-port=$primary_port
pg1-socket-path=$folder/primary
pg1-user=postgres
END
hand_over

say "starting a primary that archives into an encrypted repository"
start_primary <<END
archive_mode = on
archive_command = '/usr/bin/pgbackrest --config=$folder/primary/pgbackrest.conf --stanza=example archive-push %p'
END
query primary "CREATE TABLESPACE fast LOCATION '$folder/primary/fast'"
query primary "CREATE TABLE parcels TABLESPACE fast AS SELECT * FROM letters"
say "pgbackrest stanza-create, and a backup"
pgbackrest stanza-create
pgbackrest --type=full backup
query primary "INSERT INTO letters VALUES (0, 'after the backup')"
create_and_compare pgbackrest-cli
