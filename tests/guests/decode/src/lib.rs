//! The method `decode`: restores what `pg_basebackup -Ft` writes by carrying every byte through the component. It reads,
//! decompresses, unpacks and checks within the sandbox, on one thread, what `tarball` leaves to the host. It is there to
//! be measured against; nobody should restore with it.

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
        told_to_stop(Backup::find(directory.as_ref()).and_then(|backup| look::plan(&backup)))
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let directory: String = request.require("directory")?;
        let datadir = Datadir::of(request)?;
        told_to_stop(Backup::find(directory.as_ref()).and_then(|backup| unpack::all(&backup, plan, &datadir)))
    }
}

/// What a decoder makes of a cancelled read is its own affair: a method that was told to stop was cancelled.
fn told_to_stop<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|failure| if is_cancelled() { Failure::Cancelled } else { failure })
}

understudy::export!(Decode);
