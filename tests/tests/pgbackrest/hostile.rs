//! Repositories of somebody who means harm: nothing is written outside, and each ends within its bounds with a sentence.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tests::pgbackrest::{BUNDLED, Info, PLAIN, Stanza};

use super::bad_input::{Kept, of};
use super::scene::{Old, fails};

/// How long the method may take, and what its end may take beyond that on a machine that is busy.
const TIMEOUT: &str = "timeout = \"90s\"\n";
const LONGEST: Duration = Duration::from_secs(120);

/// A repository with one full backup, whose files can be changed and put back.
struct Repository {
    stanza: Stanza,
    label: String,
    manifest: PathBuf,
    kept: Kept,
}

impl Repository {
    fn new(name: &str, bundle: bool) -> Self {
        let stanza = Stanza::start(name, 100, &[if bundle { BUNDLED } else { PLAIN }], "gz").unwrap();
        let label = stanza.backup(1, "full", &[]).unwrap();
        let manifest = stanza.backups(1, &format!("{label}/backup.manifest"));
        let kept = Kept::new(&stanza.backups(1, ""));
        Self { stanza, label, manifest, kept }
    }

    fn info(&self) -> Info {
        Info::read(&self.manifest).unwrap()
    }

    fn section(&self) -> String {
        of(&self.stanza, &self.label).replacen(
            "[method.pgbackrest]\n",
            &format!("[method.pgbackrest]\n{TIMEOUT}"),
            1,
        )
    }

    /// What becomes of this manifest.
    fn fails(&self, what: &str, info: &Info, old: Old, says: &[&str]) {
        info.write(&self.manifest, self.stanza.primary.playground.user()).unwrap();
        self.ends(what, old, says);
    }

    fn ends(&self, what: &str, old: Old, says: &[&str]) {
        let begun = Instant::now();
        fails(&self.stanza, what, &self.section(), old, says);
        assert!(begun.elapsed() < LONGEST, "{what} took {:?}", begun.elapsed());
        self.kept.back();
    }

    /// Must end with a replica, or with a sentence; nothing outside either way.
    fn replica_or_sentence(&self, what: &str, info: &Info, victim: &Path) {
        info.write(&self.manifest, self.stanza.primary.playground.user()).unwrap();
        let replica = self.stanza.folder("", &self.section()).unwrap();
        let before = tests::pgbackrest::snapshot(victim).unwrap();
        let ended = replica.create(&[]).unwrap();
        let attempt = ended.attempt("pgbackrest");
        let message = attempt["message"].as_str().unwrap_or_default();
        assert!(ended.code() == Some(0) || message.len() > 20, "{what}: {attempt}\n{}", ended.output);
        assert_eq!(tests::pgbackrest::snapshot(victim).unwrap(), before, "{what}: {attempt}");
        for entry in fs::read_dir(replica.datadir()).into_iter().flatten() {
            let entry = entry.unwrap();
            let is_wal = entry.file_name() == "pg_wal";
            assert!(
                is_wal || !entry.file_type().unwrap().is_symlink(),
                "{what}: {:?} is a link",
                entry.path()
            );
        }
        self.kept.back();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_name_that_leads_elsewhere_is_refused_by_name_before_anything_is_touched() {
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
            "pg_data/a\0b" => "not a name",
            _ => "leaves the data directory",
        };
        repository.fails(name, &info, Old::Untouched, &["backup.manifest", why]);
    }
    for name in ["pg_data/../escaped", "../escaped", &absolute, "pg_data/base//x"] {
        let mut info = repository.info();
        info.add("target:path", name, "{}");
        repository.fails(&format!("directory {name}"), &info, Old::Untouched, &["leaves the data directory"]);
    }
    let mut info = repository.info();
    info.add("target:file", "pg_data/PG_VERSION", &line);
    repository.fails("twice", &info, Old::Untouched, &["PG_VERSION"]);
    let mut info = repository.info();
    info.add("target:file", "pg_data/PG_VERSION/below", &line);
    let object = repository.stanza.backups(1, &format!("{}/pg_data/PG_VERSION", repository.label));
    fs::create_dir(&object).unwrap();
    fs::copy(object.with_extension("gz"), object.join("below.gz")).unwrap();
    for path in [object.join("below.gz"), object] {
        repository.stanza.primary.playground.user().own(&path).unwrap();
    }
    repository.fails("a file below a file", &info, Old::Emptied, &["PG_VERSION"]);
    for reference in ["../../../escaped", "/etc", "", "20260101-000000F/.."] {
        let mut info = repository.info();
        // The keys of a value stand in their order.
        let with = line.replacen(",\"repo-size", &format!(",\"reference\":\"{reference}\",\"repo-size"), 1);
        assert!(with.contains("reference"), "{with}");
        info.set("target:file", "pg_data/PG_VERSION", &with);
        repository.fails(&format!("reference {reference}"), &info, Old::Untouched, &["not a label"]);
    }
    for label in ["../../../escaped", "..", "20260101-000000F/../x"] {
        let section = of(&repository.stanza, label);
        fails(&repository.stanza, label, &section, Old::Untouched, &["backup"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_link_leads_nowhere_that_the_operator_did_not_map() {
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
    repository.replica_or_sentence("a linked file", &file, &victim);
    for (name, destination) in [("pg_xact", target.as_str()), ("base", "../../victim"), ("global", "/etc")] {
        let mut folder = repository.info();
        let path = format!("pg_data/{name}");
        folder.add("backup:target", &path, &format!("{{\"path\":\"{destination}\",\"type\":\"link\"}}"));
        folder.add("target:link", &path, &format!("{{\"destination\":\"{destination}\"}}"));
        repository.replica_or_sentence(&path, &folder, &victim);
    }
    // A tablespace that the operator's map does not have.
    let mut space = repository.info();
    space.add(
        "backup:target",
        "pg_tblspc/77777",
        &format!("{{\"path\":\"{target}\",\"tablespace-id\":\"77777\",\"tablespace-name\":\"x\",\"type\":\"link\"}}"),
    );
    space.add("target:link", "pg_data/pg_tblspc/77777", &format!("{{\"destination\":\"{target}\"}}"));
    space.add("target:path", "pg_tblspc/77777", "{}");
    repository.fails("a tablespace", &space, Old::Untouched, &["77777"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_size_that_lies_ends_with_the_files_name_and_few_bytes() {
    let repository = Repository::new("pgbr-sizes", false);
    let file = "pg_data/base/1/1247";
    let honest = repository.info().get("target:file", file).unwrap().to_owned();
    let size =
        format!("\"size\":{}", honest.split("\"size\":").nth(1).unwrap().split([',', '}']).next().unwrap());
    assert!(honest.contains(&size), "{honest}");

    // A gigabyte of nothing where a hundred kilobytes are said.
    let object = repository.stanza.backups(1, &format!("{}/{file}.gz", repository.label));
    let mut zip = std::process::Command::new("/bin/sh");
    zip.args(["-c", "head -c 1000000000 /dev/zero | gzip -1 >\"$0\""]).arg(&object);
    tests::server::run(&mut zip).unwrap();
    repository.ends("a bomb", Old::Emptied, &["base/1/1247"]);

    for (lie, old) in [
        ("\"size\":1", Old::Emptied),
        ("\"size\":1000000", Old::Emptied),
        // Four petabytes are on no disk here.
        ("\"size\":4503599627370496", Old::Untouched),
        ("\"size\":9223372036854775807", Old::Untouched),
        ("\"size\":18446744073709551615", Old::Untouched),
        ("\"size\":99999999999999999999", Old::Untouched),
        ("\"size\":-1", Old::Untouched),
        ("\"size\":1.5", Old::Untouched),
        ("\"size\":\"8192\"", Old::Untouched),
        ("\"size\":null", Old::Untouched),
    ] {
        let mut info = repository.info();
        info.replace("target:file", file, &size, lie);
        repository.fails(lie, &info, old, &["base/1/1247"]);
    }
    // Each is possible, and no disk here has room for them.
    let mut info = repository.info();
    for other in ["pg_data/base/1/1249", "pg_data/base/1/1255", file] {
        let value = info.get("target:file", other).unwrap();
        let own = value.split("\"size\":").nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
        info.replace("target:file", other, &format!("\"size\":{own}"), "\"size\":1099511627776");
    }
    repository.fails("the sum", &info, Old::Untouched, &["rejected"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_place_in_a_bundle_that_is_none_ends_with_a_sentence() {
    let repository = Repository::new("pgbr-bundles", true);
    let file = "pg_data/base/1/1247";
    let honest = repository.info().get("target:file", file).unwrap().to_owned();
    assert!(honest.contains("\"bni\":1"), "{honest}");
    for (lie, old) in [
        ("\"bni\":99", Old::Emptied),
        ("\"bni\":1,\"bno\":99999999999", Old::Emptied),
        ("\"bni\":1,\"bno\":18446744073709551615", Old::Untouched),
        ("\"bni\":-1", Old::Untouched),
        ("\"bni\":\"../../x\"", Old::Untouched),
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
    repository.fails("a stored size", &info, Old::Untouched, &["base/1/1247"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn more_entries_deeper_values_and_longer_lines_than_there_are_end_within_the_bounds() {
    let repository = Repository::new("pgbr-bounds", false);
    let mut info = repository.info();
    let line = info.get("target:file", "pg_data/PG_VERSION").unwrap().to_owned();
    for number in 0..1_000_000 {
        info.add("target:file", &format!("pg_data/base/1/{}", 5_000_000 + number), &line);
    }
    info.write(&repository.manifest, repository.stanza.primary.playground.user()).unwrap();
    let begun = Instant::now();
    // What does not fit the memory that a method has is told; what fits fails on the first file that is not there.
    let replica = repository.stanza.folder("", &repository.section()).unwrap();
    let ended = replica.create(&[]).unwrap();
    let attempt = ended.attempt("pgbackrest");
    assert!(ended.code() == Some(1) && attempt["message"].as_str().unwrap().len() > 20, "{attempt}");
    assert!(!replica.is_sealed() && begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
    println!("a million entries: {} after {:?}", attempt["message"], begun.elapsed());
    repository.kept.back();

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
            // Bits that nobody needs are no harm where they are left out.
            info.write(&repository.manifest, repository.stanza.primary.playground.user()).unwrap();
            let replica = repository.stanza.folder("", &repository.section()).unwrap();
            let ended = replica.create(&[]).unwrap();
            if ended.code() == Some(0) {
                let restored = tests::pgbackrest::snapshot(&replica.datadir()).unwrap();
                assert_eq!(restored["PG_VERSION"].mode & 0o7022, 0, "set-user-id and write bits are cleared");
            }
            repository.kept.back();
            continue;
        }
        repository.fails(what, &info, Old::Untouched, &["manifest"]);
    }
    // In backup.info too, which is read first.
    let file = repository.stanza.backups(1, "backup.info");
    let mut info = Info::read(&file).unwrap();
    info.set("backup:current", &repository.label, &deep)
        .write(&file, repository.stanza.primary.playground.user())
        .unwrap();
    repository.ends("deep, in backup.info", Old::Untouched, &["backup.info"]);

    // A file that no end is of.
    let mut huge = fs::File::create(&repository.manifest).unwrap();
    huge.write_all(b"[backrest]\n").unwrap();
    huge.set_len(3 << 30).unwrap();
    fs::remove_file(repository.manifest.with_extension("manifest.copy")).unwrap();
    repository.ends("three gigabytes", Old::Untouched, &["manifest"]);
}
