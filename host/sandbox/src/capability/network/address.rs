//! Classifies addresses. Whoever controls a DNS name can make it resolve to this machine, to the local network, or to the cloud's metadata
//! service, which hands out credentials. So by default a name may resolve only to public addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The class of an address, in the order of increasing restrictions. An address that embeds another one has the more restricted class of
/// the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// A server on the internet.
    Public,
    /// This machine or its local network: loopback, private, unique local and shared addresses, and addresses that IANA's registries of
    /// special-purpose addresses reserve for other uses. A name may resolve to such an address only with `private = true`.
    Private,
    /// A link-local address (which may belong to the cloud's metadata service), a known address of such a service, or an address of an
    /// unknown kind. No name may resolve to such an address: the operator must grant the address itself.
    Itself,
    /// An address that no server has: unspecified, broadcast, multicast, reserved.
    Nothing,
}

/// IPv4 addresses of metadata services outside the link-local range: Alibaba Cloud, Oracle Cloud and Azure.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// IPv6 addresses of metadata services: AWS and Google Cloud.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

impl Reach {
    /// Returns the class of an address.
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// Returns whether a name may resolve to an address of this class.
    pub(super) fn is_allowed(self, private: bool) -> bool {
        match self {
            Self::Public => true,
            Self::Private => private,
            Self::Itself | Self::Nothing => false,
        }
    }

    /// Returns the words that describe the address in a message.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Itself => "a link-local address or one of a cloud's metadata service",
            Self::Nothing => "an address that no server has",
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Itself;
    }
    match address.octets() {
        [0, ..] | [224..=255, ..] => Reach::Nothing,
        [169, 254, ..] => Reach::Itself,
        [10, ..]
        | [127, ..]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Private,
        _ => Reach::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> Reach {
    if METADATA_V6.contains(&address) {
        return Reach::Itself;
    }
    let embedded = |high: u16, low: u16| of_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Nothing,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // IPv4-mapped.
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // IPv4-compatible and IPv4-translated addresses, which are obsolete.
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Reach::Itself,
        // NAT64 (RFC 6052) leads to the IPv4 address in it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // NAT64 with a local prefix (RFC 8215), in which the position of the IPv4 address varies.
        [0x64, 0xff9b, ..] => Reach::Itself,
        // Teredo (RFC 4380).
        [0x2001, 0, ..] => Reach::Itself,
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments, documentation.
        [0x2001, 0x1..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Private,
        [0xfe80..=0xfebf, ..] => Reach::Itself,
        // Site-local (RFC 3879) and unique local.
        [0xfec0..=0xfeff, ..] | [0xfc00..=0xfdff, ..] => Reach::Private,
        [0xff00..=0xffff, ..] => Reach::Nothing,
        // Global unicast.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Itself,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for (address, reach) in [
            ("1.1.1.1", Reach::Public),
            ("172.15.255.255", Reach::Public),
            ("172.32.0.0", Reach::Public),
            ("100.63.255.255", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("64:ff9b::1.1.1.1", Reach::Public),
            ("2002:0101:0101::1", Reach::Public),
            ("::ffff:1.1.1.1", Reach::Public),
            ("127.0.0.1", Reach::Private),
            ("127.255.255.254", Reach::Private),
            ("10.0.0.1", Reach::Private),
            ("172.16.0.1", Reach::Private),
            ("172.31.255.255", Reach::Private),
            ("192.168.1.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("100.127.255.255", Reach::Private),
            ("192.0.2.1", Reach::Private),
            ("198.18.0.1", Reach::Private),
            ("203.0.113.9", Reach::Private),
            ("::1", Reach::Private),
            ("fc00::1", Reach::Private),
            ("fdff::1", Reach::Private),
            ("fec0::1", Reach::Private),
            ("2001:db8::1", Reach::Private),
            ("::ffff:127.0.0.1", Reach::Private),
            ("::ffff:10.0.0.1", Reach::Private),
            ("64:ff9b::10.0.0.1", Reach::Private),
            ("64:ff9b::127.0.0.1", Reach::Private),
            ("2002:7f00:0001::1", Reach::Private),
            ("2002:c0a8:0101::1", Reach::Private),
            ("169.254.169.254", Reach::Itself),
            ("169.254.0.1", Reach::Itself),
            ("100.100.100.200", Reach::Itself),
            ("192.0.0.192", Reach::Itself),
            ("168.63.129.16", Reach::Itself),
            ("fd00:ec2::254", Reach::Itself),
            ("fd20:ce::254", Reach::Itself),
            ("fe80::1", Reach::Itself),
            ("febf::1", Reach::Itself),
            ("::ffff:169.254.169.254", Reach::Itself),
            ("64:ff9b::169.254.169.254", Reach::Itself),
            ("2002:a9fe:a9fe::1", Reach::Itself),
            ("64:ff9b:1::1", Reach::Itself),
            ("2001::1", Reach::Itself),
            ("::127.0.0.1", Reach::Itself),
            ("::ffff:0:127.0.0.1", Reach::Itself),
            ("4000::1", Reach::Itself),
            ("0.0.0.0", Reach::Nothing),
            ("0.1.2.3", Reach::Nothing),
            ("255.255.255.255", Reach::Nothing),
            ("240.0.0.1", Reach::Nothing),
            ("224.0.0.251", Reach::Nothing),
            ("::", Reach::Nothing),
            ("::ffff:0.0.0.0", Reach::Nothing),
            ("ff02::1", Reach::Nothing),
        ] {
            assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
        }
    }

    #[test]
    fn a_name_leads_to_a_private_address_only_by_a_setting_and_never_to_a_metadata_service() {
        let allowed = |address: &str, private| Reach::of(address.parse().unwrap()).is_allowed(private);
        assert!(allowed("1.1.1.1", false) && allowed("1.1.1.1", true));
        assert!(!allowed("127.0.0.1", false) && allowed("127.0.0.1", true));
        for address in ["169.254.169.254", "fe80::1", "100.100.100.200", "0.0.0.0", "224.0.0.1"] {
            assert!(!allowed(address, false) && !allowed(address, true), "{address}");
        }
    }
}
