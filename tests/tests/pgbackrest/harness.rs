//! Tests for the helpers: pgBackRest restores the backups that it took, and accepts files that the helpers changed.

use tests::pgbackrest::{BUNDLED_ENCRYPTED, Info, PLAIN, Stanza};
use tests::server::PostgresServer;
use tests::tree::differences;

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_that_pgbackrest_restores_starts_and_pgbackrest_accepts_a_changed_manifest() {
    let mut stanza = Stanza::start("pgbr-harness", 200, &[PLAIN, BUNDLED_ENCRYPTED], "zst").unwrap();
    stanza.add_tablespace("slow", 100).unwrap();
    for number in [1, 2] {
        let full = stanza.backup(number, "full", &[]).unwrap();
        stanza.primary.server.psql("INSERT INTO of_slow VALUES (-1, 'after the full one')").unwrap();
        let incr = stanza.backup(number, "incr", &[]).unwrap();
        assert_eq!(stanza.labels(number).unwrap(), [full.clone(), incr.clone()]);
        assert!(incr.starts_with(&format!("{full}_")), "{incr}");
        let restored = stanza.restore(number, &incr, &format!("restored-{number}"), "standby").unwrap();
        let server = PostgresServer::start(&stanza.primary.playground, &restored, "").unwrap();
        assert_eq!(server.psql("SELECT count(*) FROM of_slow").unwrap(), "101");
        server.stop().unwrap();
        stanza.primary.server.psql("DELETE FROM of_slow WHERE id = -1").unwrap();
    }

    // Two restores of one backup have the same files, except for those that a restore itself writes.
    let full = stanza.labels(1).unwrap().remove(0);
    let first = stanza.restore(1, &full, "first", "preserve").unwrap();
    let manifest = stanza.backups(1, &format!("{full}/backup.manifest"));
    let mut info = Info::read(&manifest).unwrap();
    assert_eq!(info.text(), std::fs::read_to_string(&manifest).unwrap(), "read and written without a change");
    let file = info.get("target:file", "pg_data/PG_VERSION").unwrap();
    // pgBackRest expects the keys of a value in alphabetical order.
    let with_mode = file.replacen(',', ",\"mode\":\"0640\",", 1);
    assert!(!file.contains("mode"), "{file}");
    info.set("target:file", "pg_data/PG_VERSION", &with_mode);
    info.write(&manifest, stanza.primary.playground.user()).unwrap();
    let second = stanza.restore(1, &full, "second", "preserve").unwrap();
    let found = differences(&second, &first, |_| false).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].path.as_str(), found[0].what.as_str()), ("PG_VERSION", "mode 640, theirs 600"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("0640", "0644", 1)).unwrap();
    std::fs::remove_file(manifest.with_extension("manifest.copy")).unwrap();
    let refused = stanza.restore(1, &full, "third", "preserve").unwrap_err().to_string();
    assert!(refused.contains("checksum"), "{refused}");
}
