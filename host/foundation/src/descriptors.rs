//! Keeps the descriptors that a process was started with away from the programs that it starts.

/// The first descriptor after standard input, output and error.
const FIRST: i32 = 3;

/// Marks all descriptors that are open now, except standard input, output and error, as close-on-exec, so that no program inherits them
/// from this process. Paths such as `/dev/fd/7` still work in this process. Call this function at the beginning of `main`.
///
/// Landlock never judges a descriptor that is already open, so a confined program could use one that its starter forgot to close.
pub fn keep_from_programs() {
    keep_from_programs_from(FIRST);
}

/// Does the same as [`keep_from_programs`], but begins with the descriptor `first`, for a process that passes on the descriptors before it.
pub fn keep_from_programs_from(first: i32) {
    // Uses close_range(2), and on a kernel before Linux 5.11 goes through /proc/self/fd.
    close_fds::set_fds_cloexec_threadsafe(first, &[]);
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};
    use std::process::Command;

    use rustix::io::{FdFlags, fcntl_setfd};

    use super::*;

    #[test]
    fn a_program_inherits_no_descriptor_that_was_left_open() {
        let open = std::fs::File::open("/dev/null").unwrap();
        let is_inherited = || {
            let path = format!("/proc/self/fd/{}", open.as_raw_fd());
            Command::new("readlink").arg(path).output().unwrap().stdout == b"/dev/null\n"
        };
        let leave_open = || fcntl_setfd(open.as_fd(), FdFlags::empty()).unwrap();
        leave_open();
        assert!(is_inherited());
        keep_from_programs_from(open.as_raw_fd() + 1);
        assert!(is_inherited());
        keep_from_programs();
        assert!(!is_inherited());
    }
}
