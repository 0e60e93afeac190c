//! Makes the server compute the size of its shared memory, which depends on many settings (`InitializeShmemGUCs` in `ipci.c`). Since
//! version 15, `postgres -C` can compute the size. The check runs it in a scratch directory that holds a copy of pg_control, because the
//! server first checks a few settings against that file (`PostmasterMain` in `postmaster.c`). Libraries are not loaded, so the size does
//! not include the memory that they need.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use foundation::rooted::Directory;

use super::super::configuration::{AUTO, LONGEST};
use super::super::problem::{During, Problem, shown_within};
use super::ask::{self, Server};
use super::{CHECK, Verdicts, access};

/// The first major version whose `postgres -C` computes the size.
const FIRST: u32 = 15;

/// The most characters of the server's messages that a report repeats.
const SHOWN: usize = 2000;

/// Messages with which the server rejects a configuration whose settings are each valid on their own.
const REFUSALS: [&str; 2] = ["\"wal_consistency_checking\"", "shared memory size overflows"];

/// The size of the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedMemory {
    pub(super) bytes: u64,
    /// The number of huge pages that the shared memory takes, in the page size that the server would use; `None` if the machine has no
    /// huge pages.
    pub(super) huge_pages: Option<u64>,
}

/// Returns the size; `None` if the server does not compute it. If the server rejects the configuration before it computes the size,
/// reports that.
pub(super) fn ask(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<Option<SharedMemory>, Problem> {
    let replica = server.replica;
    if replica.major < FIRST || replica.control_file.is_empty() {
        return Ok(None);
    }
    let Ok(scratch) = access::scratch(replica) else { return Ok(None) };
    copy_auto_conf(&replica.places.top, &scratch.path().join(access::DATA))?;
    let number = |name: &str| -> Result<Result<Option<u64>, String>, Problem> {
        let answer = ask::run_in(replica, arguments(server, scratch.path(), name), Some(scratch.path()))?;
        Ok(answer.map(|text| text.trim().parse().ok()))
    };
    let megabytes = match number("shared_memory_size")? {
        Ok(Some(megabytes)) => megabytes,
        Ok(None) => return Ok(None),
        Err(said) => {
            let words: Vec<&str> = said.lines().filter_map(ask::message_of).collect();
            if words.iter().any(|words| REFUSALS.iter().any(|refusal| words.contains(refusal))) {
                verdicts.missing(format!(
                    "PostgreSQL would not start from this configuration: {}. Correct it {}",
                    shown_within(words.join("; ").as_bytes(), SHOWN),
                    server.remedy("wal_consistency_checking")
                ))?;
            }
            return Ok(None);
        }
    };
    let huge_pages = number("shared_memory_size_in_huge_pages")?.ok().flatten();
    Ok(Some(SharedMemory { bytes: megabytes.saturating_mul(1 << 20), huge_pages }))
}

/// Copies postgresql.auto.conf into the scratch directory, which the server uses as its data directory.
fn copy_auto_conf(top: &Directory, data: &Path) -> Result<(), Problem> {
    if top.find(&AUTO).during(CHECK)?.is_some() {
        let bytes = top.read(&AUTO, LONGEST).during(CHECK)?;
        fs::write(data.join(AUTO.as_path()), bytes).during(CHECK)?;
    }
    Ok(())
}

fn arguments(server: &Server<'_>, scratch: &Path, name: &str) -> Vec<OsString> {
    let data = scratch.join(access::DATA);
    let mut directory = OsString::from("data_directory=");
    directory.push(&data);
    let mut arguments: Vec<OsString> = vec!["-C".into(), name.into(), "-D".into(), data.into()];
    let settings = [directory, server.file_argument(), "shared_preload_libraries=".into(), "ssl=off".into()];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".into(), setting]));
    arguments
}
