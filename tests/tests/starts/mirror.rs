//! Links and unusual names in a copy of a data directory.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use tests::primary::Primary;

use crate::assert_fails;

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_linked_configuration_file_is_mirrored_if_the_link_stays_inside_the_copy() {
    let primary = Primary::start("mirror-links", 500).unwrap();
    let section = primary.copy_for_mirror().unwrap();
    let primary = primary.restarted().unwrap();
    let copy = primary.playground.path("backups/cold");
    primary.playground.user().directory(&copy.join("etc")).unwrap();
    for name in ["pg_hba.conf", "postgresql.conf"] {
        fs::rename(copy.join(name), copy.join("etc").join(name)).unwrap();
        symlink(format!("etc/{name}"), copy.join(name)).unwrap();
    }
    let replica = primary.replica("within", &["mirror"], "", &section).unwrap();
    replica.created_by("mirror").unwrap();
    for name in ["pg_hba.conf", "postgresql.conf"] {
        let restored = replica.datadir().join(name);
        assert!(fs::symlink_metadata(&restored).unwrap().is_file(), "{name}");
        assert_eq!(fs::read(restored).unwrap(), fs::read(copy.join("etc").join(name)).unwrap(), "{name}");
    }
    primary.streams_to(&replica).unwrap();

    fs::remove_file(copy.join("pg_hba.conf")).unwrap();
    symlink(primary.server.datadir().join("pg_hba.conf"), copy.join("pg_hba.conf")).unwrap();
    let replica = primary.replica("out", &["mirror"], "", &section).unwrap();
    let ended = assert_fails(&replica, "mirror", &["pg_hba.conf", "put a file there"]);
    assert!(
        ended.output.contains("cold/pg_hba.conf: it is a link to a place that is not granted"),
        "{}",
        ended.output
    );
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_file_name_that_is_not_utf_8_is_reported_with_its_bytes() {
    let primary = Primary::start("mirror-names", 100).unwrap();
    let section = primary.copy_for_mirror().unwrap();
    let primary = primary.restarted().unwrap();
    let copy = primary.playground.path("backups/cold");
    let name = OsStr::from_bytes(b"old\xFFdump\x1b[2J");
    fs::write(copy.join("base").join(name), "x").unwrap();
    let replica = primary.replica("replica", &["mirror"], "", &section).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts().last(), Some(&("mirror", "failed")), "{}", ended.output);
    assert!(ended.output.contains(r"old\xffdump\x1b[2J"), "{}", ended.output);
    assert!(ended.output.contains("cold/base holds a name that is not UTF-8"), "{}", ended.output);
}
