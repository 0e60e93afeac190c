use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};

use foundation::landlock::kernel_abi;

use super::*;
use crate::ServerGrant;

#[test]
fn the_thread_of_a_method_connects_only_to_the_ports_of_granted_servers() {
    if kernel_abi(None).unwrap() < ABI_OF_TCP {
        eprintln!("this kernel's Landlock does not restrict TCP: nothing to try");
        return;
    }
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (granted, other) = (listen(), listen());
    let [to_granted, to_other] = [&granted, &other].map(|listener| listener.local_addr().unwrap());
    let connects = move |grants: Grants| {
        std::thread::spawn(move || {
            restrict_to(&[], &grants, None).unwrap();
            [to_granted, to_other].map(|to| TcpStream::connect(to).map(drop).map_err(|error| error.kind()))
        })
        .join()
        .unwrap()
    };
    let server = to_granted.to_string().parse().unwrap();
    let network = BTreeMap::from([(server, ServerGrant::default())]);
    let denied = Err(ErrorKind::PermissionDenied);
    assert_eq!(connects(Grants { network, ..Grants::default() }), [Ok(()), denied]);
    assert_eq!(connects(Grants::default()), [denied, denied]);
}
