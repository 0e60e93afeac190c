//! Network connections: `network`. The interfaces of WASI are linked, but this version cannot grant them: no socket is created and no
//! name is resolved, so the functions on sockets cannot be reached, and the configuration refuses the key.

use replica::CapabilityKind;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, LinkOptions, Network as NetworkHandle,
};
use wasmtime_wasi::p2::bindings::sockets::{
    instance_network, ip_name_lookup, network, tcp, tcp_create_socket, udp, udp_create_socket,
};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::Capability;
use crate::inspection::NeedKind;
use crate::reporter::Reporter;
use crate::state::State;
use crate::text::printable;

/// The capability to connect to other hosts.
pub(crate) struct Network;

impl Capability for Network {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Network
    }

    fn key(&self) -> &'static str {
        "network"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Network)
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        let options = LinkOptions::default();
        network::add_to_linker::<State, NetworkData>(linker, &options, NetworkView::of)?;
        ip_name_lookup::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
        tcp_create_socket::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
        udp_create_socket::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
        instance_network::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
        // No socket is ever created, so these cannot be reached. WASI's own implementation is set up to allow no address, too.
        tcp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
        udp::add_to_linker::<State, WasiSockets>(linker, State::sockets)
    }
}

/// The network for the length of one call.
struct NetworkView<'a> {
    table: &'a mut ResourceTable,
    reporter: &'a Reporter,
}

/// Marks [`NetworkView`] for the linker.
struct NetworkData;

impl HasData for NetworkData {
    type Data<'a> = NetworkView<'a>;
}

impl NetworkView<'_> {
    /// The view of one store.
    fn of(state: &mut State) -> NetworkView<'_> {
        NetworkView { table: &mut state.table, reporter: &state.reporter }
    }

    fn deny<T>(&self, what: String) -> SocketResult<T> {
        self.reporter.denied(Network.denies(what, None));
        Err(ErrorCode::AccessDenied.into())
    }
}

impl network::Host for NetworkView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        _error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for NetworkView<'_> {
    fn drop(&mut self, network: Resource<NetworkHandle>) -> wasmtime::Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

impl tcp_create_socket::Host for NetworkView<'_> {
    fn create_tcp_socket(&mut self, _family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.deny("a TCP socket".to_owned())
    }
}

impl udp_create_socket::Host for NetworkView<'_> {
    async fn create_udp_socket(&mut self, _family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.deny("a UDP socket".to_owned())
    }
}

impl ip_name_lookup::Host for NetworkView<'_> {
    fn resolve_addresses(
        &mut self,
        _network: Resource<NetworkHandle>,
        name: String,
    ) -> SocketResult<Resource<ip_name_lookup::ResolveAddressStream>> {
        self.deny(format!("the address of {}", printable(&name, 255)))
    }
}

impl ip_name_lookup::HostResolveAddressStream for NetworkView<'_> {
    fn resolve_next_address(
        &mut self,
        _stream: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        self.deny("an address".to_owned())
    }

    fn subscribe(
        &mut self,
        _stream: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        Err(wasmtime::format_err!("a look-up that was never made"))
    }

    fn drop(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}
