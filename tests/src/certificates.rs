//! Certificates of a private certificate authority, which `openssl` creates for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::server::run;

/// The certificate that a server of a test has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// A valid one for 127.0.0.1.
    Right,
    /// One for another host.
    Elsewhere,
    /// One for 127.0.0.1 that expired years ago.
    Expired,
}

/// A private certificate authority in a folder of its own.
#[derive(Debug)]
pub struct Authority(PathBuf);

/// The configuration of `openssl ca`. No other command of OpenSSL takes the dates of a certificate as arguments.
const SETTINGS: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nserial = serial\nunique_subject = no\nnew_certs_dir = .\n\
    certificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";

impl Authority {
    /// Creates an authority in `folder`, which is created too.
    ///
    /// # Errors
    /// Fails if `openssl` does.
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

    /// Returns the file with the authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Creates a certificate for a server, and returns its file and the file of its key.
    ///
    /// # Errors
    /// Fails if `openssl` does.
    pub fn certify(&self, server: Server) -> Result<(PathBuf, PathBuf)> {
        let name = format!("{server:?}");
        let (certificate, key, request) =
            (format!("{name}.pem"), format!("{name}.key"), format!("{name}.csr"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request,
        ])?;
        let (names, from, to) = match server {
            Server::Right => ("IP:127.0.0.1", "20200101000000Z", "20991231235959Z"),
            Server::Elsewhere => ("DNS:elsewhere.example", "20200101000000Z", "20991231235959Z"),
            Server::Expired => ("IP:127.0.0.1", "20200101000000Z", "20200201000000Z"),
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
