//! A method for version 0.2 of the contract, which the sandbox supports only in its own tests. The method's plan names the objects in
//! the store `repo`.

#![allow(unsafe_code, reason = "wit-bindgen writes it, in part where it exports the method")]

#[allow(missing_docs, unreachable_pub, reason = "wit-bindgen writes it")]
mod contract {
    wit_bindgen::generate!({
        path: "../../../host/sandbox/tests/v0_2/wit",
        world: "plugin",
        generate_all,
    });
}

use contract::exports::understudy::method::replica_method::{
    Description, Failure, Guest, Request, RestorePlan,
};
use contract::understudy::method::store::Bucket;
use contract::understudy::method::types::Error;

struct Contract02;

impl Guest for Contract02 {
    fn describe() -> Description {
        Description {
            name: "contract-0-2".to_owned(),
            version: "1".to_owned(),
            summary: "says what the store repo has".to_owned(),
            options: Vec::new(),
            needs: Vec::new(),
        }
    }

    fn plan(_: Request) -> Result<RestorePlan, Failure> {
        let repo = Bucket::open("repo").map_err(failed)?;
        let there = repo.exists("there").map_err(failed)?;
        let absent = repo.exists("absent").map_err(failed)?;
        let modified = repo.head("there").map_err(failed)?.modified_ms;
        Ok(RestorePlan {
            backup: format!("there: {there}, absent: {absent}, modified: {modified:?}"),
            postgresql_major: None,
            system_identifier: None,
            timeline: None,
            start_lsn: None,
            stop_lsn: None,
            bytes: None,
            files: None,
            tablespaces: Vec::new(),
            builds_on_existing: false,
        })
    }

    fn create_replica(_: Request, _: RestorePlan) -> Result<(), Failure> {
        Ok(())
    }
}

fn failed(error: Error) -> Failure {
    Failure::Failed(match error {
        Error::Denied(why) => format!("denied: {why}"),
        error => format!("{error:?}"),
    })
}

// The linker for native programs does not accept the names of a component's exports.
#[cfg(target_arch = "wasm32")]
contract::export!(Contract02 with_types_in contract);
