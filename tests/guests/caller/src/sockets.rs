//! Connections with `wasi:sockets`.

use understudy::{Failure, Request};
use wasip2::io::streams::StreamError;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::{Answer, shown};

/// Connects to a port at a name or an address, sends a text, and reads the answer to its end.
pub(crate) fn tcp(request: &Request) -> Result<Answer, Failure> {
    let (address, say): (String, String) = (request.require("address")?, request.require("say")?);
    let name: String = request.require("lookup")?;
    if !name.is_empty()
        && let Err(code) = resolve(&name)
    {
        return Ok(Err(format!("lookup of {name}: {code:?}")));
    }
    Ok(talk(&address, &say))
}

fn talk(address: &str, say: &str) -> Answer {
    let (host, port) = address.rsplit_once(':').ok_or("no port")?;
    let port = port.parse().map_err(|_| "no port")?;
    let addresses = resolve(host).map_err(|code| format!("lookup: {code:?}"))?;
    let mut connected = Err("lookup: nothing".to_owned());
    for address in addresses {
        let socket =
            connect(address, port).and_then(|socket| finish(&socket).map(|streams| (socket, streams)));
        connected = socket.map_err(|code| format!("connect: {code:?}"));
        if connected.is_ok() {
            break;
        }
    }
    // The streams belong to the socket, so they must be dropped first.
    let (_socket, streams) = connected?;
    exchange(&streams, say)
}

/// Starts to connect a socket to `address`, then tries to connect the same socket to `other`, and reads from the connection to its end.
pub(crate) fn twice(request: &Request) -> Result<Answer, Failure> {
    let (address, other): (String, String) = (request.require("address")?, request.require("other")?);
    let at = |text: &str| {
        let (host, port) = text.rsplit_once(':').ok_or("no port")?;
        let address = resolve(host).map_err(|_| "no address")?.pop().ok_or("no address")?;
        Ok::<_, &str>((address, port.parse::<u16>().map_err(|_| "no port")?))
    };
    let answer = at(&address).and_then(|first| Ok((first, at(&other)?))).map_err(str::to_owned);
    Ok(answer.and_then(|((address, port), (other, other_port))| {
        let code = |code: ErrorCode| format!("connect: {code:?}");
        let socket = connect(address, port).map_err(code)?;
        let (_, remote) = remote(other, other_port);
        // The second attempt must fail, and the host must not count it as a connection.
        if socket.start_connect(&instance_network(), remote).is_ok() {
            return Err("connected twice".to_owned());
        }
        let streams = finish(&socket).map_err(code)?;
        exchange(&streams, "")
    }))
}

fn exchange((input, output): &Streams, say: &str) -> Answer {
    let failed = |what: &str, error: StreamError| match error {
        StreamError::Closed => format!("{what}: closed"),
        StreamError::LastOperationFailed(error) => format!("{what}: {}", error.to_debug_string()),
    };
    for part in say.as_bytes().chunks(4096) {
        output.blocking_write_and_flush(part).map_err(|error| failed("write", error))?;
    }
    let mut got = Vec::new();
    loop {
        match input.blocking_read(64 << 10) {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(StreamError::Closed) => return Ok(shown(&got)),
            Err(error) => return Err(format!("{} after {}", failed("read", error), shown(&got))),
        }
    }
}

/// Makes several sockets and keeps all of them open.
pub(crate) fn at_once(request: &Request) -> Result<Answer, Failure> {
    let times: u64 = request.require("times")?;
    let mut sockets = Vec::new();
    for number in 0..times {
        match create_tcp_socket(IpAddressFamily::Ipv4) {
            Ok(socket) => sockets.push(socket),
            Err(code) => return Ok(Err(format!("socket {number}: {code:?}"))),
        }
    }
    // After one socket was dropped, another can be made.
    sockets.pop();
    Ok(create_tcp_socket(IpAddressFamily::Ipv4)
        .map(|_| format!("{times} sockets"))
        .map_err(|code| format!("{code:?}")))
}

/// Resolves a name.
pub(crate) fn lookup(request: &Request) -> Result<Answer, Failure> {
    let name: String = request.require("address")?;
    Ok(resolve(&name).map(|addresses| format!("{addresses:?}")).map_err(|code| format!("{code:?}")))
}

fn resolve(name: &str) -> Result<Vec<IpAddress>, ErrorCode> {
    let answers = resolve_addresses(&instance_network(), name)?;
    let mut addresses = Vec::new();
    loop {
        match answers.resolve_next_address() {
            Ok(Some(address)) => addresses.push(address),
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => answers.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

fn remote(address: IpAddress, port: u16) -> (IpAddressFamily, IpSocketAddress) {
    match address {
        IpAddress::Ipv4(address) => {
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }))
        }
        IpAddress::Ipv6(address) => (
            IpAddressFamily::Ipv6,
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 }),
        ),
    }
}

fn connect(address: IpAddress, port: u16) -> Result<TcpSocket, ErrorCode> {
    let (family, remote) = remote(address, port);
    let socket = create_tcp_socket(family)?;
    socket.start_connect(&instance_network(), remote)?;
    Ok(socket)
}

type Streams = (wasip2::io::streams::InputStream, wasip2::io::streams::OutputStream);

fn finish(socket: &TcpSocket) -> Result<Streams, ErrorCode> {
    loop {
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            answer => return answer,
        }
    }
}
