//! A method whose behaviour a test defines, and which writes to a real data directory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use replica::source::SourceFacts;
use replica::{Failure, Lsn, Method, Plan, Refusal, Request, Run, SealRequests};

type BoxedFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type CreateFn = dyn Fn(Request, Run) -> BoxedFuture<Result<SealRequests, Failure>> + Send + Sync;
type PlanFn = dyn Fn(Request, Run) -> BoxedFuture<Result<Plan, Failure>> + Send + Sync;

/// A method for the loop. Preflight and plan succeed by default, and `create` calls the test's function.
#[derive(Clone)]
pub struct Scripted {
    name: String,
    preflight: Result<(), Refusal>,
    plan: Arc<PlanFn>,
    create: Arc<CreateFn>,
}

impl Scripted {
    /// Creates a method with this name that fills the directory with `create`.
    pub fn new<F>(name: &str, create: impl Fn(Request, Run) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<SealRequests, Failure>> + Send + 'static,
    {
        Self {
            name: name.to_owned(),
            preflight: Ok(()),
            plan: Arc::new(|_, _| Box::pin(async { Ok(Plan::default()) })),
            create: Arc::new(move |request, run| Box::pin(create(request, run))),
        }
    }

    /// Makes the preflight refuse the attempt.
    #[must_use]
    pub fn refusing(mut self, refusal: Refusal) -> Self {
        self.preflight = Err(refusal);
        self
    }

    /// Makes the method's plan step return this plan.
    #[must_use]
    pub fn planning(self, plan: Plan) -> Self {
        self.planning_with(move |_, _| {
            let plan = plan.clone();
            async move { Ok(plan) }
        })
    }

    /// Makes the method's plan step call `plan`.
    #[must_use]
    pub fn planning_with<F>(mut self, plan: impl Fn(Request, Run) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Plan, Failure>> + Send + 'static,
    {
        self.plan = Arc::new(move |request, run| Box::pin(plan(request, run)));
        self
    }
}

#[async_trait]
impl Method for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    async fn preflight(&self, _request: &Request) -> Result<(), Refusal> {
        self.preflight.clone()
    }

    async fn plan(&self, request: &Request, run: &Run) -> Result<Plan, Failure> {
        (self.plan)(request.clone(), run.clone()).await
    }

    async fn create(&self, request: &Request, _plan: &Plan, run: &Run) -> Result<SealRequests, Failure> {
        (self.create)(request.clone(), run.clone()).await
    }
}

/// Returns what a PostgreSQL 15 server with this system identifier reports about itself.
pub fn source_facts(system_identifier: u64) -> SourceFacts {
    SourceFacts {
        server_version: 150_018,
        system_identifier,
        timeline: 1,
        wal_position: Lsn(0x500_0000),
        history: Vec::new(),
        tablespaces: None,
    }
}
