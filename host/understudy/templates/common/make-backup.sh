#!/bin/bash
# Puts a copy of a data directory into a store, in the format that this method restores. README.md describes the format.
# The data directory is that of a stopped server, or one that pg_basebackup wrote.
#
#   BIN_DIR=/usr/lib/postgresql/15/bin ./make-backup.sh DATA_DIRECTORY STORE_DIRECTORY NAME
set -euo pipefail
export LC_ALL=C

fail() {
    echo "make-backup: $*" >&2
    exit 1
}

[[ $# == 3 ]] || fail "usage: make-backup.sh DATA_DIRECTORY STORE_DIRECTORY NAME"
data=$1 store=$2 name=$3
controldata=${BIN_DIR:+$BIN_DIR/}pg_controldata
[[ $name != */* && $name != .* && $name != *[[:space:]]* ]] || fail "$name cannot be the name of a backup"
[[ -f $data/PG_VERSION ]] || fail "$data is not a data directory: it has no PG_VERSION"
[[ ! -e $data/postmaster.pid ]] || fail "$data belongs to a running server: stop it, or copy it with pg_basebackup"
[[ ! -e $store/index/$name ]] || fail "$store has a backup $name already"

# What belongs to a running server, and what it makes again when it starts.
left_out=(-name postmaster.opts -o -name pg_internal.init -o -name 'pgsql_tmp*')
left_out+=(-o -path '*/pg_stat_tmp/*' -o -path '*/pg_replslot/*' -o -path '*/pg_dynshmem/*')

# Follows links: pg_tblspc has links to tablespaces, and pg_wal may be one.
list() {
    (cd "$data" && find -L . -mindepth 1 \( "${left_out[@]}" \) -prune -o -type "$1" -printf '%P\n' | sort)
}

fact() {
    "$controldata" "$data" | sed -n "s/^$1: *//p"
}

# A command that fails in an assignment ends the script; one that fails in `echo "$(...)"` or `< <(...)` does not.
major=$(cat "$data/PG_VERSION")
identifier=$(fact 'Database system identifier')
timeline=$(fact "Latest checkpoint's TimeLineID")
[[ $identifier && $timeline ]] || fail "$controldata does not print the system identifier and the timeline: set BIN_DIR"
directories=$(list d)
files=$(list f)

mkdir -p "$store/index" "$store/files/$name"
unfinished=$store/files/$name/index.unfinished
{
    echo "format 1"
    echo "postgresql_major $major"
    echo "system_identifier $identifier"
    echo "timeline $timeline"
    for link in "$data"/pg_tblspc/*; do
        [[ ! -L $link ]] || echo "tablespace ${link##*/} $(readlink "$link")"
    done
    sed 's/^/directory /' <<<"$directories"
    count=0
    while IFS= read -r path; do
        object=$store/files/$name/$path.gz
        mkdir -p "${object%/*}"
        gzip --fast --stdout "$data/$path" >"$object"
        digest=$(sha256sum <"$data/$path")
        echo "file $(stat --format=%s "$data/$path") ${digest%% *} $path"
        count=$((count + 1))
    done <<<"$files"
    echo "end $count"
} >"$unfinished"
# The index comes last: a backup that was not completed has none.
mv "$unfinished" "$store/index/$name"
