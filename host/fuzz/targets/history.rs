//! Fuzzes the parser of timeline history files: timelines ascend, and a parsed history is parsed again with the same result when it is
//! written as PostgreSQL writes it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postgres_formats::history::{Fork, parse, parse_ascending};

fuzz_target!(|bytes: &[u8]| {
    let ascending = parse_ascending(bytes);
    let Ok(forks) = parse(bytes) else {
        assert!(ascending.is_err());
        return;
    };
    assert!(forks.is_sorted_by(|a, b| a.timeline < b.timeline));
    assert_eq!(ascending.is_ok(), forks.is_sorted_by(|a, b| a.at <= b.at));
    let line = |Fork { timeline, at }: &Fork| format!("{timeline}\t{at}\tno recovery target specified\n");
    let written: String = forks.iter().map(line).collect();
    assert_eq!(parse(written.as_bytes()), Ok(forks));
});
