#!/bin/sh
# Restores the newest base backup and its WAL. Patroni calls it with --scope, --role, --datadir and --connstring, and with the
# keys of its section in patroni.yml.
set -eu
for argument; do
    case $argument in
    --scope=*) scope=${argument#*=} ;;
    --datadir=*) datadir=${argument#*=} ;;
    --backups=*) backups=${argument#*=} ;;
    esac
done
newest=
for backup in "$backups/$scope"/base_*; do
    [ -e "$backup/base.tar.gz" ] && newest=$backup
done
[ -n "$newest" ] || { echo "there is no backup of $scope in $backups" >&2; exit 1; }
mkdir -p "$datadir"
tar -xzf "$newest/base.tar.gz" -C "$datadir"
tar -xzf "$newest/pg_wal.tar.gz" -C "$datadir/pg_wal"
echo "restored $newest"
