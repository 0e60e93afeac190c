//! Connections of components to servers: what is granted, what is denied, and every bound.

mod audit;
mod http;
mod sockets;
mod token;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use replica::Outcome;
use sandbox::{Resolve, ServerGrant};
use tests::certificates::{self, Authority};
use tests::scripted_server::{ScriptedServer, Stream};

use crate::stage::{Stage, component, text};

fn http_server(
    answer: impl Fn(&mut dyn Stream, &str) -> io::Result<()> + Send + Sync + 'static,
) -> ScriptedServer {
    ScriptedServer::http(answer).unwrap()
}

fn https_server(
    authority: &Authority,
    certificate: certificates::ServerCertificate,
    answer: impl Fn(&mut dyn Stream, &str) -> io::Result<()> + Send + Sync + 'static,
) -> ScriptedServer {
    ScriptedServer::https(authority, certificate, answer).unwrap()
}

fn tcp_server(answer: impl Fn(&mut dyn Stream) -> io::Result<()> + Send + Sync + 'static) -> ScriptedServer {
    ScriptedServer::tcp(answer).unwrap()
}

/// The component that connects to `address`.
fn caller(by: &str, address: &str) -> Stage {
    Stage::of(component("caller")).option("by", text(by)).option("address", text(address))
}

impl Stage {
    /// Grants a server.
    fn server(self, server: impl ToString, grant: ServerGrant) -> Self {
        self.grant(|grants| drop(grants.network.insert(server.to_string().parse().unwrap(), grant)))
    }

    /// Grants a server without settings.
    fn plain_server(self, server: impl ToString) -> Self {
        self.server(server, ServerGrant::default())
    }

    /// Returns the component's message about what it got.
    async fn gets(&self) -> String {
        self.create().await.unwrap_err().message
    }

    /// Checks that the component is denied. Returns what was denied, and the remedy.
    async fn is_denied(&self) -> (String, Option<String>) {
        let failure = self.create().await.unwrap_err();
        assert_eq!(failure.outcome, Outcome::Denied, "{}", failure.message);
        assert!(failure.message.contains("refused: "), "{}", failure.message);
        let denials = self.denials();
        assert_eq!(denials.len(), 1, "{denials:?}");
        (denials[0].what.clone(), denials[0].remedy.clone())
    }

    /// Checks that a line of the host's log contains `what`.
    fn logged(&self, what: &str) {
        let lines = self.lines();
        let is_there = lines.iter().any(|(origin, _, line)| origin == "host" && line.contains(what));
        assert!(is_there, "{what}: {lines:#?}");
    }
}

/// A resolver that gives one answer after another, and then repeats the last one.
#[derive(Debug)]
struct Lies {
    answers: Mutex<Vec<IpAddr>>,
    asked: Mutex<Vec<String>>,
}

impl Lies {
    fn new(answers: &[&str]) -> Arc<Self> {
        let answers = answers.iter().rev().map(|answer| answer.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl Resolve for Lies {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let last = answers.len() == 1;
        Ok(vec![if last { answers[0] } else { answers.pop().unwrap() }])
    }
}

fn private() -> ServerGrant {
    ServerGrant {
        private: true,
        settings: [("private".to_owned(), "true".to_owned())].into(),
        ..ServerGrant::default()
    }
}

/// `catalogue.test` at the port of an address.
fn named(address: SocketAddr) -> String {
    format!("catalogue.test:{}", address.port())
}
