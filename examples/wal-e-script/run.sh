#!/usr/bin/env bash
# A restore script that was written for Patroni, confined: takes two base backups of a primary, and has Understudy create a replica
# with the script, which then streams.
#
# usage: examples/wal-e-script/run.sh    after `cargo xtask set-up`, `cargo xtask plugins` and `cargo build -p understudy`
example=wal-e
primary_port=15461
replica_port=15462
. "$(dirname "$0")/../scene.sh"

need "$bin_dir/pg_basebackup" /bin/tar /bin/gzip
make_folders
mkdir -p "$folder/backups/example"
place understudy.toml replica/understudy.toml
place restore.sh restore.sh
chmod 700 "$folder/restore.sh"
hand_over

say "starting a primary"
start_primary </dev/null
say "two base backups"
for backup in base_000000010000000000000002 base_000000010000000000000004; do
    as_server "$bin_dir/pg_basebackup" --host "$folder/primary" --port "$primary_port" --username=postgres \
        --format=tar --gzip --checkpoint=fast --no-sync --pgdata "$folder/backups/example/$backup"
    query primary "INSERT INTO letters VALUES (0, 'after $backup')"
done
create_and_compare wal-e
