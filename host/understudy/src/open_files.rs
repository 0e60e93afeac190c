//! How many files the program may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// As many as a run could use: what it holds of them is bounded by what there is then.
const WANTED: u64 = 4096;

/// Raises the limit of open files to [`WANTED`], as far as whoever started the program lets it. Most systems allow 1024 unasked,
/// for programs that could not do with higher numbers, and many more to who asks.
pub(crate) fn allow_more() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        // Without it the program has fewer, and goes by that.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
