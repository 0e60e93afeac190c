//! Connections of one step of a run: which are granted, to which addresses they go, and how many there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use replica::Level;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::address::Reach;
use super::allowance::{Allowance, Meter};
use super::metered::{IDLE, Metered, Shared};
use super::names::{LookupError, Names, Resolve};
use super::server::{Host, Server, ServerGrant};
use super::tls::Tls;
use super::{Capability, Network};
use crate::Grants;
use crate::capability::Remedies;
use crate::reporter::Reporter;

/// How many sockets and requests a method may have at once.
pub(super) const CONNECTIONS: usize = 16;
/// How long it may take to connect, over all addresses of a server, and to agree on TLS.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many failed connections of one step are reported.
const COMPLAINTS: u32 = 100;

/// What all steps of one method share: the addresses of names, and how many bytes are used up. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct NetworkUse {
    names: Names,
    total: Arc<Allowance>,
    of_servers: Arc<BTreeMap<Server, Arc<Allowance>>>,
}

impl NetworkUse {
    /// Makes the state for a method with these grants, which has used nothing.
    pub(crate) fn new(grants: &Grants, resolver: Arc<dyn Resolve>) -> Self {
        let limited = grants.network.iter().filter_map(|(server, grant)| {
            let allowance = Allowance::new(grant.bytes?, format!("`bytes` of {server}"));
            Some((server.clone(), Arc::new(allowance)))
        });
        Self {
            names: Names::new(resolver),
            total: Arc::new(Allowance::new(grants.network_bytes, "`network_bytes`".to_owned())),
            of_servers: Arc::new(limited.collect()),
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// No grant covers it. The denial is reported.
    Denied,
    /// The name has no address.
    Unresolved(LookupError),
    /// The method has too many connections.
    TooMany,
    /// No address of the server takes a connection.
    Refused(std::io::Error),
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
    complaints: AtomicU32,
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
            complaints: AtomicU32::new(0),
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

    /// Reports that `what` is denied, with the line that would allow it.
    pub(super) fn deny(&self, what: String, remedy: Option<String>) {
        self.0.reporter.denied(Network.denies(what, remedy));
    }

    /// Reports that a server is not granted. `what` names it as the component did.
    pub(super) fn deny_server(&self, server: &Server, what: String) {
        match server.host {
            // A line for the metadata service of a cloud would be an invitation to hand out the machine's credentials.
            Host::Address(address) if Reach::of(address) == Reach::Itself => {
                self.deny(format!("{what}, {}", Reach::Itself.words()), None);
            }
            Host::Address(_) | Host::Name(_) => self.deny(what, self.0.remedies.server(server)),
        }
    }

    /// Reports to the operator why a server cannot be reached, of which a component learns a code only.
    pub(super) fn complain(&self, server: &Server, why: &dyn std::fmt::Display) {
        if self.0.complaints.fetch_add(1, Ordering::Relaxed) < COMPLAINTS {
            self.0.reporter.host(Level::Warn, &format!("{server}: {why}"));
        }
    }

    /// Takes one of the connections that a method may have at once; `None` if it has them all.
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().ok();
        if permit.is_none() {
            let why = format!("the method has {CONNECTIONS} connections, and may have no more at once");
            if self.0.complaints.fetch_add(1, Ordering::Relaxed) < COMPLAINTS {
                self.0.reporter.host(Level::Warn, &why);
            }
        }
        permit
    }

    fn meter(&self, server: &Server) -> Meter {
        let used = &self.0.used;
        let own = used.of_servers.get(server).cloned();
        let allowances = [Arc::clone(&used.total)].into_iter().chain(own).collect();
        Meter { allowances, reporter: self.0.reporter.clone() }
    }

    /// Returns the state of a component's socket to a server.
    pub(super) fn shared(&self, server: &Server) -> Shared {
        Shared::new(self.meter(server), IDLE)
    }

    /// Returns the addresses of a granted server to which connections may go.
    ///
    /// # Errors
    /// `Unresolved`, and `Denied` if the name leads nowhere else than to addresses that the grant does not cover.
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

    /// Reports that the name of a granted server leads only to addresses that the grant does not cover.
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

    /// Returns the addresses of a name that a component resolves: those to which a connection to some port of it may go.
    ///
    /// # Errors
    /// `Denied` if no server of this name is granted, and as [`Connections::addresses`].
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, NoConnection> {
        let servers = || self.grants().network.iter().filter(|(server, _)| server.host.is_named(name));
        // A server with `private = true` leads to all addresses that another port of the same name does.
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
        if let Some(granted) = self.granted_at(to) {
            return Ok(granted);
        }
        // The component resolved a granted name and asks for another port of it.
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

    /// Returns the granted server at an address; `None` if no grant covers the address.
    fn granted_at(&self, to: SocketAddr) -> Option<Server> {
        let grants = self.grants();
        let itself = Server::at(to.ip(), to.port());
        if grants.network.contains_key(&itself) {
            return Some(itself);
        }
        let reach = Reach::of(to.ip());
        let granted = grants.network.iter().find(|(server, grant)| {
            server.port == to.port() && reach.is_allowed(grant.private) && self.leads_to(server, to.ip())
        });
        granted.map(|(server, _)| server.clone())
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

    /// Lets WASI's sockets connect to granted servers, and do nothing else.
    pub(crate) fn allow(&self, wasi: &mut WasiCtxBuilder) {
        let own = self.clone();
        wasi.allow_tcp(true).socket_addr_check(move |to, used| {
            let allowed = match used {
                SocketAddrUse::TcpConnect => own.granted_at(to).is_some(),
                // What the system does before it connects.
                SocketAddrUse::TcpBind => to.ip().is_unspecified() && to.port() == 0,
                _ => false,
            };
            Box::pin(async move { allowed })
        });
    }

    /// Connects to the first of these addresses that takes the connection.
    ///
    /// # Errors
    /// `TooMany`, `Refused` and `Timeout`.
    pub(super) async fn connect(
        &self,
        server: &Server,
        addresses: &[SocketAddr],
        timeout: Duration,
    ) -> Result<Metered<TcpStream>, NoConnection> {
        let permit = self.permit().ok_or(NoConnection::TooMany)?;
        let connect = async {
            let mut last = None;
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = Some(error),
                }
            }
            Err(NoConnection::Refused(last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())))
        };
        let stream = tokio::time::timeout(timeout.min(CONNECT_TIMEOUT), connect)
            .await
            .map_err(|_| NoConnection::Timeout)??;
        Ok(Metered::new(stream, self.meter(server), IDLE, permit))
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
