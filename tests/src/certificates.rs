//! Certificates of a private authority, made by `openssl` for one test: the authority's own, and those of servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::server::run;

/// Who the server of a test is, and what is wrong with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// 127.0.0.1, now.
    Right,
    /// Another host.
    Elsewhere,
    /// 127.0.0.1, years ago.
    Expired,
}

/// A private authority in a folder of its own.
#[derive(Debug)]
pub struct Authority(PathBuf);

/// The settings of `openssl ca`, which alone dates a certificate as it is told.
const SETTINGS: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nserial = serial\nunique_subject = no\nnew_certs_dir = .\n\
    certificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";

impl Authority {
    /// Makes one in `folder`, which is made too.
    ///
    /// # Errors
    /// What openssl says.
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

    /// The file with its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Gives a server its certificate: the file with that, and the one with its key.
    ///
    /// # Errors
    /// What openssl says.
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
