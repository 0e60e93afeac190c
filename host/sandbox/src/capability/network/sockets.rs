//! `wasi:sockets`: TCP connections to granted servers. A component cannot listen, bind a socket or use UDP. WASI's own implementation does
//! the work. This module checks each connection before it is made, and counts its bytes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::vec;

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::ResolveAddressStream;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Network as NetworkHandle,
};
use wasmtime_wasi::p2::bindings::sockets::{
    ip_name_lookup, network, tcp, tcp_create_socket, udp_create_socket,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, Pollable, SocketError, SocketResult, TcpSocket, UdpSocket,
    pipe, subscribe,
};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, poll_noop, spawn};
use wasmtime_wasi::sockets::WasiSocketsCtxView;

use super::connections::{Connections, NoConnection};
use super::metered::MeteredStream;
use super::names::LookupError;
use super::server::Server;
use super::{Capability, Network};
use crate::calls::{DENIED, Ongoing};
use crate::reporter::Reporter;
use crate::state::State;

/// The sockets of a component, by their handles.
#[derive(Default)]
pub(crate) struct Sockets(HashMap<u32, Socket>);

/// What the host knows about a socket in addition to WASI's own state.
struct Socket {
    /// Where it is connecting to, and the record of that call.
    to: Option<(SocketAddr, Ongoing)>,
    /// Given back when the socket is dropped.
    _permit: OwnedSemaphorePermit,
}

/// The network during one call.
pub(super) struct NetworkView<'a> {
    wasi: WasiSocketsCtxView<'a>,
    reporter: &'a Reporter,
    connections: Option<&'a Connections>,
    sockets: &'a mut Sockets,
}

/// Marks [`NetworkView`] for the linker.
pub(super) struct NetworkData;

impl HasData for NetworkData {
    type Data<'a> = NetworkView<'a>;
}

impl NetworkView<'_> {
    /// Returns the view of a component's state.
    pub(super) fn of(state: &mut State) -> NetworkView<'_> {
        NetworkView {
            wasi: WasiSocketsCtxView { ctx: state.wasi.sockets(), table: &mut state.table },
            reporter: &state.reporter,
            connections: state.job.network.as_ref(),
            sockets: &mut state.sockets,
        }
    }

    fn deny<T>(&self, what: &str) -> SocketResult<T> {
        self.reporter.denied(Network.denies(what.to_owned(), None));
        Err(ErrorCode::AccessDenied.into())
    }
}

impl network::Host for NetworkView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.wasi.network_error_code(error)
    }
}

impl network::HostNetwork for NetworkView<'_> {
    fn drop(&mut self, network: Resource<NetworkHandle>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.wasi, network)
    }
}

impl tcp_create_socket::Host for NetworkView<'_> {
    /// Creating a socket is not denied, because a socket without a connection is harmless. A denial of the connection can name the server.
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let Some(connections) = self.connections else { return self.deny("a TCP socket") };
        let permit = connections.permit().ok_or(ErrorCode::NewSocketLimit)?;
        let socket = self.wasi.create_tcp_socket(family)?;
        self.sockets.0.insert(socket.rep(), Socket { to: None, _permit: permit });
        Ok(socket)
    }
}

impl udp_create_socket::Host for NetworkView<'_> {
    async fn create_udp_socket(&mut self, _family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.deny("a UDP socket")
    }
}

impl tcp::Host for NetworkView<'_> {}

impl tcp::HostTcpSocket for NetworkView<'_> {
    async fn start_bind(
        &mut self,
        _socket: Resource<TcpSocket>,
        _network: Resource<NetworkHandle>,
        _address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.deny("to bind a TCP socket to an address")
    }

    fn finish_bind(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.wasi.finish_bind(socket)
    }

    fn start_connect(
        &mut self,
        socket: Resource<TcpSocket>,
        network: Resource<NetworkHandle>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        let Some(connections) = self.connections else { return self.deny("a TCP connection") };
        let to = SocketAddr::from(address);
        let server = connections.server_at(to).map_err(code);
        let call = connections.call("tcp.start-connect", || match &server {
            Ok(server) if *server != Server::at(to.ip(), to.port()) => format!("{server} ({})", to.ip()),
            Ok(_) | Err(_) => to.to_string(),
        });
        server.inspect_err(|code| call.fails(word(*code)))?;
        let handle = socket.rep();
        self.wasi.start_connect(socket, network, address).inspect_err(|error| note(&call, error))?;
        // The state changes only after WASI has accepted the call: a refused call does not change where the socket leads.
        if let Some(known) = self.sockets.0.get_mut(&handle) {
            known.to = Some((to, call));
        }
        Ok(())
    }

    fn finish_connect(
        &mut self,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let to = self.sockets.0.get(&socket.rep()).and_then(|known| known.to.clone());
        let (Some(connections), Some((to, call))) = (self.connections, to) else {
            return Err(ErrorCode::NotInProgress.into());
        };
        let handle = socket.rep();
        let connected = self.wasi.finish_connect(socket);
        if let Err(error) = &connected {
            note(&call, error);
            if is_waiting(error) {
                return connected;
            }
        }
        // The streams take over the record. If there are no streams, the record ends here.
        if let Some(known) = self.sockets.0.get_mut(&handle) {
            known.to = None;
        }
        let (input, output) = connected?;
        call.succeeds();
        let shared = connections.shared(to, call);
        let stream = self.wasi.table.get_mut(&input)?;
        let inner = std::mem::replace(stream, Box::new(pipe::ClosedInputStream));
        *stream = Box::new(MeteredStream::new(inner, shared.clone()));
        let stream = self.wasi.table.get_mut(&output)?;
        let inner = std::mem::replace(stream, Box::new(pipe::ClosedOutputStream));
        *stream = Box::new(MeteredStream::new(inner, shared));
        Ok((input, output))
    }

    async fn start_listen(&mut self, _socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.deny("to listen on a TCP port")
    }

    fn finish_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.wasi.finish_listen(socket)
    }

    fn accept(
        &mut self,
        _socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.deny("to accept a TCP connection")
    }

    fn local_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        self.wasi.local_address(socket)
    }

    fn remote_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        self.wasi.remote_address(socket)
    }

    fn is_listening(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        self.wasi.is_listening(socket)
    }

    fn address_family(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        self.wasi.address_family(socket)
    }

    fn set_listen_backlog_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.wasi.set_listen_backlog_size(socket, value)
    }

    fn keep_alive_enabled(&mut self, socket: Resource<TcpSocket>) -> SocketResult<bool> {
        self.wasi.keep_alive_enabled(socket)
    }

    fn set_keep_alive_enabled(&mut self, socket: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        self.wasi.set_keep_alive_enabled(socket, value)
    }

    fn keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.wasi.keep_alive_idle_time(socket)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.wasi.set_keep_alive_idle_time(socket, value)
    }

    fn keep_alive_interval(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.wasi.keep_alive_interval(socket)
    }

    fn set_keep_alive_interval(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.wasi.set_keep_alive_interval(socket, value)
    }

    fn keep_alive_count(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u32> {
        self.wasi.keep_alive_count(socket)
    }

    fn set_keep_alive_count(&mut self, socket: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.wasi.set_keep_alive_count(socket, value)
    }

    fn hop_limit(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u8> {
        self.wasi.hop_limit(socket)
    }

    fn set_hop_limit(&mut self, socket: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        self.wasi.set_hop_limit(socket, value)
    }

    fn receive_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.wasi.receive_buffer_size(socket)
    }

    /// Ignores the size, so that a component cannot use more kernel memory than the system's default.
    fn set_receive_buffer_size(&mut self, _socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        buffer_size(value)
    }

    fn send_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        self.wasi.send_buffer_size(socket)
    }

    fn set_send_buffer_size(&mut self, _socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        buffer_size(value)
    }

    fn subscribe(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        tcp::HostTcpSocket::subscribe(&mut self.wasi, socket)
    }

    fn shutdown(&mut self, socket: Resource<TcpSocket>, how: tcp::ShutdownType) -> SocketResult<()> {
        self.wasi.shutdown(socket, how)
    }

    fn drop(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<()> {
        let handle = socket.rep();
        tcp::HostTcpSocket::drop(&mut self.wasi, socket)?;
        self.sockets.0.remove(&handle);
        Ok(())
    }
}

/// Ignores the size of a buffer, which WASI allows because the size is only a hint.
fn buffer_size(value: u64) -> SocketResult<()> {
    if value == 0 { Err(ErrorCode::InvalidArgument.into()) } else { Ok(()) }
}

/// A look-up of a name. The component's handle has the type of WASI's own look-ups, which only WASI can make.
enum Lookup {
    Pending(AbortOnDropJoinHandle<Found>),
    Done(Result<vec::IntoIter<IpAddr>, ErrorCode>),
}

type Found = Result<Vec<IpAddr>, ErrorCode>;

impl Lookup {
    fn done(&mut self, found: Found) {
        *self = Self::Done(found.map(Vec::into_iter));
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Self::Pending(lookup) = self {
            let found = lookup.await;
            self.done(found);
        }
    }
}

fn code(why: NoConnection) -> ErrorCode {
    match why {
        NoConnection::Denied => ErrorCode::AccessDenied,
        NoConnection::Unresolved(LookupError::Failed(_)) => ErrorCode::NameUnresolvable,
        NoConnection::Unresolved(LookupError::Timeout) => ErrorCode::TemporaryResolverFailure,
        NoConnection::TooMany => ErrorCode::NewSocketLimit,
        NoConnection::Refused(_) => ErrorCode::ConnectionRefused,
        NoConnection::Timeout => ErrorCode::Timeout,
    }
}

/// Returns the word for an error in the record of a call.
fn word(code: ErrorCode) -> &'static str {
    if code == ErrorCode::AccessDenied { DENIED } else { code.name() }
}

/// Notes the error of a connection, unless the component only has to wait.
fn note(call: &Ongoing, error: &SocketError) {
    if !is_waiting(error) {
        call.fails(error.downcast_ref().map_or("trap", |code| word(*code)));
    }
}

/// Returns whether the component only has to wait.
fn is_waiting(error: &SocketError) -> bool {
    matches!(error.downcast_ref(), Some(ErrorCode::WouldBlock))
}

impl ip_name_lookup::Host for NetworkView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<NetworkHandle>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        let _exists = self.wasi.table.get(&network)?;
        let Some(connections) = self.connections else { return self.deny("the address of a name") };
        let call = connections.call("ip-name-lookup.resolve-addresses", || name.clone());
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let lookup = match address {
            Ok(address) => {
                call.succeeds();
                Lookup::Done(Ok(vec![address].into_iter()))
            }
            Err(_) => {
                let connections = connections.clone();
                Lookup::Pending(spawn(async move {
                    let found = connections.look_up(&name).await.map_err(code);
                    match &found {
                        Ok(_) => call.succeeds(),
                        Err(code) => call.fails(word(*code)),
                    }
                    found
                }))
            }
        };
        let lookup = self.wasi.table.push(lookup)?;
        Ok(Resource::new_own(lookup.rep()))
    }
}

impl ip_name_lookup::HostResolveAddressStream for NetworkView<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let lookup = self.wasi.table.get_mut(&own(&stream))?;
        if let Lookup::Pending(pending) = lookup
            && let Some(found) = poll_noop(Pin::new(pending))
        {
            lookup.done(found);
        }
        match lookup {
            Lookup::Pending(_) => Err(ErrorCode::WouldBlock.into()),
            Lookup::Done(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
            Lookup::Done(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.wasi.table, own(&stream))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.wasi.table.delete(Resource::<Lookup>::new_own(stream.rep()))?;
        Ok(())
    }
}

/// Returns the handle with the type of the value that the table has for it.
fn own(stream: &Resource<ResolveAddressStream>) -> Resource<Lookup> {
    Resource::new_borrow(stream.rep())
}
