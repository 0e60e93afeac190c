//! The checksums of pages (`data_checksums`): in a backup whose files have no other checksums, they say whether the bytes are right.

use postgres_formats::Lsn;
use postgres_formats::control_file::RelationFiles;
use understudy::transfer::{Job, PageChecks};
use understudy::{Failure, OptionSpec, Request, log};

/// The option that says whether pages are checked.
const VERIFY: &str = "verify";

/// Returns the option `verify`.
pub fn option() -> OptionSpec {
    OptionSpec::flag(VERIFY).default(true).doc(
        "whether the checksums of pages are checked in files that have no other checksum, if the cluster has them \
         (`data_checksums`)",
    )
}

/// Returns whether `request` wants pages to be checked. They are unless it says otherwise.
///
/// # Errors
/// Fails if the value of the option is not a flag.
pub fn are_wanted(request: &Request) -> Result<bool, Failure> {
    Ok(request.get(VERIFY)?.unwrap_or(true))
}

/// Reads from the control file how files of relations are divided, if their pages have checksums; `None` if they have none. `failed` makes the
/// failure for a control file with checksums of a kind that is not known.
///
/// # Errors
/// That failure. It concerns only a restore that checks pages.
pub fn of_cluster(
    control_file: &[u8],
    failed: impl FnOnce(String) -> Failure,
) -> Result<Option<RelationFiles>, Failure> {
    RelationFiles::with_checksums(control_file)
        .map_err(|error| failed(format!("{error}: set `{VERIFY} = false` to restore without checking pages")))
}

/// Has the pages checked of the files that `job` will write. The backup began at `start`, where replay begins, and ended at `stop`.
///
/// # Errors
/// The error of the host.
pub fn check(job: &mut Job, files: RelationFiles, start: Lsn, stop: Lsn) -> Result<(), Failure> {
    let RelationFiles { page_size, segment_pages } = files;
    job.check_pages(PageChecks { page_size, segment_pages, start_lsn: start.0, stop_lsn: stop.0 })?;
    log::info!("the checksums of pages are checked; `{VERIFY} = false` restores without");
    Ok(())
}
