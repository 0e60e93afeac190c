//! The network, which is not there. No socket and no look-up of a name is ever made, so the calls on them cannot be
//! reached.

use replica::Denial;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, network, tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult, TcpSocket, UdpSocket};

use crate::reporter::Reporter;
use crate::state::State;
use crate::text::printable;

/// The network for the length of one call.
pub(crate) struct NetworkView<'a> {
    table: &'a mut ResourceTable,
    reporter: &'a Reporter,
}

/// Marks [`NetworkView`] for the linker.
pub(crate) struct NetworkData;

impl HasData for NetworkData {
    type Data<'a> = NetworkView<'a>;
}

impl NetworkView<'_> {
    /// The view of one store.
    pub(crate) fn of(state: &mut State) -> NetworkView<'_> {
        NetworkView { table: &mut state.table, reporter: &state.reporter }
    }

    fn deny<T>(&self, what: String) -> SocketResult<T> {
        self.reporter.denied(Denial { capability: "network", what, remedy: String::new() });
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
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
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
        _network: Resource<Network>,
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
