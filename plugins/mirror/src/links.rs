//! Follows symbolic links in a copy. A link to a file within the copy is copied as that file. For example, `postgresql.conf` may be a
//! link to the file that the operator edits. Links that lead out of the copy are not followed.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::layout::Layout;

/// How many links in a chain are followed. Linux has the same limit.
const MOST: usize = 40;

/// Where a link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// To a file within the copy.
    ToFile(PathBuf),
    /// To a folder within the copy.
    ToFolder(PathBuf),
    /// To a missing file within the copy, or into a loop of links.
    Nowhere,
    /// Out of the copy; `None` if the target cannot be read.
    Out(Option<PathBuf>),
}

/// Follows the link `path`, which is part of the copy.
pub(crate) fn follow(layout: &Layout, path: &Path) -> Leads {
    let mut at = path.to_owned();
    for _ in 0..MOST {
        let Ok(target) = fs::read_link(&at) else { return Leads::Out(None) };
        let Some(next) = resolved(at.parent().unwrap_or(Path::new("/")), &target) else {
            return Leads::Out(Some(target));
        };
        if !layout.roots().any(|root| next.starts_with(root)) {
            return Leads::Out(Some(next));
        }
        // A directory in the path that is itself a link could lead anywhere.
        if has_linked_folder(layout, &next) {
            return Leads::Out(Some(next));
        }
        match fs::symlink_metadata(&next).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_file() => return Leads::ToFile(next),
            Ok(kind) if kind.is_dir() => return Leads::ToFolder(next),
            Ok(kind) if kind.is_symlink() => at = next,
            _ => return Leads::Nowhere,
        }
    }
    Leads::Nowhere
}

/// Resolves `target` from the directory `from`, without `.` and `..`; `None` if it leads above the root.
fn resolved(from: &Path, target: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in from.join(target).components() {
        match component {
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => resolved.push(component),
        }
    }
    Some(resolved)
}

/// Returns whether a directory between the root of the copy and `path` is a link.
fn has_linked_folder(layout: &Layout, path: &Path) -> bool {
    let Some(root) = layout.roots().find(|root| path.starts_with(root)) else { return true };
    let mut folders = path.ancestors().skip(1).take_while(|folder| *folder != root);
    folders.any(|folder| !fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.file_type().is_dir()))
}
