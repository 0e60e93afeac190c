//! Backups that barman-cloud uploads to a store.

use tests::barman::Barman;
use tests::primary::Primary;

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn cloud_backups_become_replicas() {
    let primary = Primary::start("barman-cloud", 2_000).unwrap();
    primary.server.psql("ALTER SYSTEM SET wal_keep_size = '1GB'").unwrap();
    primary.server.psql("SELECT pg_reload_conf()").unwrap();
    let barman = Barman::start(&primary.playground).unwrap();
    let (sockets, port) = (primary.server.sockets(), primary.server.port());
    for (options, name) in
        [(&["--gzip", "--max-archive-size=10MB"][..], "split"), (&["--bzip2"], "bzip2"), (&[], "plain")]
    {
        barman.backup_with(sockets, port, &[options, &["--name", name]].concat()).unwrap();
        let sections = format!(
            "[method.barman]\n[method.barman.options]\nstore = \"repo\"\nprefix = \"barman\"\nserver = \"example\"\n\
             backup = \"{name}\"\nwal = \"none\"\n[method.barman.grants]\n{}\n",
            barman.store("repo")
        );
        let replica = primary.replica(&format!("replica-{name}"), &["barman"], "", &sections).unwrap();
        replica.created_by("barman").unwrap_or_else(|error| panic!("{name}: {error:#}"));
        primary.streams_to(&replica).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}
