//! The method `decode`: restores a backup that `pg_basebackup -Ft` wrote. The component reads and writes every byte itself: it reads,
//! decompresses, unpacks and checks the files in the sandbox, on one thread. The method `tarball` leaves this work to the host.
//! `decode` exists for benchmarks and is not meant for use.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod backup;
mod codec;
mod look;
mod manifest;
mod unpack;

use understudy::{
    Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, is_cancelled,
};

use backup::Backup;

struct Decode;

impl Method for Decode {
    fn describe() -> Description {
        Description::new("decode", env!("CARGO_PKG_VERSION"), "restores pg_basebackup -Ft within the sandbox")
            .option(OptionSpec::text("directory").required().doc("the folder that holds base.tar"))
            .need(Need::new(NeedKind::Directory, "directory", "the backup is read from there"))
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        let directory: String = request.require("directory")?;
        or_cancelled(Backup::find(directory.as_ref()).and_then(|backup| look::plan(&backup)))
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let directory: String = request.require("directory")?;
        let datadir = Datadir::of(request)?;
        or_cancelled(Backup::find(directory.as_ref()).and_then(|backup| unpack::all(&backup, plan, &datadir)))
    }
}

/// Turns any failure after a cancellation into [`Failure::Cancelled`]: a decoder may turn a cancelled read into another error.
fn or_cancelled<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|failure| if is_cancelled() { Failure::Cancelled } else { failure })
}

understudy::export!(Decode);
