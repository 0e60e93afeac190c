//! Secrecy of the repository's passphrase and of the passphrases that pgBackRest stores inside its files: no run shows any of them.

use std::path::Path;
use std::process::Command;

use tests::pgbackrest::{BUNDLED_ENCRYPTED, ENCRYPTED, PASS, Stanza};
use tests::server::run;

use super::bad_input::flip;

/// Decrypts a pgBackRest file with OpenSSL's own tool.
fn decrypted(file: &Path, pass: &str) -> String {
    let mut openssl = Command::new("/usr/bin/openssl");
    openssl.args(["enc", "-d", "-aes-256-cbc", "-md", "sha1", "-pass"]).arg(format!("pass:{pass}"));
    String::from_utf8(run(openssl.arg("-in").arg(file)).unwrap().stdout).unwrap()
}

/// Returns the passphrase in the text of a decrypted pgBackRest file.
fn inner(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("cipher-pass=")).expect("a pass phrase");
    line.trim_matches('"').to_owned()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_passphrase_is_in_a_log_a_report_or_a_remaining_file() {
    for kind in [ENCRYPTED, BUNDLED_ENCRYPTED] {
        let stanza = Stanza::start("pgbr-secrets", 200, &[kind], "zst").unwrap();
        let label = stanza.backup(1, "full", &[]).unwrap();
        let archive_info = stanza.repository(1).join("archive/demo/archive.info");
        let of_archive = inner(&decrypted(&archive_info, PASS));
        let of_manifests = inner(&decrypted(&stanza.backups(1, "backup.info"), PASS));
        let manifest = stanza.backups(1, &format!("{label}/backup.manifest"));
        let of_files = inner(&decrypted(&manifest, &of_manifests));
        let secrets = [PASS.to_owned(), of_archive, of_manifests, of_files];
        assert!(secrets.iter().all(|secret| secret.len() > 20), "a passphrase of pgBackRest is short");

        let section = stanza.method(&[1], "", "wal = \"latest\"\n");
        let replica = stanza.replica(&section).unwrap();
        let created = replica.create(&["--log-level=trace"]).unwrap();
        assert_eq!(created.code(), Some(0), "{}", created.output);
        let damaged = if kind.bundle { "bundle/1" } else { "pg_data/global/1260.zst" };
        flip(&stanza.backups(1, &format!("{label}/{damaged}")));
        let broken = stanza.replica(&section).unwrap();
        let failed = broken.create(&["--log-level=trace"]).unwrap();
        assert_ne!(failed.code(), Some(0), "{}", failed.output);
        flip(&manifest);
        std::fs::remove_file(manifest.with_extension("manifest.copy")).unwrap();
        let refused = stanza.replica(&section).unwrap().create(&["--log-level=trace"]).unwrap();
        assert_ne!(refused.code(), Some(0), "{}", refused.output);

        for ended in [&created, &failed, &refused] {
            let report = ended.report.to_string();
            for secret in &secrets {
                assert!(!ended.output.contains(secret.as_str()), "in the output");
                assert!(!report.contains(secret.as_str()), "in the report");
            }
        }
        for secret in &secrets {
            let mut grep = Command::new("/bin/grep");
            grep.args(["-rlF", "--", secret]);
            grep.args([replica.path(""), broken.path(""), stanza.primary.playground.path("state")]);
            let found = grep.output().unwrap();
            assert_eq!(String::from_utf8_lossy(&found.stdout), "", "files that hold a pass phrase");
        }
    }
}
