//! Certificates of a private certificate authority, which `openssl` creates for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::server::run;

/// Which certificate a test server presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCertificate {
    /// A valid certificate for 127.0.0.1 and localhost.
    Right,
    /// A certificate for another host.
    Elsewhere,
    /// A certificate for 127.0.0.1 that expired years ago.
    Expired,
}

/// A private certificate authority, with its own folder.
#[derive(Debug)]
pub struct Authority(PathBuf);

/// The configuration for `openssl ca`. No other OpenSSL command takes the validity dates of a certificate as arguments.
const SETTINGS: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nserial = serial\nunique_subject = no\nnew_certs_dir = .\n\
    certificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";

impl Authority {
    /// Creates an authority in `folder`. Creates the folder if it is missing.
    ///
    /// # Errors
    /// Fails if `openssl` fails.
    pub fn new(folder: &Path) -> Result<Self> {
        let authority = Self(folder.to_owned());
        fs::create_dir_all(folder)?;
        fs::write(folder.join("settings"), SETTINGS)?;
        fs::write(folder.join("index"), "")?;
        fs::write(folder.join("serial"), "01\n")?;
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=a private authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ])?;
        Ok(authority)
    }

    /// Returns the path of the authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Creates a certificate for a server, and returns the paths of the certificate and of its private key.
    ///
    /// # Errors
    /// Fails if `openssl` fails.
    pub fn certify(&self, server: ServerCertificate) -> Result<(PathBuf, PathBuf)> {
        let name = format!("{server:?}");
        let (certificate, key, request) =
            (format!("{name}.pem"), format!("{name}.key"), format!("{name}.csr"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request,
        ])?;
        let (names, from, to) = match server {
            ServerCertificate::Right => ("IP:127.0.0.1,DNS:localhost", "20200101000000Z", "20991231235959Z"),
            ServerCertificate::Elsewhere => ("DNS:elsewhere.example", "20200101000000Z", "20991231235959Z"),
            ServerCertificate::Expired => ("IP:127.0.0.1", "20200101000000Z", "20200201000000Z"),
        };
        let extensions = format!("{name}.extensions");
        fs::write(self.0.join(&extensions), format!("subjectAltName = {names}\n"))?;
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            "settings",
            "-startdate",
            from,
            "-enddate",
            to,
            "-extfile",
            &extensions,
            "-in",
            &request,
            "-out",
            &certificate,
        ])?;
        Ok((self.0.join(certificate), self.0.join(key)))
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        run(Command::new("openssl").args(arguments).current_dir(&self.0)).map(drop)
    }
}
