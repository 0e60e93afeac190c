//! The reserved names, which nothing below a data directory may have while a run fills the directory.
//!
//! PostgreSQL starts from a directory that has `global/pg_control`. So until the host has sealed a replica, nothing may appear at
//! that path, whether it is written, unpacked, linked, or moved there with a whole directory. A rule on paths would have to follow
//! every rename; a rule on names applies in every directory:
//!
//! - no entry may be created with, renamed to or linked to the name `pg_control`, in any directory;
//! - a directory `global` may be created, but nothing may be renamed or linked to that name. So a directory that was filled under
//!   another name never becomes `global`.
//!
//! PostgreSQL has no other file and no other directory of these names (`src/include/access/xlog_internal.h`,
//! `src/bin/initdb/initdb.c`). One path is exempt: a transfer may be given the path in
//! [`Target::renamed`](crate::target::Target::renamed) (`global/pg_control`), because the file is written under another name until the
//! host renames it. The crate `sandbox` enforces these rules for WASI's calls, and [`Target`](crate::target::Target) enforces them for
//! every file and directory in a transfer, including members of archives.

pub use postgres_formats::names::{GLOBAL, PG_CONTROL as CONTROL_FILE};

/// Returns whether a lookup of `pg_control` could find an entry with this name. A file system that ignores case could find other spellings.
pub fn is_control_file(name: &[u8]) -> bool {
    is_found_as(name, CONTROL_FILE)
}

/// Returns whether a lookup of `global` could find an entry with this name.
pub fn is_global(name: &[u8]) -> bool {
    is_found_as(name, GLOBAL)
}

/// Returns whether any component of a `/`-separated path is `pg_control`.
pub fn has_control_file(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(is_control_file)
}

/// A directory of ext4, f2fs or tmpfs may ignore case, and then also ignores invisible code points
/// (Documentation/filesystems/ext4, `casefold`; fs/unicode). No letter outside of ASCII folds to a letter of the two names. So this
/// compares names without case and without non-ASCII bytes. That matches every name under which such a directory would find `reserved`, and
/// few other names.
fn is_found_as(name: &[u8], reserved: &str) -> bool {
    name.iter().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase).eq(reserved.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_reserved_in_every_spelling_that_a_file_system_may_accept() {
        for name in
            ["pg_control", "PG_CONTROL", "Pg_Control", "pg_\u{200b}control", "\u{ad}pg_control\u{fe0f}"]
        {
            assert!(is_control_file(name.as_bytes()), "{name:?}");
        }
        for name in ["pg_control.understudy", "pg_control2", "xpg_control", "pg_contro", "", "global"] {
            assert!(!is_control_file(name.as_bytes()), "{name:?}");
        }
        assert!(is_global(b"GLOBAL") && !is_global(b"global2") && !is_global(b"pg_control"));
    }

    #[test]
    fn a_name_is_reserved_at_any_depth() {
        for path in ["pg_control", "a/pg_control", "pg_control/a", "a/pg_control/b", "a/PG_control"] {
            assert!(has_control_file(path.as_bytes()), "{path}");
        }
        assert!(!has_control_file(b"global/pg_control.understudy"));
    }
}
