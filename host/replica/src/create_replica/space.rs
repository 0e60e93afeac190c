//! Checks that what a plan writes fits on the disks.

use std::io;
use std::path::{Path, PathBuf};

use foundation::rooted::Directory;

use crate::datadir::FileSystemRoom;
use crate::{Bytes, Plan, Refusal, Rule};

/// Compares a plan with the room on the file systems that hold one of its `places`.
///
/// A plan says how much it writes in total, but not to which place. So its sizes are compared with the sums over these file systems.
pub(super) fn check(plan: &Plan, places: &[PathBuf], room: &[FileSystemRoom]) -> Result<(), Refusal> {
    let used: Vec<_> =
        room.iter().filter(|one| one.places.iter().any(|place| places.contains(place))).collect();
    let free =
        used.iter().fold(0_u64, |sum, one| sum.saturating_add(one.free.0).saturating_add(one.reclaimable.0));
    let free_files = used.iter().try_fold(0_u64, |sum, one| {
        one.free_files.map(|free| sum.saturating_add(free).saturating_add(one.reclaimable_files))
    });
    let seen: Vec<_> = used
        .iter()
        .filter_map(|one| one.places.iter().find(|place| places.contains(place)))
        .map(|place| place.display().to_string())
        .collect();
    let seen = seen.join(" and ");
    match plan.bytes {
        Some(bytes) if bytes.0 > free => {
            let free = Bytes(free);
            let message = format!(
                "the backup needs {bytes}, and at {seen} there is room for {free} once the old data is removed"
            );
            return Err(Refusal::new(Rule::Space, message));
        }
        Some(_) | None => {}
    }
    match (plan.files, free_files) {
        (Some(files), Some(free)) if files > free => {
            let message = format!(
                "the backup has {files} files, and at {seen} there are inodes for {free} once the old data is removed"
            );
            Err(Refusal::new(Rule::Space, message))
        }
        _ => Ok(()),
    }
}

/// Returns the room on the file systems of `places`, which need not exist yet, without what emptying them would free. Blocking.
pub(super) fn without_old_data(places: &[PathBuf]) -> io::Result<Vec<FileSystemRoom>> {
    let mut room: Vec<FileSystemRoom> = Vec::new();
    for place in places {
        let directory = existing(place)?;
        let device = directory.own_metadata()?.device;
        if let Some(known) = room.iter_mut().find(|known| known.device == device) {
            known.places.push(place.clone());
            continue;
        }
        let space = directory.space()?;
        room.push(FileSystemRoom {
            device,
            places: vec![place.clone()],
            free: Bytes(space.bytes),
            free_files: space.inodes,
            reclaimable: Bytes(0),
            reclaimable_files: 0,
        });
    }
    Ok(room)
}

/// Opens the directory, or the nearest directory above it that exists.
fn existing(path: &Path) -> io::Result<Directory> {
    for ancestor in path.ancestors() {
        match Directory::open(ancestor) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(place: &str, free: u64, free_files: Option<u64>) -> FileSystemRoom {
        FileSystemRoom {
            device: 1,
            places: vec![PathBuf::from(place)],
            free: Bytes(free),
            free_files,
            reclaimable: Bytes(0),
            reclaimable_files: 0,
        }
    }

    fn plan(bytes: u64, files: u64) -> Plan {
        Plan { bytes: Some(Bytes(bytes)), files: Some(files), ..Plan::default() }
    }

    fn data() -> [PathBuf; 1] {
        [PathBuf::from("/data")]
    }

    #[test]
    fn what_does_not_fit_is_refused_before_old_data_is_removed() {
        assert_eq!(check(&plan(100, 1), &data(), &[disk("/data", 100, None)]), Ok(()));
        let refusal = check(&plan(101, 1), &data(), &[disk("/data", 100, None)]).unwrap_err();
        assert_eq!(refusal.rule, Rule::Space);
        assert!(
            refusal.message.contains("101 B") && refusal.message.contains("/data"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn what_emptying_frees_counts() {
        let old =
            FileSystemRoom { reclaimable: Bytes(50), reclaimable_files: 5, ..disk("/data", 100, Some(10)) };
        assert_eq!(check(&plan(150, 15), &data(), std::slice::from_ref(&old)), Ok(()));
        assert!(check(&plan(151, 15), &data(), std::slice::from_ref(&old)).is_err());
        assert!(check(&plan(150, 16), &data(), &[old]).is_err());
    }

    #[test]
    fn inodes_count_where_the_file_system_has_a_number_of_them() {
        assert!(check(&plan(1, 11), &data(), &[disk("/data", 100, Some(10))]).is_err());
        assert!(check(&plan(1, 11), &data(), &[disk("/data", 100, None)]).is_ok());
    }

    #[test]
    fn only_file_systems_that_the_plan_writes_to_count() {
        let disks = [disk("/data", 100, None), disk("/fast", 100, None)];
        assert!(check(&plan(150, 1), &data(), &disks).is_err());
        assert!(check(&plan(150, 1), &["/data".into(), "/fast".into()], &disks).is_ok());
    }

    #[test]
    fn a_file_system_counts_once_however_many_places_lie_on_it() {
        let root = tempfile::tempdir().unwrap();
        let places = [root.path().join("data"), root.path().join("not/yet/there")];
        let room = without_old_data(&places).unwrap();
        assert_eq!(room.len(), 1);
        assert_eq!(room[0].places, places);
        assert!(check(&plan(1, 1), &places, &room).is_ok());
        assert!(check(&plan(u64::MAX, 1), &places, &room).is_err());
    }
}
