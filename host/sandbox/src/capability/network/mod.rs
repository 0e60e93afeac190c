//! Network connections: `network = ["api.example:443"]`. A component can connect only to the granted servers, with `wasi:sockets` (only
//! TCP) and with `wasi:http`. Each name is resolved once, outside the method's thread, and connections go to the resolved addresses.
//!
//! The connections are made on the method's own thread, which Landlock restricts. If the kernel's Landlock restricts TCP (ABI 4, Linux
//! 6.7), the thread can connect only to the ports of granted servers.

mod address;
mod allowance;
mod connections;
mod held;
mod http;
mod metered;
mod names;
mod request;
mod response;
mod server;
mod sockets;
mod tls;

use std::collections::{BTreeMap, BTreeSet};

use ::http::HeaderValue;
use foundation::landlock::ABI_OF_TCP;
use replica::{CapabilityKind, Finding, Level, Redactor, Refusal, Rule};
use transfer::store::SHORTEST_TOKEN;
use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::sockets::network::LinkOptions;
use wasmtime_wasi::p2::bindings::sockets::{
    instance_network, ip_name_lookup, network, tcp, tcp_create_socket, udp, udp_create_socket,
};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};
use wasmtime_wasi_http::p2::bindings::http::{outgoing_handler, types};

use super::{Capability, Check, Remedies};
use crate::Grants;
use crate::inspection::{Need, NeedKind};
use crate::state::State;
use crate::text::{key, quoted};

pub(crate) use connections::{Connections, NetworkUse};
use held::{HttpData, HttpView};
pub(crate) use http::Http;
pub use names::{Resolve, SystemResolver};
pub use server::{NotAServer, Server, ServerGrant};
pub(crate) use sockets::Sockets;
use sockets::{NetworkData, NetworkView};
pub(crate) use tls::Tls;

/// The capability to connect to servers.
pub(crate) struct Network;

/// The placeholder in a remedy if the server is not known.
const PLACEHOLDER: &str = "HOST:PORT";

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

    /// If an option has the same name as the need, checks that the server in its value is granted. Otherwise checks that any server is
    /// granted.
    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        let Some(value) = check.option(&need.name) else {
            if need.required && check.grants.network.is_empty() {
                let why = format!("it needs a server to connect to ({}: {})", need.name, need.reason);
                check.unmet(why, Some(check.remedies.with_server(PLACEHOLDER, None)));
            }
            return;
        };
        match Server::of_address(value) {
            Ok(server) if check.grants.network.contains_key(&server) => {}
            Ok(server) => {
                let why = format!(
                    "it connects to {server} (option {}: {}), which is not granted",
                    need.name, need.reason
                );
                check.unmet(why, check.remedies.server(&server));
            }
            Err(why) => {
                check.unmet(format!("its option {} names no server: the value {why}", need.name), None)
            }
        }
    }

    fn check_grant(
        &self,
        grants: &Grants,
        _remedies: &Remedies,
        _redactor: &Redactor,
    ) -> Result<(), Refusal> {
        for (server, grant) in &grants.network {
            if grant.token.as_ref().is_some_and(|token| token.expose().len() < SHORTEST_TOKEN) {
                let message = format!(
                    "the `token` of {server} has fewer than {SHORTEST_TOKEN} bytes: the host could not tell so short a token from other text \
                     in a response, so use a longer one"
                );
                return Err(Refusal::new(Rule::Grant, message));
            }
            let is_header = |token: &[u8]| HeaderValue::from_bytes(token).is_ok();
            if grant.token.as_ref().is_some_and(|token| !is_header(token.expose())) {
                let message =
                    format!("the `token` of {server} has a character that cannot be in a header of HTTP");
                return Err(Refusal::new(Rule::Grant, message));
            }
        }
        Tls::of(grants).map(drop).map_err(|error| Refusal::new(Rule::Grant, error.to_string()))
    }

    fn remedy(&self, remedies: &Remedies, name: &str) -> Option<String> {
        remedies.server(&name.parse().ok()?)
    }

    fn secrets<'g>(&self, grants: &'g Grants) -> Vec<&'g foundation::secret::Secret> {
        grants.network.values().filter_map(|grant| grant.token.as_ref()).collect()
    }

    fn report_entries(&self, grants: &Grants) -> Vec<(String, String)> {
        let entry = |(server, grant): (&Server, &ServerGrant)| {
            let settings = match grant.settings.is_empty() {
                true => "granted".to_owned(),
                false => server::inline(&grant.settings),
            };
            (format!("network {server}"), settings)
        };
        let bytes = ("network_bytes".to_owned(), grants.network_bytes.to_string());
        let of_connection = grants.connection_bytes.map(|of| ("connection_bytes".to_owned(), of.to_string()));
        let servers = grants.network.iter().map(entry);
        if grants.network.is_empty() {
            Vec::new()
        } else {
            servers.chain([bytes]).chain(of_connection).collect()
        }
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        let options = LinkOptions::default();
        network::add_to_linker::<State, NetworkData>(linker, &options, NetworkView::of)?;
        ip_name_lookup::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
        tcp_create_socket::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
        tcp::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
        udp_create_socket::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
        instance_network::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
        // No UDP socket is ever created, so a component cannot call the functions of one. WASI's own implementation is also set up to allow
        // no UDP.
        udp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
        types::add_to_linker::<State, HttpData>(linker, &types::LinkOptions::default(), HttpView::of)?;
        outgoing_handler::add_to_linker::<State, HttpData>(linker, HttpView::of)
    }
}

impl Grants {
    /// Returns the ports of the granted servers.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.network.keys().map(Server::port).collect()
    }
}

/// Returns a finding if the kernel does not restrict connections to the ports of granted servers. `abi` is the kernel's Landlock ABI, 0 for
/// none.
pub(crate) fn findings(grants: &Grants, abi: u32) -> Vec<Finding> {
    if grants.network.is_empty() || abi >= ABI_OF_TCP {
        return Vec::new();
    }
    let why = match abi {
        0 => "this kernel has no Landlock".to_owned(),
        _ => format!("the kernel's Landlock is older than ABI {ABI_OF_TCP}"),
    };
    let message = format!(
        "the kernel does not keep the method to the ports of the servers in `network`, because {why}: WASI alone does; \
         `require_landlock = {ABI_OF_TCP}` refuses such a kernel"
    );
    vec![Finding { check: Rule::Grant, level: Level::Warn, message }]
}

/// Returns whether a component that imports this interface may use the host's TLS.
pub(crate) fn uses_http(import: &str) -> bool {
    import.starts_with("wasi:http/outgoing-handler@")
}

impl Remedies {
    /// Returns the line that grants a server.
    fn server(&self, server: &Server) -> Option<String> {
        Some(self.with_server(&server.to_string(), None))
    }

    /// Returns the line that grants a name with a placeholder for the port; `None` if no server can have this name.
    fn name(&self, name: &str) -> Option<String> {
        Server::new(name, 1)
            .ok()
            .map(|_| self.with_server(&format!("{}:PORT", name.to_ascii_lowercase()), None))
    }

    /// Returns the line that allows the name of a granted server to resolve to a private address.
    fn private(&self, server: &Server) -> Option<String> {
        Some(self.with_server(&server.to_string(), Some(("private", "true"))))
    }

    /// Returns the line that grants a server with this setting instead of its present one. The line repeats the other granted servers.
    fn with_server(&self, server: &str, setting: Option<(&str, &str)>) -> String {
        let granted = self.grants.network.iter();
        let mut servers: BTreeMap<String, BTreeMap<String, String>> =
            granted.map(|(server, grant)| (server.to_string(), grant.settings.clone())).collect();
        let settings = servers.entry(server.to_owned()).or_default();
        settings.extend(setting.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let value = if servers.values().all(BTreeMap::is_empty) {
            let list: Vec<_> = servers.keys().map(|server| quoted(server)).collect();
            format!("[{}]", list.join(", "))
        } else {
            let entry = |(server, settings): (&String, &BTreeMap<String, String>)| match settings.is_empty() {
                true => format!("{} = {{}}", quoted(server)),
                false => format!("{} = {{ {} }}", quoted(server), server::inline(settings)),
            };
            format!("{{ {} }}", servers.iter().map(entry).collect::<Vec<_>>().join(", "))
        };
        format!("[method.{}.grants] network = {value}", key(&self.method))
    }
}

#[cfg(test)]
mod tests {
    use foundation::secret::Secret;

    use super::super::check::tests::{check_with, need, setting};
    use super::*;

    fn with(servers: &[(&str, &str)]) -> Grants {
        let server = |(server, settings): &(&str, &str)| {
            let setting = |setting: &str| {
                let (key, value) = setting.split_once(" = ").unwrap();
                (key.to_owned(), value.to_owned())
            };
            let settings = settings.split(", ").filter(|setting| !setting.is_empty()).map(setting).collect();
            (server.parse().unwrap(), ServerGrant { settings, ..ServerGrant::default() })
        };
        Grants { network: servers.iter().map(server).collect(), ..Grants::default() }
    }

    #[test]
    fn a_server_is_needed_as_the_value_of_the_option_of_its_name() {
        let needs = [need(NeedKind::Network, "catalogue", true)];
        let refusal = check_with(&needs, &[], &Grants::default()).unwrap_err();
        assert_eq!(refusal.remedy.as_deref(), Some(r#"[method.m.grants] network = ["HOST:PORT"]"#));
        check_with(&needs, &[], &with(&[("a.example:1", "")])).unwrap();
        let url = [setting("catalogue", "https://api.example/x")];
        let refusal = check_with(&needs, &url, &with(&[("a.example:1", "")])).unwrap_err();
        assert!(refusal.policy && refusal.message.contains("connects to api.example:443"), "{refusal}");
        let line = r#"[method.m.grants] network = ["a.example:1", "api.example:443"]"#;
        assert_eq!(refusal.remedy.as_deref(), Some(line));
        check_with(&needs, &url, &with(&[("api.example:443", "")])).unwrap();
        let refusal = check_with(&needs, &[setting("catalogue", "api")], &with(&[])).unwrap_err();
        assert!(refusal.message.contains("names no server"), "{refusal}");
        check_with(&[need(NeedKind::Network, "catalogue", false)], &[], &with(&[])).unwrap();
    }

    #[test]
    fn a_remedy_repeats_what_is_granted() {
        let remedies = |servers| Remedies::new("m", &with(servers));
        let to = |text: &str| text.parse::<Server>().unwrap();
        let plain = remedies(&[("b.example:2", "")]);
        let line = r#"[method.m.grants] network = ["[::1]:3", "b.example:2"]"#;
        assert_eq!(plain.server(&to("[::1]:3")).as_deref(), Some(line));
        let line = r#"[method.m.grants] network = { "b.example:2" = { private = true } }"#;
        assert_eq!(plain.private(&to("b.example:2")).as_deref(), Some(line));
        let line = r#"[method.m.grants] network = ["a.example:PORT", "b.example:2"]"#;
        assert_eq!(plain.name("A.example").as_deref(), Some(line));
        for name in ["a b", "\u{1b}[2J", "*", &"a".repeat(300)] {
            assert_eq!(plain.name(name), None, "{name}");
        }
        let set = remedies(&[("a.example:1", r#"ca_file = "/ca.pem""#), ("b.example:2", "")]);
        let line = r#"[method.m.grants] network = { "a.example:1" = { ca_file = "/ca.pem", private = true }, "b.example:2" = {} }"#;
        assert_eq!(set.private(&to("a.example:1")).as_deref(), Some(line));
    }

    #[test]
    fn an_older_kernel_that_does_not_keep_a_method_to_its_ports_is_named() {
        let granted = with(&[("a.example:1", "")]);
        for (abi, says) in [(0, "has no Landlock"), (3, "older than ABI 4")] {
            let found = findings(&granted, abi);
            assert_eq!((found.len(), found[0].check, found[0].level), (1, Rule::Grant, Level::Warn));
            let message = &found[0].message;
            assert!(message.contains(says) && message.contains("`require_landlock = 4`"), "{message}");
            assert!(findings(&Grants::default(), abi).is_empty());
        }
        assert!(findings(&granted, 4).is_empty());
    }

    #[test]
    fn a_remedy_replaces_a_setting_that_the_server_has_and_keeps_every_other() {
        let own = r#"bytes = "1MiB", ca_file = "/ca.pem", private = false, token = { file = "/token" }"#;
        let remedies = Remedies::new("m", &with(&[("a.example:1", own), ("b.example:2", "")]));
        let server = "a.example:1".parse().unwrap();
        let all = own.replace("false", "true");
        let line = format!(
            "[method.m.grants] network = {{ \"a.example:1\" = {{ {all} }}, \"b.example:2\" = {{}} }}"
        );
        assert_eq!(remedies.private(&server), Some(line.clone()));
        assert_eq!(remedies.server(&server), Some(line.replace("true", "false")));
    }

    #[test]
    fn a_token_that_no_header_can_have_or_that_is_too_short_is_refused_and_not_shown() {
        let grants = |token: &str| {
            let grant = ServerGrant { token: Some(Secret::new(token)), ..ServerGrant::default() };
            Grants { network: [("a.example:443".parse().unwrap(), grant)].into(), ..Grants::default() }
        };
        let check = |token| {
            let grants = grants(token);
            Network.check_grant(&grants, &Remedies::new("m", &grants), &Redactor::new())
        };
        check("a-token-of-letters").unwrap();
        let refusal = check("swordfish\u{1}").unwrap_err();
        assert!(
            refusal.message.contains("a.example:443") && !refusal.message.contains("swordfish"),
            "{refusal}"
        );
        assert_eq!(grants("x").secrets().count(), 1);
        // The host could not reliably find so short a token in a response.
        let refusal = check("abcdef7").unwrap_err();
        let says = "a.example:443 has fewer than 8 bytes";
        assert!(refusal.message.contains(says) && !refusal.message.contains("abcdef7"), "{refusal}");
        check("abcdefg8").unwrap();
    }
}
