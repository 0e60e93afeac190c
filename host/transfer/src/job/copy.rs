//! Copies a local file within the kernel if neither a check nor a filter needs its bytes.

use std::fs::File;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::state::{Origin, State};
use crate::error::Error;
use crate::sink::file::Output;

/// Smaller files are read and written, because the additional system call would cost more than it saves.
const SMALLEST: u64 = 64 << 10;

/// How many bytes the kernel copies at once. A cancelled job stops after at most that many.
const AT_ONCE: u64 = 4 << 20;

/// Copies the bytes that `output` still needs, beginning at `offset` in the file `from`. Shares blocks if the file system can. The caller
/// must read and write the bytes that this function could not copy.
///
/// # Errors
/// Fails if the budget is used up, if the job is cancelled, or if copying fails, for example because the disk is full. Does not fail if the
/// kernel does not support the copy.
pub(crate) fn within_kernel(
    job: &State,
    origin: &Origin,
    from: &File,
    offset: u64,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    if output.is_checked() || output.left() < SMALLEST {
        return Ok(());
    }
    if offset == 0 && output.position() == 0 && !origin.no_reflink.load(Ordering::Relaxed) {
        let length = from.metadata()?.len();
        if length == output.left() {
            output.reserve(length)?;
            match rustix::fs::ioctl_ficlone(output.file(), from) {
                Ok(()) => {
                    output.copied(length);
                    return Ok(());
                }
                Err(_) => origin.no_reflink.store(true, Ordering::Relaxed),
            }
        }
    }
    let mut read_from = offset;
    while output.left() > 0 {
        job.fail_if_cancelled()?;
        let count = output.left().min(AT_ONCE);
        output.reserve(count)?;
        let mut write_to = output.position();
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(
            from,
            Some(&mut read_from),
            output.file(),
            Some(&mut write_to),
            most,
        ) {
            Ok(0) => return Ok(()),
            Ok(copied) => output.copied(copied as u64),
            Err(Errno::INTR) => {}
            // The files are on two file systems, or their file system cannot copy; this call has copied nothing.
            Err(
                Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::TXTBSY,
            ) => return Ok(()),
            Err(errno) => return Err(output.io_error("copy", errno.into())),
        }
    }
    Ok(())
}
