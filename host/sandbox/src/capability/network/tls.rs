//! TLS for the host's HTTP client. A component that uses `wasi:http` does not handle certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::server::{Host, Server};
use crate::Grants;

/// The TLS settings for each granted server. They are made before Landlock restricts the method's thread, because the machine's authorities
/// are read from files.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    own: BTreeMap<Server, Arc<ClientConfig>>,
    /// `None` if no server needs the machine's authorities.
    machine: Option<Arc<ClientConfig>>,
}

/// Why a server's authorities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the contents of the file of `ca_file` of {server} cannot be used: {why}")]
pub(crate) struct BadAuthorities {
    server: Server,
    why: String,
}

impl Tls {
    /// Reads the authorities of every granted server, and those of the machine if a server needs them.
    ///
    /// # Errors
    /// [`BadAuthorities`].
    pub(crate) fn of(grants: &Grants) -> Result<Self, BadAuthorities> {
        let mut tls = Self::default();
        for (server, grant) in &grants.network {
            match &grant.authorities {
                Some(authorities) => {
                    let bad = |why| BadAuthorities { server: server.clone(), why };
                    let config = config(named(authorities).map_err(bad)?).map_err(bad)?;
                    tls.own.insert(server.clone(), config);
                }
                None if tls.machine.is_none() => {
                    let config = config(of_this_machine());
                    tls.machine = Some(config.map_err(|why| BadAuthorities { server: server.clone(), why })?);
                }
                None => {}
            }
        }
        Ok(tls)
    }

    /// Returns the TLS connector for a granted server; `None` for any other server.
    pub(super) fn connector(&self, server: &Server) -> Option<TlsConnector> {
        let config = self.own.get(server).or(self.machine.as_ref())?;
        Some(TlsConnector::from(Arc::clone(config)))
    }
}

impl Server {
    /// Returns the name that the server's certificate must have; `None` if no certificate can have it.
    pub(super) fn certified_name(&self) -> Option<ServerName<'static>> {
        match &self.host {
            Host::Name(name) => ServerName::try_from(name.clone()).ok(),
            Host::Address(address) => Some(ServerName::from(*address)),
        }
    }
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Reads authorities in PEM.
fn named(authorities: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate in PEM".to_owned()) } else { Ok(roots) }
}

/// Reads the authorities that this machine trusts. Leaves out authorities that cannot be read; certificates that they issued are then
/// refused.
fn of_this_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("an authority of this machine cannot be read: {error}");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::network::ServerGrant;

    #[test]
    fn authorities_that_cannot_be_read_are_told_with_their_server() {
        let grants = |authorities: Option<&str>| {
            let grant = ServerGrant { authorities: authorities.map(str::to_owned), ..ServerGrant::default() };
            Grants { network: [("a.example:443".parse().unwrap(), grant)].into(), ..Grants::default() }
        };
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n",
        ] {
            let error = Tls::of(&grants(Some(text))).map(drop).unwrap_err().to_string();
            assert!(error.starts_with("the contents of the file of `ca_file` of a.example:443"), "{error}");
        }
        let server = "a.example:443".parse().unwrap();
        assert!(Tls::of(&grants(None)).unwrap().connector(&server).is_some());
        assert!(Tls::of(&Grants::default()).unwrap().connector(&server).is_none());
    }
}
