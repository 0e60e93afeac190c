//! `replica-method`: the interface that a component exports.

use async_trait::async_trait;
use replica::{Plan, Request};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::bindings::PluginPre;
use super::convert;
use crate::contracts::Exports;
use crate::guest_failure::GuestFailure;
use crate::inspection::Description;
use crate::options::Setting;
use crate::state::State;

/// Finds the exports of a linked component.
pub(super) fn of(linked: InstancePre<State>) -> wasmtime::Result<Box<dyn Exports>> {
    Ok(Box::new(PluginPre::new(linked)?))
}

#[async_trait]
impl Exports for PluginPre<State> {
    async fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Description> {
        let plugin = self.instantiate_async(&mut *store).await?;
        let description = plugin.understudy_method_replica_method().call_describe(store).await?;
        Ok(convert::description(description))
    }

    async fn plan(
        &self,
        store: &mut Store<State>,
        request: &Request,
        settings: &[Setting],
    ) -> wasmtime::Result<Result<Plan, GuestFailure>> {
        let plugin = self.instantiate_async(&mut *store).await?;
        let request = convert::request(request, settings);
        let plan = plugin.understudy_method_replica_method().call_plan(store, &request).await?;
        Ok(plan.map(convert::plan).map_err(convert::guest_failure))
    }

    async fn create_replica(
        &self,
        store: &mut Store<State>,
        request: &Request,
        settings: &[Setting],
        plan: &Plan,
    ) -> wasmtime::Result<Result<(), GuestFailure>> {
        let plugin = self.instantiate_async(&mut *store).await?;
        let (request, plan) = (convert::request(request, settings), convert::restore_plan(plan));
        let filled =
            plugin.understudy_method_replica_method().call_create_replica(store, &request, &plan).await?;
        Ok(filled.map_err(convert::guest_failure))
    }
}
