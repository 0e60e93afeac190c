#!/usr/bin/env bash
# `barman-cloud-restore`, confined: starts S3 on loopback and a primary, uploads a backup with Barman, and has Understudy create a
# replica with Barman itself, which then streams.
#
# usage: examples/barman-cloud/run.sh    after `cargo xtask set-up`, `cargo xtask plugins` and `cargo build -p understudy`
example=barman-cloud
primary_port=15481
replica_port=15482
s3_port=15483
. "$(dirname "$0")/../scene.sh"

environment=$project/target/barman-venv
moto=$project/target/stores/venv

need "$python" "$moto/bin/moto_server"
if ! cmp -s "$here/requirements.txt" "$environment/requirements.txt"; then
    say "installing Barman from PyPI into $environment"
    "$python" -m venv --clear "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$environment/requirements.txt"
fi

make_folders
place understudy.toml replica/understudy.toml
echo example-access-key >"$folder/keys/access-key"
echo change-me-secret-key >"$folder/keys/secret-key"
# A Python virtual environment can be moved if the first line of each of its programs is changed.
cp -R "$environment" "$folder/barman"
sed -i "1s|.*|#!$folder/barman/bin/python|" "$folder"/barman/bin/barman-*
hand_over

say "starting S3 on loopback, and a primary"
setpriv --pdeathsig KILL "$moto/bin/moto_server" --host 127.0.0.1 --port "$s3_port" >"$folder/log" 2>&1 &
pids+=($!)
start_primary </dev/null
until (exec 3<>"/dev/tcp/127.0.0.1/$s3_port") 2>/dev/null; do
    kill -0 "${pids[0]}"
    sleep 0.1
done
query primary "CREATE TABLESPACE fast LOCATION '$folder/primary/fast'"
query primary "CREATE TABLE parcels TABLESPACE fast AS SELECT * FROM letters"

say "barman-cloud-backup"
barman() {
    as_server env AWS_ACCESS_KEY_ID=example-access-key AWS_SECRET_ACCESS_KEY=change-me-secret-key AWS_DEFAULT_REGION=us-east-1 "$@"
}
barman "$folder/barman/bin/python" - "http://127.0.0.1:$s3_port" <<'END'
import sys, boto3
boto3.client("s3", endpoint_url=sys.argv[1]).create_bucket(Bucket="backups")
END
barman "$folder/barman/bin/barman-cloud-backup" --endpoint-url "http://127.0.0.1:$s3_port" --gzip --immediate-checkpoint \
    --host "$folder/primary" --port "$primary_port" --user postgres s3://backups/barman example
query primary "INSERT INTO letters VALUES (0, 'after the backup')"
create_and_compare barman
