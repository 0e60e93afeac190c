//! Version 0.1 of the contract, `understudy:method@0.1.0`: its bindings, its types turned into the host's, and one
//! module for each of its interfaces.

mod cancellation;
mod convert;
mod datadir;
mod denied;
mod digests;
mod keys;
mod log;
mod program;
mod progress;
mod source;
mod store;
mod transfer;

use replica::{Plan, Request};
use wasmtime::Store;
use wasmtime::component::{HasSelf, InstancePre, Linker};

use crate::inspection::Description;
use crate::options::Setting;
use crate::state::State;

mod bindings {
    //! What `bindgen!` makes of `wit/`.
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
            "understudy:method/store.bucket": super::store::Bucket,
            "understudy:method/transfer.job": super::transfer::Work,
            "understudy:method/transfer.listing": super::transfer::Files,
        },
        imports: {
            "understudy:method/store": async | trappable,
            "understudy:method/transfer": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

use bindings::PluginPre;
use bindings::understudy::method as interfaces;

/// The interface that a component of this version exports; within 0.1 a later patch is the same interface.
pub(crate) const EXPORT: &str = "understudy:method/replica-method";

/// Why a component says that it created no replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing to restore here.
    NotApplicable(String),
    /// It may succeed later.
    RetryLater(String),
    /// It failed.
    Failed(String),
    /// It was asked to stop, and did.
    Cancelled,
}

/// A component of this version, linked, ready to be instantiated.
pub(crate) struct Component {
    plugin: PluginPre<State>,
}

/// Adds every interface of the contract; what is not granted answers that it is denied.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Own = HasSelf<State>;
    interfaces::types::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::log::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::progress::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::cancellation::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::source::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::datadir::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::keys::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::digests::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::store::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::transfer::add_to_linker::<State, Own>(linker, |state| state)?;
    interfaces::program::add_to_linker::<State, Own>(linker, |state| state)?;
    Ok(())
}

impl Component {
    /// Finds the exports of the contract.
    pub(crate) fn new(instance: InstancePre<State>) -> wasmtime::Result<Self> {
        Ok(Self { plugin: PluginPre::new(instance)? })
    }

    /// Calls `describe` in a new instance.
    pub(crate) async fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Description> {
        let plugin = self.plugin.instantiate_async(&mut *store).await?;
        let description = plugin.understudy_method_replica_method().call_describe(store).await?;
        Ok(convert::description(description))
    }

    /// Calls `plan` in a new instance.
    pub(crate) async fn plan(
        &self,
        store: &mut Store<State>,
        request: &Request,
        settings: &[Setting],
    ) -> wasmtime::Result<Result<Plan, Ended>> {
        let plugin = self.plugin.instantiate_async(&mut *store).await?;
        let request = convert::request(request, settings);
        let plan = plugin.understudy_method_replica_method().call_plan(store, &request).await?;
        Ok(plan.map(convert::plan).map_err(convert::ended))
    }

    /// Calls `create-replica` in a new instance.
    pub(crate) async fn create_replica(
        &self,
        store: &mut Store<State>,
        request: &Request,
        settings: &[Setting],
        plan: &Plan,
    ) -> wasmtime::Result<Result<(), Ended>> {
        let plugin = self.plugin.instantiate_async(&mut *store).await?;
        let (request, plan) = (convert::request(request, settings), convert::restore_plan(plan));
        let filled =
            plugin.understudy_method_replica_method().call_create_replica(store, &request, &plan).await?;
        Ok(filled.map_err(convert::ended))
    }
}
