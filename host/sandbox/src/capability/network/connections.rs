//! The connections of one step of a run. Checks which connections are granted and to which addresses they may go, and bounds their number.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use replica::usage::Amount;
use replica::{CapabilityKind, Level};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::address::Reach;
use super::allowance::{Allowance, Limit, Meter};
use super::metered::{IDLE, Metered, Shared};
use super::names::{LookupError, Names, Resolve};
use super::server::{Host, Server, ServerGrant};
use super::tls::Tls;
use super::{Capability, Network};
use crate::Grants;
use crate::calls::Ongoing;
use crate::capability::Remedies;
use crate::reporter::Reporter;

/// How many sockets and requests a method may have at once.
pub(super) const CONNECTIONS: usize = 16;
/// How long connecting may take, including all addresses of a server. The TLS handshake may take as long again.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an address of a server may take before the next one is tried as well (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// How many different reasons for not reaching one server are reported in one step.
const COMPLAINTS: usize = 20;

/// The state that all steps of one method share: the addresses of names, and the bytes that were used. Clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct NetworkUse {
    names: Names,
    total: Arc<Allowance>,
    of_servers: Arc<BTreeMap<Server, Arc<Allowance>>>,
    of_connection: Arc<Limit>,
}

impl NetworkUse {
    /// Makes the state for a method that has these grants and has not used anything yet.
    pub(crate) fn new(grants: &Grants, resolver: Arc<dyn Resolve>) -> Self {
        let limited = grants.network.iter().filter_map(|(server, grant)| {
            let limit = Limit::new(grant.bytes?, format!("`bytes` of {server}"));
            Some((server.clone(), Arc::new(Allowance::new(limit))))
        });
        let total = Limit::new(grants.network_bytes, "`network_bytes`".to_owned());
        let of_connection = grants.connection_bytes.unwrap_or(grants.network_bytes);
        Self {
            names: Names::new(resolver),
            total: Arc::new(Allowance::new(total)),
            of_servers: Arc::new(limited.collect()),
            of_connection: Limit::new(of_connection, "`connection_bytes` of one connection".to_owned()),
        }
    }

    /// Returns how many bytes were sent to and received from all servers in the run, and how many may be.
    pub(crate) fn bytes(&self) -> Amount {
        self.total.used()
    }

    /// Returns the most bytes that one connection of the run has exchanged, and how many each may.
    pub(crate) fn connection_bytes(&self) -> Amount {
        self.of_connection.used()
    }
}

/// Why a connection could not be made.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// No grant covers the connection. The denial was reported.
    Denied,
    /// The name could not be resolved.
    Unresolved(LookupError),
    /// The method has too many connections.
    TooMany,
    /// All addresses of the server refused the connection.
    Refused(io::Error),
    /// The server did not answer in time.
    Timeout,
}

/// The connections of one step. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Inner>);

struct Inner {
    used: NetworkUse,
    remedies: Remedies,
    reporter: Reporter,
    runtime: Handle,
    permits: Arc<Semaphore>,
    /// The complaints that were reported about each server.
    complaints: Mutex<BTreeMap<Server, BTreeSet<String>>>,
    /// Whether it was reported that the method wants too many connections.
    is_bound_reported: AtomicBool,
    tls: Tls,
}

impl Connections {
    /// Makes the connections of a step. Names are resolved on `runtime`, whose threads must not be restricted.
    pub(crate) fn new(
        used: NetworkUse,
        remedies: Remedies,
        reporter: Reporter,
        runtime: Handle,
        tls: Tls,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        Self(Arc::new(Inner {
            used,
            remedies,
            reporter,
            runtime,
            permits,
            complaints: Mutex::default(),
            is_bound_reported: AtomicBool::new(false),
            tls,
        }))
    }

    fn grants(&self) -> &Grants {
        &self.0.remedies.grants
    }

    pub(super) fn tls(&self) -> &Tls {
        &self.0.tls
    }

    /// Returns the grant of a server; `None` if it is not granted.
    pub(super) fn grant(&self, server: &Server) -> Option<&ServerGrant> {
        self.grants().network.get(server)
    }

    /// Begins the record of a call, which the caller ends.
    pub(super) fn call(&self, function: &'static str, object: impl FnOnce() -> String) -> Ongoing {
        self.0.reporter.ongoing(CapabilityKind::Network, function, object)
    }

    /// Reports that `what` is denied, with the configuration line that would allow it. The caller notes the denial in the record of the
    /// call.
    pub(super) fn deny(&self, what: String, remedy: Option<String>) {
        self.0.reporter.denied_in_record(Network.denies(what, remedy));
    }

    /// Reports that a server is not granted. `what` names it as the component did.
    pub(super) fn deny_server(&self, server: &Server, what: String) {
        match server.host {
            // There is no remedy for a cloud's metadata service, because that grant would hand out the machine's credentials.
            Host::Address(address) if Reach::of(address) == Reach::Itself => {
                self.deny(format!("{what}, {}", Reach::Itself.words()), None);
            }
            Host::Name(_) if self.is_known_to_be_private(server) => {
                self.deny(what, self.0.remedies.private(server));
            }
            Host::Address(_) | Host::Name(_) => self.deny(what, self.0.remedies.server(server)),
        }
    }

    /// Returns whether the name of a server is known to lead to private addresses only, because another port of the name is granted.
    fn is_known_to_be_private(&self, server: &Server) -> bool {
        let Host::Name(name) = &server.host else { return false };
        let known = self.0.used.names.known(name).unwrap_or_default();
        known.into_iter().map(Reach::of).min() == Some(Reach::Private)
    }

    /// Reports to the operator why a server cannot be reached. The component gets only an error code. Each reason is reported only once, so
    /// that a method cannot hide one reason behind repetitions of another.
    pub(super) fn complain(&self, server: &Server, why: &dyn std::fmt::Display) {
        let why = why.to_string();
        let mut complaints = self.0.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let reported = complaints.entry(server.clone()).or_default();
        if reported.len() < COMPLAINTS && reported.insert(why.clone()) {
            let last = if reported.len() == COMPLAINTS { " (other reasons are not reported)" } else { "" };
            self.0.reporter.host(Level::Warn, &format!("{server}: {why}{last}"));
        }
    }

    /// Reserves one of the connections that a method may have at once; `None` if all are in use.
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().ok();
        if permit.is_none() && !self.0.is_bound_reported.swap(true, Ordering::Relaxed) {
            let why = format!("the method has {CONNECTIONS} connections, and may have no more at once");
            self.0.reporter.host(Level::Warn, &why);
        }
        permit
    }

    /// Returns the meter of a new connection to these servers.
    fn meter<'s>(&self, servers: impl IntoIterator<Item = &'s Server>, call: Ongoing) -> Meter {
        let used = &self.0.used;
        let own = servers.into_iter().filter_map(|server| used.of_servers.get(server).cloned());
        let of_connection = Arc::new(Allowance::new(Arc::clone(&used.of_connection)));
        let allowances = [Arc::clone(&used.total)].into_iter().chain(own).chain([of_connection]).collect();
        Meter { allowances, reporter: self.0.reporter.clone(), call }
    }

    /// Returns the state of a component's socket that is connected to an address. Its bytes count for every granted server at the address,
    /// because a TCP connection does not show which of these servers is meant. `call` is the record of the connection.
    pub(super) fn shared(&self, to: SocketAddr, call: Ongoing) -> Shared {
        Shared::new(self.meter(self.granted_at(to), call), IDLE)
    }

    /// Returns the addresses of a granted server to which connections may go.
    ///
    /// # Errors
    /// `Unresolved`; `Denied` if the name resolves only to addresses that the grant does not cover.
    pub(super) async fn addresses(&self, server: &Server) -> Result<Vec<SocketAddr>, NoConnection> {
        let name = match &server.host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, server.port)]),
            Host::Name(name) => name,
        };
        let private = self.grant(server).is_some_and(|grant| grant.private);
        let found = self.0.used.names.resolve(name, &self.0.runtime).await;
        let found = found.map_err(NoConnection::Unresolved)?;
        let allowed = found.iter().filter(|address| Reach::of(**address).is_allowed(private));
        let allowed: Vec<_> = allowed.map(|address| SocketAddr::new(*address, server.port)).collect();
        if allowed.is_empty() {
            self.deny_addresses(server, &found);
            return Err(NoConnection::Denied);
        }
        Ok(allowed)
    }

    /// Reports that the name of a granted server resolves only to addresses that the grant does not cover.
    fn deny_addresses(&self, server: &Server, found: &[IpAddr]) {
        let least = found.iter().min_by_key(|address| Reach::of(**address));
        let Some((address, reach)) = least.map(|address| (address, Reach::of(*address))) else { return };
        let what = format!("{server}, whose name leads to {address}, {}", reach.words());
        let remedy = match reach {
            Reach::Private => self.0.remedies.private(server),
            Reach::Public | Reach::Itself | Reach::Nothing => None,
        };
        self.deny(what, remedy);
    }

    /// Resolves a name for a component. Returns the addresses that are granted for at least one port of the name.
    ///
    /// # Errors
    /// `Denied` if no server with this name is granted; the errors of [`Connections::addresses`].
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, NoConnection> {
        let servers = || self.grants().network.iter().filter(|(server, _)| server.host.is_named(name));
        // A grant with `private = true` allows all addresses that a grant for another port of the name allows.
        let server = servers().find(|(_, grant)| grant.private).or_else(|| servers().next());
        let Some((server, _)) = server else {
            let remedy = self.0.remedies.name(name);
            self.deny(format!("the address of {}", crate::text::printable(name, 255)), remedy);
            return Err(NoConnection::Denied);
        };
        let addresses = self.addresses(server).await?;
        Ok(addresses.into_iter().map(|address| address.ip()).collect())
    }

    /// Returns the granted server at an address to which a component connects.
    ///
    /// # Errors
    /// `Denied` if the address is neither granted itself nor one to which the name of a granted server was resolved.
    pub(super) fn server_at(&self, to: SocketAddr) -> Result<Server, NoConnection> {
        if let Some(granted) = self.granted_at(to).next() {
            return Ok(granted.clone());
        }
        // The component resolved a granted name, but connects to another port.
        let other_port = self.grants().network.keys().find(|server| self.leads_to(server, to.ip()));
        match other_port.filter(|server| server.port != to.port()) {
            Some(Server { host, .. }) => {
                let server = Server { host: host.clone(), port: to.port() };
                self.deny_server(&server, format!("{server} ({})", to.ip()));
            }
            None => {
                let server = Server::at(to.ip(), to.port());
                self.deny_server(&server, server.to_string());
            }
        }
        Err(NoConnection::Denied)
    }

    /// Returns every granted server at an address: the address itself, and each name that was resolved to it.
    fn granted_at(&self, to: SocketAddr) -> impl Iterator<Item = &Server> {
        let itself = Server::at(to.ip(), to.port());
        let reach = Reach::of(to.ip());
        let granted = self.grants().network.iter().filter(move |(server, grant)| {
            let by_name = || reach.is_allowed(grant.private) && self.leads_to(server, to.ip());
            server.port == to.port() && (**server == itself || by_name())
        });
        granted.map(|(server, _)| server)
    }

    /// Returns whether the name of a server was resolved to an address.
    fn leads_to(&self, server: &Server, address: IpAddr) -> bool {
        match &server.host {
            Host::Name(name) => {
                let known = self.0.used.names.known(name);
                known.is_some_and(|known| known.contains(&address.to_canonical()))
            }
            Host::Address(_) => false,
        }
    }

    /// Allows WASI's sockets to connect to granted servers, and nothing else.
    pub(crate) fn allow(&self, wasi: &mut WasiCtxBuilder) {
        let own = self.clone();
        wasi.allow_tcp(true).socket_addr_check(move |to, used| {
            let allowed = match used {
                SocketAddrUse::TcpConnect => own.granted_at(to).next().is_some(),
                // Allows the implicit bind before a connect.
                SocketAddrUse::TcpBind => to.ip().is_unspecified() && to.port() == 0,
                _ => false,
            };
            Box::pin(async move { allowed })
        });
    }

    /// Connects to the first of these addresses that accepts the connection ([`dial`]). The bytes of the connection count in the record of
    /// `call`.
    ///
    /// # Errors
    /// `TooMany`, `Refused` and `Timeout`.
    pub(super) async fn connect(
        &self,
        server: &Server,
        addresses: &[SocketAddr],
        timeout: Duration,
        call: Ongoing,
    ) -> Result<Metered<TcpStream>, NoConnection> {
        let permit = self.permit().ok_or(NoConnection::TooMany)?;
        let stream = tokio::time::timeout(timeout.min(CONNECT_TIMEOUT), dial(addresses))
            .await
            .map_err(|_| NoConnection::Timeout)?
            .map_err(NoConnection::Refused)?;
        Ok(Metered::new(stream, self.meter([server], call), IDLE, permit))
    }
}

/// Connects to the first of these addresses that accepts the connection. Tries the next address when one has failed or has not answered for
/// [`NEXT_ADDRESS`], so that an address which drops packets does not block the others.
async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut addresses = addresses.iter().copied();
    let mut tries = JoinSet::new();
    let mut last = None;
    loop {
        if let Some(address) = addresses.next() {
            tries.spawn(TcpStream::connect(address));
        } else if tries.is_empty() {
            return Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
        tokio::select! {
            biased;
            Some(tried) = tries.join_next() => match tried.map_err(io::Error::other).flatten() {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            },
            () = tokio::time::sleep(NEXT_ADDRESS), if addresses.len() > 0 => {}
        }
    }
}

impl Host {
    fn is_named(&self, wanted: &str) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case(wanted),
            Self::Address(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_keep_the_others_from_being_tried() {
        // The system drops connections that do not fit into a full queue.
        let (full, silent) = listener();
        rustix::net::listen(&full, 0).unwrap();
        let queued = (0..10).map(|_| std::net::TcpStream::connect_timeout(&silent, NEXT_ADDRESS));
        let queued: Vec<_> = queued.take_while(Result::is_ok).collect();
        assert!(queued.len() < 10, "the queue has no end");
        let (_open, open) = listener();
        let refusing = {
            let (listener, address) = listener();
            drop(listener);
            address
        };
        let dialled = |addresses: Vec<SocketAddr>| async move {
            tokio::time::timeout(CONNECT_TIMEOUT, dial(&addresses)).await.unwrap()
        };
        let stream = dialled(vec![silent, refusing, open]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        assert_eq!(dialled(vec![refusing]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(dialled(vec![]).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
