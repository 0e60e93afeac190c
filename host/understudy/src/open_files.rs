//! The limit of open files.

use rustix::process::{Resource, getrlimit, setrlimit};

/// The limit that is set if the system allows it. The data plane adapts the number of its open files to the limit.
const WANTED: u64 = 4096;

/// Raises the soft limit of open files to [`WANTED`], or to the hard limit if that is lower. Most systems have a soft limit of 1024,
/// because some programs cannot handle higher descriptor numbers, and a far higher hard limit.
pub(crate) fn allow_more() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        // If this fails, the program works with the lower limit.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
