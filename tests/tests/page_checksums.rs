//! The checksums of pages, against clusters of real servers: which files have pages, and whether a page is intact, as `pg_checksums` says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use postgres_formats::control_file::RelationFiles;
use postgres_formats::names::CONTROL_FILE;
use postgres_formats::page::{self, Verdict};
use tests::primary::Primary;
use tests::releases;
use tests::server::Playground;

/// A damaged page: its file, its number in the file, its checksum, and the one that it should have.
type Damaged = (String, usize, u16, u16);

/// The pages of a cluster.
#[derive(Debug, Default)]
struct Pages {
    files: usize,
    pages: usize,
    damaged: Vec<Damaged>,
}

impl Pages {
    /// Judges the pages of the files below `folder`. `name` is the folder's path in the data directory.
    fn judge(&mut self, folder: &Path, name: &str) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{name}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                self.judge(&path, &format!("{name}/"));
            } else if let Some(segment) = page::segment_of_relation(&name) {
                self.files += 1;
                let RelationFiles { page_size, segment_pages } = RelationFiles::DEFAULT;
                for (number, bytes) in fs::read(&path).unwrap().chunks(page_size as usize).enumerate() {
                    self.pages += 1;
                    match page::verify(bytes, segment * segment_pages + number as u32) {
                        Verdict::Intact | Verdict::Empty => {}
                        Verdict::NotEmpty => panic!("block {number} of {name} looks new and is not empty"),
                        Verdict::Mismatch { stored, computed } => {
                            self.damaged.push((name.clone(), number, stored, computed));
                        }
                    }
                }
            }
        }
    }
}

fn pg_checksums(primary: &Primary, datadir: &Path) -> Output {
    let playground = &primary.playground;
    let mut check = playground.user().command(playground.bin_dir().join("pg_checksums"));
    check.arg("--check").arg("--pgdata").arg(datadir).output().unwrap()
}

/// Returns the number after `name` in the output of `pg_checksums`.
fn number(output: &Output, name: &str) -> usize {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

fn agrees(playground: Playground, what: &str) {
    let primary = Primary::start_in(playground, 5_000).unwrap();
    let server = &primary.server;
    server.psql("CREATE UNLOGGED TABLE unlogged AS SELECT n FROM generate_series(1, 9000) n").unwrap();
    server.psql("VACUUM").unwrap();
    let file = server.psql("SELECT pg_relation_filepath('parcels')").unwrap();
    server.stop().unwrap();
    let datadir = server.datadir();
    let control = fs::read(datadir.join(CONTROL_FILE)).unwrap();
    assert_eq!(RelationFiles::with_checksums(&control), Ok(Some(RelationFiles::DEFAULT)), "{what}");
    let judged = || {
        let mut pages = Pages::default();
        pages.judge(datadir, "");
        pages
    };
    let checked = pg_checksums(&primary, datadir);
    assert!(checked.status.success(), "{what}: {checked:?}");
    let pages = judged();
    assert_eq!(pages.damaged, [], "{what}");
    let counted = (number(&checked, "Files scanned:"), number(&checked, "Blocks scanned:"));
    assert_eq!((pages.files, pages.pages), counted, "{what}");
    // A page at the place of another, in a tablespace.
    let path: PathBuf = datadir.join(&file);
    let mut bytes = fs::read(&path).unwrap();
    let size = RelationFiles::DEFAULT.page_size as usize;
    bytes.copy_within(size..2 * size, 2 * size);
    fs::write(&path, bytes).unwrap();
    let [(name, block, stored, computed)] = &judged().damaged[..] else {
        panic!("{what}: not one damaged page")
    };
    assert_eq!((name, *block), (&file, 2), "{what}");
    let told = String::from_utf8_lossy(&pg_checksums(&primary, datadir).stderr).into_owned();
    let wanted = format!("block 2: calculated checksum {computed:X} but block contains {stored:X}");
    assert!(told.contains(&wanted), "{what}: `{wanted}` is not in {told}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn pages_are_judged_as_pg_checksums_judges_them() {
    agrees(Playground::new("pages-15").unwrap(), "PostgreSQL 15");
    for major in [17, 18] {
        agrees(
            releases::playground(&format!("pages-{major}"), major).unwrap(),
            &format!("PostgreSQL {major}"),
        );
    }
}
