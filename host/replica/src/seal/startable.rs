//! Renames `global/pg_control`, which makes a data directory startable. PostgreSQL does not start without this file, so the first step of
//! the seal renames it to its unfinished name, and the last step renames it back. An interruption in between, even by SIGKILL, leaves a
//! directory from which PostgreSQL does not start.

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::control_file::{self, ControlFile, ControlFileError, NO_CHECKPOINT};
use postgres_formats::names;

use super::problem::{During, Problem};
use crate::Rule;

const CHECK: Rule = Rule::PgControl;
const GLOBAL: RelativePath = RelativePath::literal(names::GLOBAL);
const CONTROL_FILE: RelativePath = RelativePath::literal(names::CONTROL_FILE);
const UNFINISHED: RelativePath = RelativePath::literal(names::UNFINISHED_CONTROL_FILE);

/// The first step of the seal: renames pg_control to its unfinished name, if the method wrote it under its own name, and syncs `global/`.
pub(super) fn set_aside(top: &Directory) -> Result<(), Problem> {
    match top.find(&GLOBAL).during(CHECK)?.map(|metadata| metadata.kind) {
        Some(Kind::Directory) => {}
        Some(Kind::Link) => {
            // The link may lead to the pg_control of another cluster, and the server would follow the link.
            top.remove_file(&GLOBAL).during(CHECK)?;
            top.sync().during(CHECK)?;
            return Err(Problem::new(
                CHECK,
                "`global` is a link; links are not followed, and it was removed",
            ));
        }
        Some(Kind::File | Kind::Special) => return Err(Problem::new(CHECK, "`global` is not a directory")),
        None => return Err(Problem::new(CHECK, "there is no directory `global`: the backup is not whole")),
    }
    if let Some(control) = top.find(&CONTROL_FILE).during(CHECK)? {
        if control.kind == Kind::Directory {
            return Err(Problem::new(CHECK, "`global/pg_control` is a directory"));
        }
        if let Err(error) = top.rename(&CONTROL_FILE, &UNFINISHED) {
            top.remove_file(&CONTROL_FILE).during(CHECK)?;
            sync_global(top)?;
            return Err(Problem::new(CHECK, error.to_string()));
        }
    }
    sync_global(top)
}

/// Reads pg_control under its unfinished name.
pub(super) fn read(top: &Directory) -> Result<ControlFile, Problem> {
    ControlFile::parse(&bytes(top)?).map_err(unusable)
}

fn unusable(error: ControlFileError) -> Problem {
    Problem::new(CHECK, format!("`global/pg_control` cannot be used: it {error}"))
}

/// Returns the bytes of pg_control under its unfinished name.
pub(super) fn bytes(top: &Directory) -> Result<Vec<u8>, Problem> {
    if top.find(&UNFINISHED).during(CHECK)?.is_none() {
        let message = format!(
            "the method wrote neither `global/pg_control` nor `{}`: the backup is not whole",
            names::UNFINISHED_CONTROL_FILE
        );
        return Err(Problem::new(CHECK, message));
    }
    top.read(&UNFINISHED, control_file::SIZE).during(CHECK)
}

/// Writes an invalid checkpoint into pg_control under its unfinished name. A replica must start from its backup_label; if a person removes
/// that file, the server then refuses to start instead of starting from the wrong position.
pub(super) fn invalidate_checkpoint(top: &Directory) -> Result<(), Problem> {
    let before = bytes(top)?;
    let changed = control_file::with_checkpoint(&before, NO_CHECKPOINT).map_err(unusable)?;
    let mode = top.metadata(&UNFINISHED).during(CHECK)?.mode & 0o777;
    top.replace(&UNFINISHED, &changed, mode).during(CHECK)
}

/// The last step of the seal: renames pg_control back to its own name, and syncs the change. If the sync fails, renames pg_control to its
/// unfinished name again.
pub(super) fn put_in_place(top: &Directory) -> Result<(), Problem> {
    top.open_file(&UNFINISHED).and_then(|file| file.sync_all()).during(CHECK)?;
    top.rename(&UNFINISHED, &CONTROL_FILE).during(CHECK)?;
    let synced = sync_global(top).and_then(|()| top.sync().during(CHECK));
    if synced.is_err() && top.rename(&CONTROL_FILE, &UNFINISHED).is_err() {
        // The disk is failing, so this rename may fail too; nothing more can be tried.
        let _ = top.remove_file(&CONTROL_FILE);
    }
    synced
}

fn sync_global(top: &Directory) -> Result<(), Problem> {
    top.open_directory(&GLOBAL).and_then(|global| global.sync()).during(CHECK)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use postgres_formats::names::UNFINISHED_CONTROL_FILE;
    use postgres_formats::written::ControlFile as Written;

    use super::*;

    struct Tree {
        place: tempfile::TempDir,
        top: Directory,
    }

    fn tree() -> Tree {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("global")).unwrap();
        let top = Directory::open(place.path()).unwrap();
        Tree { place, top }
    }

    #[test]
    fn pg_control_is_renamed_first_and_renamed_back_last() {
        let Tree { place, top } = tree();
        let bytes = Written::in_production(7).bytes;
        fs::write(place.path().join("global/pg_control"), &bytes).unwrap();
        set_aside(&top).unwrap();
        assert!(!place.path().join("global/pg_control").exists());
        assert_eq!(read(&top).unwrap().system_identifier, 7);
        put_in_place(&top).unwrap();
        assert_eq!(fs::read(place.path().join("global/pg_control")).unwrap(), bytes);
        assert!(!place.path().join(UNFINISHED_CONTROL_FILE).exists());
    }

    #[test]
    fn the_checkpoint_of_the_set_aside_file_is_made_invalid() {
        let Tree { place, top } = tree();
        assert!(invalidate_checkpoint(&top).is_err());
        fs::write(place.path().join(UNFINISHED_CONTROL_FILE), Written::in_production(7).bytes).unwrap();
        invalidate_checkpoint(&top).unwrap();
        let control = read(&top).unwrap();
        assert_eq!((control.system_identifier, control.checkpoint), (7, NO_CHECKPOINT));
        assert!(!place.path().join("global/pg_control").exists());
    }

    #[test]
    fn a_new_pg_control_replaces_the_one_that_an_earlier_attempt_left() {
        let Tree { place, top } = tree();
        fs::write(place.path().join(UNFINISHED_CONTROL_FILE), Written::in_production(1).bytes).unwrap();
        fs::write(place.path().join("global/pg_control"), Written::in_production(2).bytes).unwrap();
        set_aside(&top).unwrap();
        assert_eq!(read(&top).unwrap().system_identifier, 2);
    }

    #[test]
    fn a_link_to_another_clusters_global_is_removed_and_its_target_stays() {
        let Tree { place, top } = tree();
        fs::rename(place.path().join("global"), place.path().join("elsewhere")).unwrap();
        fs::write(place.path().join("elsewhere/pg_control"), Written::in_production(7).bytes).unwrap();
        symlink("elsewhere", place.path().join("global")).unwrap();
        assert!(set_aside(&top).is_err());
        assert!(!place.path().join("global/pg_control").exists());
        assert!(place.path().join("elsewhere/pg_control").exists());
    }

    #[test]
    fn a_linked_pg_control_is_set_aside_and_not_read() {
        let Tree { place, top } = tree();
        fs::write(place.path().join("elsewhere"), Written::in_production(7).bytes).unwrap();
        symlink("../elsewhere", place.path().join("global/pg_control")).unwrap();
        set_aside(&top).unwrap();
        assert!(read(&top).is_err());
        assert!(!place.path().join("global/pg_control").exists());
    }

    #[test]
    fn a_directory_at_the_unfinished_name_does_not_keep_pg_control_in_place() {
        let Tree { place, top } = tree();
        fs::create_dir(place.path().join(UNFINISHED_CONTROL_FILE)).unwrap();
        fs::write(place.path().join("global/pg_control"), Written::in_production(7).bytes).unwrap();
        assert!(set_aside(&top).is_err());
        assert!(!place.path().join("global/pg_control").exists());
    }

    #[test]
    fn a_tree_without_pg_control_is_not_whole() {
        let Tree { place, top } = tree();
        set_aside(&top).unwrap();
        assert!(read(&top).unwrap_err().message.contains("not whole"));
        fs::remove_dir(place.path().join("global")).unwrap();
        assert!(set_aside(&top).is_err());
    }
}
