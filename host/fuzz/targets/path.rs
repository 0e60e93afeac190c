//! Fuzzes `RelativePath` with any text as the path of a plugin or an archive: an accepted path leads downwards, and is accepted again
//! unchanged.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Component;

use foundation::rooted::RelativePath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(path) = RelativePath::new(OsStr::from_bytes(text)) else { return };
    let clean = path.as_os_str().as_bytes();
    assert!(path.as_path().components().all(|component| matches!(component, Component::Normal(_))));
    assert!(!clean.is_empty() && clean.len() <= 4095 && !clean.contains(&0));
    let again = RelativePath::new(path.as_os_str()).expect("an accepted path is accepted again");
    assert_eq!(again.as_os_str(), path.as_os_str());
    // The normal form names the same place as the input.
    let given: Vec<&[u8]> =
        text.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    assert_eq!(clean, given.join(&b'/'));
    assert_eq!(path.file_name().as_bytes(), *given.last().expect("it is not empty"));
    assert_eq!(path.parent().is_some(), given.len() > 1);
});
