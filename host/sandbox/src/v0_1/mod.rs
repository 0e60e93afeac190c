//! Version 0.1 of the contract, `understudy:method@0.1.0`: its bindings, and one module for each interface. A module converts types and
//! calls the host. The capabilities decide what a component may do.

mod cancellation;
mod convert;
mod datadir;
mod digests;
mod exports;
mod keys;
mod log;
mod program;
mod progress;
mod source;
mod store;
mod transfer;
mod types;

use wasmtime::component::HasSelf;

use crate::contracts::Contract;
use crate::state::State;

mod bindings {
    //! The bindings that `bindgen!` generates from `wit/`.
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        reason = "generated from wit/, which is documented"
    )]

    wasmtime::component::bindgen!({
        path: "../../wit",
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

/// Version 0.1, with all its patch versions. Every interface is linked; a call that no grant covers is denied.
pub(crate) const CONTRACT: Contract = Contract {
    version: "0.1",
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

/// The type on which the bindings call host functions. For every interface, this is `State` itself.
type Own = HasSelf<State>;

fn own(state: &mut State) -> &mut State {
    state
}
