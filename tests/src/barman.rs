//! Installs Barman, runs it with an S3 server that checks signatures, and adapts the configuration of `examples/barman-cloud` to them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::program::{example, project};
use crate::python::{Base, environment};
use crate::server::{Playground, run};
use crate::stored::secret;
use crate::stores::StoreServer;
use crate::user::ServerUser;

/// The folder in which the example's configuration has all files.
const EXAMPLE: &str = "/srv/barman-cloud-example";

/// Where Barman's programs put backups, and the name of the server in Barman.
const URL: &str = "s3://backups/barman";
const SERVER: &str = "example";

/// A Python program that creates the bucket `backups` and a user who may use it, and makes `moto` check signatures from then on. Prints the
/// access key and the secret key of the user. Argument: address.
const MAKE_BUCKET: &str = "\
import json, sys, urllib.request, boto3
address = sys.argv[1]
boto3.client('s3', endpoint_url=address).create_bucket(Bucket='backups')
iam = boto3.client('iam', endpoint_url=address)
iam.create_user(UserName='barman')
all_of_s3 = {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Action': 's3:*', 'Resource': '*'}]}
iam.put_user_policy(UserName='barman', PolicyName='backups', PolicyDocument=json.dumps(all_of_s3))
key = iam.create_access_key(UserName='barman')['AccessKey']
strict = urllib.request.Request(address + '/moto-api/reset-auth', b'0', {'Content-Type': 'application/octet-stream'})
urllib.request.urlopen(strict).read()
print(key['AccessKeyId'], key['SecretAccessKey'])
";

/// A release of Barman.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The release that the example `barman-cloud` installs for Debian's Python.
    Example,
    /// The newest release, with the packages for every compression.
    Newest,
}

impl Release {
    /// Returns the folder of a Python environment below `target/` that has this release. Creates the environment if it is missing.
    ///
    /// # Errors
    /// Fails as [`environment`] does.
    pub fn ensure(self) -> Result<PathBuf> {
        match self {
            Self::Example => environment(
                "barman-venv",
                Base::Debian,
                &project().join("examples/barman-cloud/requirements.txt"),
            ),
            Self::Newest => environment(
                "barman-newest",
                Base::Newer,
                &Path::new(env!("CARGO_MANIFEST_DIR")).join("barman/requirements.txt"),
            ),
        }
    }

    /// Copies the environment of this release to `folder`, because the server's user may not be able to read the checkout. The programs
    /// are in `folder/bin`.
    ///
    /// # Errors
    /// Fails as [`Release::ensure`] does, and if a file cannot be written.
    pub fn install(self, folder: &Path) -> Result<()> {
        run(Command::new("/bin/cp").arg("-R").arg(self.ensure()?).arg(folder))?;
        // The first line of each program names Python by its full path.
        let mut name_python = Command::new("/bin/sh");
        name_python.args(["-c", "sed -i \"1s|.*|#!$1/python|\" \"$1\"/barman*", "sh"]);
        run(name_python.arg(folder.join("bin"))).map(drop)
    }
}

/// An S3 server with a bucket, and a Barman that may use the bucket. Dropping the value ends the server.
#[derive(Debug)]
pub struct Barman {
    server: StoreServer,
    folder: PathBuf,
    user: ServerUser,
    access_key: String,
    secret_key: String,
}

impl Barman {
    /// Starts the server and creates the bucket. Writes the files that the example's configuration names to the playground: Barman to
    /// `barman`, and the credentials to `keys`.
    ///
    /// # Errors
    /// Fails as [`Release::install`] and [`StoreServer::moto`] do, and if a file cannot be written.
    pub fn start(playground: &Playground, release: Release) -> Result<Self> {
        let installed = playground.path("barman");
        release.install(&installed)?;
        let server = StoreServer::moto()?;
        let mut make_bucket = Command::new(installed.join("bin/python"));
        // The server does not check these credentials yet.
        let credentials = [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")];
        make_bucket.args(["-c", MAKE_BUCKET, &server.url()]).envs(credentials);
        let made = run(make_bucket.env("AWS_DEFAULT_REGION", "us-east-1"))?;
        let made = String::from_utf8(made.stdout).context("the keys are not text")?;
        let (access_key, secret_key) = made.trim().split_once(' ').context("no two keys were printed")?;

        playground.directory("keys")?;
        secret(playground, "keys/access-key", access_key)?;
        secret(playground, "keys/secret-key", secret_key)?;
        Ok(Self {
            server,
            folder: playground.path(""),
            user: playground.user(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
        })
    }

    /// Returns the secret key. It must not appear in a log, an argument or a report.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Takes a backup of the server with its Unix socket in this directory, and uploads it.
    ///
    /// # Errors
    /// Fails if `barman-cloud-backup` fails.
    pub fn backup(&self, sockets: &Path, port: u16) -> Result<()> {
        self.backup_with(sockets, port, &["--gzip"])
    }

    /// Takes a backup as [`Barman::backup`] does, with these options instead of `--gzip`.
    ///
    /// # Errors
    /// Fails if `barman-cloud-backup` fails.
    pub fn backup_with(&self, sockets: &Path, port: u16, options: &[&str]) -> Result<()> {
        let mut backup = self.program("barman-cloud-backup");
        backup.arg("--immediate-checkpoint").args(options).arg("--host").arg(sockets);
        run(backup.args(["--port", &port.to_string(), "--user=postgres", URL, SERVER])).map(drop)
    }

    /// Uploads a segment of WAL with these options.
    ///
    /// # Errors
    /// Fails if `barman-cloud-wal-archive` fails.
    pub fn archive(&self, segment: &Path, options: &[&str]) -> Result<()> {
        run(self.program("barman-cloud-wal-archive").args(options).args([URL, SERVER]).arg(segment)).map(drop)
    }

    /// Restores the backup with this name to the directory `to`, and its tablespace `fast` to another directory.
    ///
    /// # Errors
    /// Fails if `barman-cloud-restore` fails.
    pub fn restore(&self, name: &str, to: &Path, fast: &Path) -> Result<()> {
        let mut restore = self.program("barman-cloud-restore");
        restore.arg(format!("--tablespace=fast:{}", fast.display()));
        run(restore.args([URL, SERVER, name]).arg(to)).map(drop)
    }

    /// Returns a command that runs a program of Barman, with the server's address and the credentials.
    fn program(&self, name: &str) -> Command {
        let mut program = self.user.command(self.folder.join("barman/bin").join(name));
        program
            .env("AWS_ACCESS_KEY_ID", &self.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret_key)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .args(["--endpoint-url", &self.server.url()]);
        program
    }

    /// Returns the grant of the store `name` with the bucket.
    pub fn store(&self, name: &str) -> String {
        format!(
            "stores.{name} = {{ url = \"s3://backups\", endpoint = \"{}\", region = \"us-east-1\", allow_http = true, credentials = {{ \
             access_key_id = {{ file = \"{folder}keys/access-key\" }}, secret_access_key = {{ file = \"{folder}keys/secret-key\" }} }} }}",
            self.server.url(),
            folder = self.folder.display(),
        )
    }

    /// Returns the example's configuration with other paths and ports: for a primary that listens on `port` and has its tablespace at
    /// `tablespace`, for a replica with all its files in `replica`, and for this S3 server.
    ///
    /// # Errors
    /// Fails if the example no longer has a path or port that must be replaced.
    pub fn configuration(&self, replica: &Path, tablespace: &Path, port: u16) -> Result<String> {
        let folder = self.folder.display().to_string();
        let text = example(
            "barman-cloud/understudy.toml",
            &[
                (&format!("{EXAMPLE}/primary/fast"), &tablespace.display().to_string()),
                (&format!("{EXAMPLE}/replica"), &replica.display().to_string()),
                (EXAMPLE, folder.trim_end_matches('/')),
                ("port=15481", &format!("port={port}")),
                (":15483", &format!(":{}", self.server.port())),
                ("[15483]", &format!("[{}]", self.server.port())),
            ],
        )?;
        ensure!(!text.contains("/srv/"), "a path is left: {text}");
        Ok(text)
    }
}
