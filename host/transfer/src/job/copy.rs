//! Copying a local file without its bytes passing through this program, where nobody wants to see them.

use std::fs::File;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::state::{Origin, State};
use crate::error::Error;
use crate::sink::file::Output;

/// Smaller files are read and written: a call more costs more than it saves.
const SMALLEST: u64 = 64 << 10;

/// How much the kernel copies at once, in bytes: so long may it take until a cancelled job stops.
const AT_ONCE: u64 = 4 << 20;

/// Copies as much of `from` from byte `offset` on as `output` still wants, sharing its blocks where the file system can. What it
/// leaves is to be read and written.
///
/// # Errors
/// Where the budget or the disk is full, and where the kernel fails.
pub(crate) fn within_kernel(
    job: &State,
    origin: &Origin,
    from: &File,
    offset: u64,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    if output.is_hashed() || output.left() < SMALLEST {
        return Ok(());
    }
    if offset == 0 && output.position() == 0 && !origin.no_reflink.load(Ordering::Relaxed) {
        let length = from.metadata()?.len();
        if length == output.left() {
            output.agree(length)?;
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
        job.go_on()?;
        let count = output.left().min(AT_ONCE);
        output.agree(count)?;
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
            // Two file systems, or one that cannot: nothing was copied by this call.
            Err(
                Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::TXTBSY,
            ) => return Ok(()),
            Err(errno) => return Err(output.kernel_says("copy", errno.into())),
        }
    }
    Ok(())
}
