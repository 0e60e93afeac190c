//! A method that cannot be loaded. It has a place in the list like any other method: its preflight refuses it, nothing is touched, the
//! report has the reason, and the loop continues with the next method.

use async_trait::async_trait;
use replica::{Failure, Method, Outcome, Plan, Refusal, Request, Run, SealRequests};

/// A method whose preflight always refuses.
pub struct Refused {
    name: String,
    why: Refusal,
}

impl Refused {
    /// Creates a method of this name whose preflight refuses with `why`.
    pub fn new(name: &str, why: Refusal) -> Self {
        Self { name: name.to_owned(), why }
    }

    fn failure(&self) -> Failure {
        Failure::caused_by(Outcome::Rejected, format!("`{}` cannot be loaded", self.name), self.why.clone())
    }
}

#[async_trait]
impl Method for Refused {
    fn name(&self) -> &str {
        &self.name
    }

    async fn preflight(&self, _request: &Request) -> Result<(), Refusal> {
        Err(self.why.clone())
    }

    async fn plan(&self, _request: &Request, _run: &Run) -> Result<Plan, Failure> {
        Err(self.failure())
    }

    async fn create(&self, _request: &Request, _plan: &Plan, _run: &Run) -> Result<SealRequests, Failure> {
        Err(self.failure())
    }
}
