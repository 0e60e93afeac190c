//! Fuzzes the parsers of `tablespace_map`: a parsed map is parsed again with the same result when it is written as PostgreSQL writes it,
//! and both parsers agree.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use postgres_formats::tablespace_map::{Mapped, parse, parse_absolute};

/// Returns the map as `do_pg_backup_start` writes it.
fn written(entries: &[Mapped]) -> Vec<u8> {
    let mut map = Vec::new();
    for Mapped { oid, location } in entries {
        map.extend_from_slice(format!("{oid} ").as_bytes());
        for byte in location {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                map.push(b'\\');
            }
            map.push(*byte);
        }
        map.push(b'\n');
    }
    map
}

fuzz_target!(|bytes: &[u8]| {
    let absolute = parse_absolute(bytes);
    let Ok(entries) = parse(bytes) else {
        assert!(absolute.is_err());
        return;
    };
    assert_eq!(parse(&written(&entries)).as_ref(), Ok(&entries));
    assert!(entries.iter().all(|entry| entry.oid > 0 && !entry.location.is_empty()));
    let oids: BTreeSet<_> = entries.iter().map(|entry| entry.oid).collect();
    assert_eq!(oids.len(), entries.len(), "every OID occurs once");
    let plain = |entry: &Mapped| entry.location[0] == b'/' && std::str::from_utf8(&entry.location).is_ok();
    assert_eq!(absolute.is_ok(), entries.iter().all(plain));
    if let Ok(absolute) = absolute {
        let bytes = |Mapped { oid, location }| Mapped { oid, location: String::into_bytes(location) };
        assert_eq!(absolute.into_iter().map(bytes).collect::<Vec<_>>(), entries);
    }
});
