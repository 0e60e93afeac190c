#!/bin/sh
# Installs and uses the package of understudy in a fresh Debian, as an operator would. `cargo xtask dist --try` runs this script.
set -eu

step() { printf '\n--- %s\n' "$*"; }
install_packages() {
    # There is no terminal that could show a progress bar.
    apt-get install --yes --quiet=2 --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
}
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# Prevents packages from starting servers, and Debian from creating a cluster.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/understudy.conf

step "apt installs the package with what it depends on"
apt-get update --quiet=2
install_packages /understudy.deb
dpkg --verify understudy
[ "$(dpkg-query --show --showformat '${db:Status-Status}' understudy)" = installed ] || fail "it is not installed"

step "the program runs"
understudy --version

step "its methods are found as files, and without them in the program"
understudy inspect tarball | tee /tmp/inspected | head -n 4
grep -q '/usr/lib/understudy/plugins/tarball.wasm' /tmp/inspected || fail "the file of the package is not used"
for method in tarball mirror pgbackrest barman walg command; do
    UNDERSTUDY_PLUGIN_PATH=/nowhere understudy inspect "$method" >/tmp/inspected
    grep -q "$method (included in the program)" /tmp/inspected || fail "$method is not included in the program"
done

step "manual pages"
install_packages man-db
for page in understudy understudy-create understudy-check understudy-inspect understudy-patroni \
    understudy-report understudy-completions; do
    man -w "$page"
    man --warnings "$page" >/tmp/page 2>/tmp/warnings || fail "$page does not render: $(cat /tmp/warnings)"
    [ -s /tmp/page ] && [ ! -s /tmp/warnings ] || fail "$page renders with: $(cat /tmp/warnings)"
done

step "completions, and what else is there"
for file in /usr/share/bash-completion/completions/understudy /usr/share/zsh/vendor-completions/_understudy \
    /usr/share/fish/vendor_completions.d/understudy.fish /usr/share/doc/understudy/copyright \
    /usr/share/doc/understudy/LICENSE /usr/share/doc/understudy/README.md; do
    [ -s "$file" ] || fail "$file is missing"
    echo "$file"
done
bash -n /usr/share/bash-completion/completions/understudy

step "PostgreSQL, from Debian's packages"
install_packages postgresql
bin_dir=$(echo /usr/lib/postgresql/*/bin)
"$bin_dir/postgres" --version

step "a primary, and a backup of it in tar format"
install -d -o postgres -g postgres -m 0700 /srv/primary /srv/backups
as_postgres() { runuser -u postgres -- env -C /tmp "$@"; }
as_postgres "$bin_dir/initdb" --pgdata=/srv/primary --encoding=UTF8 --locale=C >/dev/null
as_postgres "$bin_dir/pg_ctl" --pgdata=/srv/primary --wait --log=/tmp/primary.log \
    --options='-c port=54329 -c listen_addresses= -c unix_socket_directories=/tmp' start >/dev/null
query() { as_postgres psql --host=/tmp --no-psqlrc --tuples-only --no-align --port="$1" --command="$2" postgres; }
query 54329 'CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS number'
as_postgres pg_basebackup --host=/tmp --port=54329 --pgdata=/srv/backups/latest --format=tar --checkpoint=fast
ls -l /srv/backups/latest

step "the sample configuration, with the paths of this machine"
install -d /etc/understudy
sed -e "s|^bin_dir = .*|bin_dir = \"$bin_dir\"|" \
    -e 's|^datadir = .*|datadir = "/var/lib/postgresql/replica"|' \
    -e 's|^conninfo = .*|conninfo = "host=/tmp port=54329 user=postgres"|' \
    -e 's|/var/backups/postgresql|/srv/backups|' \
    /usr/share/doc/understudy/examples/understudy.toml >/etc/understudy/understudy.toml
understudy check --strict

step "a replica by the method tarball"
understudy create --report /tmp/report.json
grep -q '"result": "created"' /tmp/report.json || fail "the report says otherwise: $(cat /tmp/report.json)"
grep -q '/usr/lib/understudy/plugins/tarball.wasm' /tmp/report.json || fail "the report does not name the component"
as_postgres "$bin_dir/pg_ctl" --pgdata=/var/lib/postgresql/replica --wait --log=/tmp/replica.log \
    --options='-c port=54330 -c listen_addresses= -c unix_socket_directories=/tmp' start >/dev/null
said=$(query 54330 'SELECT pg_is_in_recovery(), count(*) FROM numbers')
echo "$said"
[ "$said" = 't|1000' ] || fail "the replica does not hold what the primary has"
as_postgres "$bin_dir/pg_ctl" --pgdata=/var/lib/postgresql/replica --wait --mode=immediate stop >/dev/null
as_postgres "$bin_dir/pg_ctl" --pgdata=/srv/primary --wait --mode=immediate stop >/dev/null

step "dpkg removes it without a trace"
dpkg --purge understudy >/dev/null
[ ! -e /usr/bin/understudy ] && [ ! -e /usr/lib/understudy ] && [ ! -e /usr/share/doc/understudy ] ||
    fail "something is left"
