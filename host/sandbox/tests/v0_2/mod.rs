//! A trial of a version 0.2 of the contract, `understudy:method@0.2.0`, in which one record of `store` has changed and one function is new.
//! The unchanged interfaces use the modules of 0.1, compiled against the bindings of 0.2.

#![expect(clippy::duplicate_mod, reason = "an interface that is the same has the same module")]

#[path = "../../src/v0_1/cancellation.rs"]
mod cancellation;
#[path = "../../src/v0_1/convert.rs"]
mod convert;
#[path = "../../src/v0_1/datadir.rs"]
mod datadir;
#[path = "../../src/v0_1/digests.rs"]
mod digests;
#[path = "../../src/v0_1/exports.rs"]
mod exports;
#[path = "../../src/v0_1/keys.rs"]
mod keys;
#[path = "../../src/v0_1/log.rs"]
mod log;
#[path = "../../src/v0_1/program.rs"]
mod program;
#[path = "../../src/v0_1/progress.rs"]
mod progress;
#[path = "../../src/v0_1/source.rs"]
mod source;
mod store;
mod tests;
#[path = "../../src/v0_1/transfer.rs"]
mod transfer;
#[path = "../../src/v0_1/types.rs"]
mod types;

use wasmtime::component::HasSelf;

use crate::contracts::Contract;
use crate::state::State;

mod bindings {
    //! The bindings that `bindgen!` generates from `wit/`.
    #![allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated from wit/")]

    wasmtime::component::bindgen!({
        path: "tests/v0_2/wit",
        world: "understudy:method/plugin",
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "understudy:method/keys.key": ::transfer::keys::Key,
            "understudy:method/digests.hasher": ::transfer::digest::Hasher,
            "understudy:method/store.pipeline": ::transfer::pipeline::Pipeline,
            "understudy:method/store.bucket": crate::capability::stores::Bucket,
            "understudy:method/transfer.job": crate::capability::datadir::transfer::TransferJob,
            "understudy:method/transfer.listing": crate::capability::datadir::transfer::FileListing,
            "understudy:method/transfer.chain": crate::capability::datadir::combined::FileChain,
        },
        trappable_error_type: { "understudy:method/types.error" => crate::answer::CallError },
        imports: {
            "understudy:method/store": async | trappable,
            "understudy:method/transfer": async | trappable,
            "understudy:method/program": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

use bindings::understudy::method as interfaces;

/// Version 0.2, with all its patch versions.
pub(crate) const CONTRACT: Contract = Contract {
    version: "0.2",
    interfaces: &[
        ("types", |linker| interfaces::types::add_to_linker::<State, Own>(linker, own)),
        ("log", |linker| interfaces::log::add_to_linker::<State, Own>(linker, own)),
        ("progress", |linker| interfaces::progress::add_to_linker::<State, Own>(linker, own)),
        ("cancellation", |linker| interfaces::cancellation::add_to_linker::<State, Own>(linker, own)),
        ("source", |linker| interfaces::source::add_to_linker::<State, Own>(linker, own)),
        ("datadir", |linker| interfaces::datadir::add_to_linker::<State, Own>(linker, own)),
        ("keys", |linker| interfaces::keys::add_to_linker::<State, Own>(linker, own)),
        ("digests", |linker| interfaces::digests::add_to_linker::<State, Own>(linker, own)),
        ("store", |linker| interfaces::store::add_to_linker::<State, Own>(linker, own)),
        ("transfer", |linker| interfaces::transfer::add_to_linker::<State, Own>(linker, own)),
        ("program", |linker| interfaces::program::add_to_linker::<State, Own>(linker, own)),
    ],
    exports: exports::of,
};

type Own = HasSelf<State>;

fn own(state: &mut State) -> &mut State {
    state
}
