//! Malicious repositories: a restore writes nothing outside the replica's folder, and ends within its limits with a message.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tests::pgbackrest::{BUNDLED, Info, PLAIN, Stanza};

use super::bad_input::{SavedFolder, section_of};
use super::scene::{OldData, fails};

/// The method's timeout.
const TIMEOUT: &str = "timeout = \"90s\"\n";
/// The longest permitted duration of a run. On a busy machine the run may end later than the method.
const LONGEST: Duration = Duration::from_secs(120);

/// A repository with one full backup, whose files a test can change and restore.
struct Repository {
    stanza: Stanza,
    label: String,
    manifest: PathBuf,
    saved: SavedFolder,
}

impl Repository {
    fn new(name: &str, bundle: bool) -> Self {
        let stanza = Stanza::start(name, 100, &[if bundle { BUNDLED } else { PLAIN }], "gz").unwrap();
        let label = stanza.backup(1, "full", &[]).unwrap();
        let manifest = stanza.backups(1, &format!("{label}/backup.manifest"));
        let saved = SavedFolder::new(&stanza.backups(1, ""));
        Self { stanza, label, manifest, saved }
    }

    fn info(&self) -> Info {
        Info::read(&self.manifest).unwrap()
    }

    fn section(&self) -> String {
        section_of(&self.stanza, &self.label).replacen(
            "[method.pgbackrest]\n",
            &format!("[method.pgbackrest]\n{TIMEOUT}"),
            1,
        )
    }

    /// Writes this manifest, and checks that the restore fails with these messages.
    fn fails(&self, what: &str, info: &Info, old: OldData, says: &[&str]) {
        info.write(&self.manifest, self.stanza.primary.playground.user()).unwrap();
        self.assert_fails(what, old, says);
    }

    fn assert_fails(&self, what: &str, old: OldData, says: &[&str]) {
        let begun = Instant::now();
        fails(&self.stanza, what, &self.section(), old, says);
        assert!(begun.elapsed() < LONGEST, "{what} took {:?}", begun.elapsed());
        self.saved.restore();
    }

    /// Checks that the run creates a replica or fails with a message, and writes nothing outside the replica's folder.
    fn assert_replica_or_message(&self, what: &str, info: &Info, victim: &Path) {
        info.write(&self.manifest, self.stanza.primary.playground.user()).unwrap();
        let replica = self.stanza.folder("", &self.section()).unwrap();
        let before = tests::tree::snapshot(victim).unwrap();
        let ended = replica.create(&[]).unwrap();
        let attempt = ended.attempt("pgbackrest");
        let message = attempt["message"].as_str().unwrap_or_default();
        assert!(ended.code() == Some(0) || message.len() > 20, "{what}: {attempt}\n{}", ended.output);
        assert_eq!(tests::tree::snapshot(victim).unwrap(), before, "{what}: {attempt}");
        for entry in fs::read_dir(replica.datadir()).into_iter().flatten() {
            let entry = entry.unwrap();
            let is_wal = entry.file_name() == "pg_wal";
            assert!(
                is_wal || !entry.file_type().unwrap().is_symlink(),
                "{what}: {:?} is a link",
                entry.path()
            );
        }
        self.saved.restore();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_path_that_leaves_the_data_directory_is_refused_before_anything_is_touched() {
    let repository = Repository::new("pgbr-names", false);
    let outside = repository.stanza.primary.playground.path("escaped");
    let line = repository.info().get("target:file", "pg_data/PG_VERSION").unwrap().to_owned();
    let absolute = outside.display().to_string();
    for name in [
        "pg_data/../escaped",
        "pg_data/../../escaped",
        "pg_data/base/../../../escaped",
        "pg_data/base/1/../../../../../../../../../../../../tmp/escaped",
        "../escaped",
        "..",
        &absolute,
        &format!("pg_data/{absolute}"),
        "pg_data//PG_VERSION",
        "pg_data/./PG_VERSION",
        "pg_data/base/.",
        "pg_data/",
        "elsewhere/file",
        "pg_tblspc/../escaped",
        "pg_tblspc/99999/PG_15_202209061/5/1",
        "pg_data/a\0b",
    ] {
        let mut info = repository.info();
        info.add("target:file", name, &line);
        let why = match name {
            "elsewhere/file" => "neither pg_data nor pg_tblspc",
            "pg_tblspc/99999/PG_15_202209061/5/1" => "tablespace 99999",
            "pg_data/a\0b" => "not a name that can be restored",
            _ => "leaves the data directory",
        };
        repository.fails(name, &info, OldData::Untouched, &["backup.manifest", why]);
    }
    for name in ["pg_data/../escaped", "../escaped", &absolute, "pg_data/base//x"] {
        let mut info = repository.info();
        info.add("target:path", name, "{}");
        repository.fails(
            &format!("directory {name}"),
            &info,
            OldData::Untouched,
            &["leaves the data directory"],
        );
    }
    let mut info = repository.info();
    info.add("target:file", "pg_data/PG_VERSION", &line);
    repository.fails("twice", &info, OldData::Untouched, &["PG_VERSION"]);
    let mut info = repository.info();
    info.add("target:file", "pg_data/PG_VERSION/below", &line);
    let object = repository.stanza.backups(1, &format!("{}/pg_data/PG_VERSION", repository.label));
    fs::create_dir(&object).unwrap();
    fs::copy(object.with_extension("gz"), object.join("below.gz")).unwrap();
    for path in [object.join("below.gz"), object] {
        repository.stanza.primary.playground.user().own(&path).unwrap();
    }
    repository.fails("a file below a file", &info, OldData::Emptied, &["PG_VERSION"]);
    for reference in ["../../../escaped", "/etc", "", "20260101-000000F/.."] {
        let mut info = repository.info();
        // The keys of a value must be in alphabetical order.
        let with = line.replacen(",\"repo-size", &format!(",\"reference\":\"{reference}\",\"repo-size"), 1);
        assert!(with.contains("reference"), "{with}");
        info.set("target:file", "pg_data/PG_VERSION", &with);
        repository.fails(&format!("reference {reference}"), &info, OldData::Untouched, &["not a label"]);
    }
    for label in ["../../../escaped", "..", "20260101-000000F/../x"] {
        let section = section_of(&repository.stanza, label);
        fails(&repository.stanza, label, &section, OldData::Untouched, &["backup"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_link_in_a_backup_never_leads_outside_the_mapped_directories() {
    let repository = Repository::new("pgbr-links", false);
    let playground = &repository.stanza.primary.playground;
    let victim = playground.directory("victim").unwrap();
    fs::write(victim.join("pg_hba.conf"), "not to be touched").unwrap();
    let target = victim.display().to_string();
    let mut file = repository.info();
    file.add(
        "backup:target",
        "pg_data/pg_hba.conf",
        &format!("{{\"file\":\"pg_hba.conf\",\"path\":\"{target}\",\"type\":\"link\"}}"),
    );
    file.add("target:link", "pg_data/pg_hba.conf", &format!("{{\"destination\":\"{target}/pg_hba.conf\"}}"));
    repository.assert_replica_or_message("a linked file", &file, &victim);
    for (name, destination) in [("pg_xact", target.as_str()), ("base", "../../victim"), ("global", "/etc")] {
        let mut folder = repository.info();
        let path = format!("pg_data/{name}");
        folder.add("backup:target", &path, &format!("{{\"path\":\"{destination}\",\"type\":\"link\"}}"));
        folder.add("target:link", &path, &format!("{{\"destination\":\"{destination}\"}}"));
        repository.assert_replica_or_message(&path, &folder, &victim);
    }
    // A tablespace that is not in the operator's map.
    let mut space = repository.info();
    space.add(
        "backup:target",
        "pg_tblspc/77777",
        &format!("{{\"path\":\"{target}\",\"tablespace-id\":\"77777\",\"tablespace-name\":\"x\",\"type\":\"link\"}}"),
    );
    space.add("target:link", "pg_data/pg_tblspc/77777", &format!("{{\"destination\":\"{target}\"}}"));
    space.add("target:path", "pg_tblspc/77777", "{}");
    repository.fails("a tablespace", &space, OldData::Untouched, &["77777"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_wrong_size_fails_with_the_name_of_the_file() {
    let repository = Repository::new("pgbr-sizes", false);
    let file = "pg_data/base/1/1247";
    let honest = repository.info().get("target:file", file).unwrap().to_owned();
    let size =
        format!("\"size\":{}", honest.split("\"size\":").nth(1).unwrap().split([',', '}']).next().unwrap());
    assert!(honest.contains(&size), "{honest}");

    // The file has a gigabyte of zeroes and a declared size of a hundred kilobytes.
    let object = repository.stanza.backups(1, &format!("{}/{file}.gz", repository.label));
    let mut zip = std::process::Command::new("/bin/sh");
    zip.args(["-c", "head -c 1000000000 /dev/zero | gzip -1 >\"$0\""]).arg(&object);
    tests::server::run(&mut zip).unwrap();
    repository.assert_fails("a bomb", OldData::Emptied, &["base/1/1247"]);

    for (lie, old) in [
        ("\"size\":1", OldData::Emptied),
        ("\"size\":1000000", OldData::Emptied),
        // The disk has no room for four petabytes.
        ("\"size\":4503599627370496", OldData::Untouched),
        ("\"size\":9223372036854775807", OldData::Untouched),
        ("\"size\":18446744073709551615", OldData::Untouched),
        ("\"size\":99999999999999999999", OldData::Untouched),
        ("\"size\":-1", OldData::Untouched),
        ("\"size\":1.5", OldData::Untouched),
        ("\"size\":\"8192\"", OldData::Untouched),
        ("\"size\":null", OldData::Untouched),
    ] {
        let mut info = repository.info();
        info.replace("target:file", file, &size, lie);
        repository.fails(lie, &info, old, &["base/1/1247"]);
    }
    // Each size is possible, but the disk has no room for their sum.
    let mut info = repository.info();
    for other in ["pg_data/base/1/1249", "pg_data/base/1/1255", file] {
        let value = info.get("target:file", other).unwrap();
        let own = value.split("\"size\":").nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
        info.replace("target:file", other, &format!("\"size\":{own}"), "\"size\":1099511627776");
    }
    repository.fails("the sum", &info, OldData::Untouched, &["rejected"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_invalid_position_in_a_bundle_fails_with_the_name_of_the_file() {
    let repository = Repository::new("pgbr-bundles", true);
    let file = "pg_data/base/1/1247";
    let honest = repository.info().get("target:file", file).unwrap().to_owned();
    assert!(honest.contains("\"bni\":1"), "{honest}");
    for (lie, old) in [
        ("\"bni\":99", OldData::Emptied),
        ("\"bni\":1,\"bno\":99999999999", OldData::Emptied),
        ("\"bni\":1,\"bno\":18446744073709551615", OldData::Untouched),
        ("\"bni\":-1", OldData::Untouched),
        ("\"bni\":\"../../x\"", OldData::Untouched),
    ] {
        let rest: Vec<&str> = honest
            .trim_matches(['{', '}'])
            .split(',')
            .filter(|pair| !pair.starts_with("\"bni\"") && !pair.starts_with("\"bno\""))
            .collect();
        let mut info = repository.info();
        info.set("target:file", file, &format!("{{{lie},{}}}", rest.join(",")));
        repository.fails(lie, &info, old, &["base/1/1247"]);
    }
    let mut info = repository.info();
    let stored = honest.split("\"repo-size\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    info.replace(
        "target:file",
        file,
        &format!("\"repo-size\":{stored}"),
        "\"repo-size\":18446744073709551615",
    );
    repository.fails("a stored size", &info, OldData::Untouched, &["base/1/1247"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn oversized_manifests_fail_within_the_limits_of_time_and_memory() {
    let repository = Repository::new("pgbr-bounds", false);
    let mut info = repository.info();
    let line = info.get("target:file", "pg_data/PG_VERSION").unwrap().to_owned();
    for number in 0..1_000_000 {
        info.add("target:file", &format!("pg_data/base/1/{}", 5_000_000 + number), &line);
    }
    info.write(&repository.manifest, repository.stanza.primary.playground.user()).unwrap();
    let begun = Instant::now();
    // The method either fails with its memory limit, or with the first file that is missing.
    let replica = repository.stanza.folder("", &repository.section()).unwrap();
    let ended = replica.create(&[]).unwrap();
    let attempt = ended.attempt("pgbackrest");
    assert!(ended.code() == Some(1) && attempt["message"].as_str().unwrap().len() > 20, "{attempt}");
    assert!(!replica.is_sealed() && begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
    println!("a million entries: {} after {:?}", attempt["message"], begun.elapsed());
    repository.saved.restore();

    let deep = format!("{{\"size\":{}", "[".repeat(1 << 20));
    for (what, value) in [
        ("deep", deep.clone()),
        ("deep and closed", format!("{deep}{}}}", "]".repeat(1 << 20))),
        ("no JSON", "hello".to_owned()),
        ("empty", String::new()),
        ("a list", "[1,2]".to_owned()),
        ("long", format!("{{\"size\":3,\"checksum\":\"{}\"}}", "a".repeat(32 << 20))),
        ("twice", "{\"size\":3,\"size\":4,\"timestamp\":1}".to_owned()),
        ("another checksum", "{\"checksum\":\"587b596f\",\"size\":3,\"timestamp\":1}".to_owned()),
        ("no checksum", "{\"size\":3,\"timestamp\":1}".to_owned()),
        ("set-user-id", line.replacen(',', ",\"mode\":\"4755\",", 1)),
        ("no mode", line.replacen(',', ",\"mode\":\"rwx\",", 1)),
    ] {
        let mut info = repository.info();
        info.set("target:file", "pg_data/PG_VERSION", &value);
        if what == "set-user-id" {
            // The method may ignore these bits.
            info.write(&repository.manifest, repository.stanza.primary.playground.user()).unwrap();
            let replica = repository.stanza.folder("", &repository.section()).unwrap();
            let ended = replica.create(&[]).unwrap();
            if ended.code() == Some(0) {
                let restored = tests::tree::snapshot(&replica.datadir()).unwrap();
                assert_eq!(restored["PG_VERSION"].mode & 0o7022, 0, "set-user-id or write bits were kept");
            }
            repository.saved.restore();
            continue;
        }
        repository.fails(what, &info, OldData::Untouched, &["manifest"]);
    }
    // The same in backup.info, which is read first.
    let file = repository.stanza.backups(1, "backup.info");
    let mut info = Info::read(&file).unwrap();
    info.set("backup:current", &repository.label, &deep)
        .write(&file, repository.stanza.primary.playground.user())
        .unwrap();
    repository.assert_fails("deep, in backup.info", OldData::Untouched, &["backup.info"]);

    // A file of three gigabytes.
    let mut huge = fs::File::create(&repository.manifest).unwrap();
    huge.write_all(b"[backrest]\n").unwrap();
    huge.set_len(3 << 30).unwrap();
    fs::remove_file(repository.manifest.with_extension("manifest.copy")).unwrap();
    repository.assert_fails("three gigabytes", OldData::Untouched, &["manifest"]);
}
