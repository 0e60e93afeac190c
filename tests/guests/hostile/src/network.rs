//! A behaviour that tries to use the network.

use std::net::SocketAddr;

use understudy::{Failure, Request};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::{OutgoingDatagram, UdpSocket};
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::verdict;

/// Connects to `address`, listens, sends a datagram and resolves a name.
pub(crate) fn network(request: &Request) -> Result<(), Failure> {
    let address: String = request.require("address")?;
    let Ok(SocketAddr::V4(address)) = address.parse() else {
        return Err(Failure::failed(format!("`{address}` is not an IPv4 address and a port")));
    };
    let [a, b, c, d] = address.ip().octets();
    let remote = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) });
    let any = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 0, address: (0, 0, 0, 0) });
    let attempts = [
        ("TCP connect", connect(remote)),
        ("TCP listen", listen(any)),
        ("UDP send", send(remote, any)),
        ("name lookup", lookup("localhost")),
    ];
    Err(verdict(
        attempts
            .into_iter()
            .map(|(attempt, answer)| (attempt.to_owned(), answer.map_err(|code| format!("{code:?}"))))
            .collect(),
    ))
}

fn connect(remote: IpSocketAddress) -> Result<(), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&instance_network(), remote)?;
    finish(&socket, |socket| socket.finish_connect().map(drop))
}

fn listen(any: IpSocketAddress) -> Result<(), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), any)?;
    finish(&socket, TcpSocket::finish_bind)?;
    socket.start_listen()?;
    finish(&socket, TcpSocket::finish_listen)
}

fn finish(socket: &TcpSocket, step: impl Fn(&TcpSocket) -> Result<(), ErrorCode>) -> Result<(), ErrorCode> {
    loop {
        match step(socket) {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            answer => return answer,
        }
    }
}

fn send(remote: IpSocketAddress, any: IpSocketAddress) -> Result<(), ErrorCode> {
    let socket: UdpSocket = create_udp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), any)?;
    while let Err(code) = socket.finish_bind() {
        if code != ErrorCode::WouldBlock {
            return Err(code);
        }
        socket.subscribe().block();
    }
    let (_, out) = socket.stream(None)?;
    out.subscribe().block();
    out.check_send()?;
    out.send(&[OutgoingDatagram { data: b"hello".to_vec(), remote_address: Some(remote) }]).map(drop)
}

fn lookup(name: &str) -> Result<(), ErrorCode> {
    let answers = resolve_addresses(&instance_network(), name)?;
    loop {
        match answers.resolve_next_address() {
            Err(ErrorCode::WouldBlock) => answers.subscribe().block(),
            answer => return answer.map(drop),
        }
    }
}
