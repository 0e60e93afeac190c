//! A method that does what a test says, on a real data directory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use replica::{Failure, Method, Plan, Refusal, Request, Run, SealRequests};

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Create = dyn Fn(Request, Run) -> Answer<Result<SealRequests, Failure>> + Send + Sync;
type Look = dyn Fn(Request, Run) -> Answer<Result<Plan, Failure>> + Send + Sync;

/// A method of the loop: preflight and plan say yes until told otherwise, `create` does what the test gave it.
#[derive(Clone)]
pub struct Scripted {
    name: String,
    preflight: Result<(), Refusal>,
    plan: Arc<Look>,
    create: Arc<Create>,
}

impl Scripted {
    /// A method of this name that fills the directory by `create`.
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

    /// The same, refused before it runs.
    #[must_use]
    pub fn refused(mut self, refusal: Refusal) -> Self {
        self.preflight = Err(refusal);
        self
    }

    /// The same with this plan.
    #[must_use]
    pub fn planning(self, plan: Plan) -> Self {
        self.looking(move |_, _| {
            let plan = plan.clone();
            async move { Ok(plan) }
        })
    }

    /// The same, finding out its plan as it is said.
    #[must_use]
    pub fn looking<F>(mut self, plan: impl Fn(Request, Run) -> F + Send + Sync + 'static) -> Self
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
