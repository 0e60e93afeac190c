//! Every kind of location where backups can be, filled with the files of a folder, and the configuration that grants access to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::server::{Playground, run};
use crate::stores::{AZURITE_ACCOUNT, AZURITE_KEY, S3RVER, StoreServer, ensure_servers};

/// A kind of location for backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupLocation {
    /// A directory that is granted by `read`.
    Directory,
    /// A directory that is granted as a store with a `file://` URL.
    FileUrl,
    /// S3, emulated by `moto`.
    Moto,
    /// S3, emulated by `s3rver`, which checks the access key.
    S3rver,
    /// Azure, emulated by `azurite`, which checks the account key.
    Azurite,
    /// Google Cloud Storage through its XML interface, which is the same as S3's.
    Google,
    /// A web server that supports ranges. It cannot be listed.
    Web,
    /// A web server that does not support ranges. It cannot be listed.
    WebWithoutRanges,
}

/// All kinds of locations.
pub const ALL_LOCATIONS: [BackupLocation; 8] = [
    BackupLocation::Directory,
    BackupLocation::FileUrl,
    BackupLocation::Moto,
    BackupLocation::S3rver,
    BackupLocation::Azurite,
    BackupLocation::Google,
    BackupLocation::Web,
    BackupLocation::WebWithoutRanges,
];

/// A location that holds files.
#[derive(Debug)]
pub struct StoredBackup {
    /// Its server; `None` for a directory.
    pub server: Option<StoreServer>,
    /// How the configuration grants access to the location.
    pub grant: Grant,
}

/// How the configuration grants access to a location.
#[derive(Debug)]
pub enum Grant {
    /// By `grants.read`.
    Read(PathBuf),
    /// By `grants.stores.NAME` with these settings, one setting per line.
    Store(String),
}

/// The prefix of the object names in a bucket.
const PREFIX: &str = "of/demo";

/// A Python program that uploads every file below a folder to an S3 bucket with Amazon's own client. Creates the bucket if it is
/// missing. Arguments: address, folder, prefix, key.
const TO_S3: &str = "\
import os, sys, boto3
s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id=sys.argv[4], aws_secret_access_key=sys.argv[4], region_name='us-east-1')
if not any(bucket['Name'] == 'backups' for bucket in s3.list_buckets()['Buckets']):
    s3.create_bucket(Bucket='backups')
for folder, _, names in os.walk(sys.argv[2]):
    for name in names:
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            with open(path, 'rb') as body:
                # Public, because some tests read without a signature.
                s3.put_object(Bucket='backups', Key=sys.argv[3] + '/' + os.path.relpath(path, sys.argv[2]), Body=body, ACL='public-read')
";

/// A Python program that uploads every file below a folder to an Azure container, without a client library. Signs requests as
/// <https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key> describes. Arguments: address, folder,
/// prefix, account, key.
const TO_AZURE: &str = "\
import base64, email.utils, hashlib, hmac, os, sys, urllib.error, urllib.parse, urllib.request
address, root, prefix, account, key = sys.argv[1:]
def put(path, query, body, headers):
    url = '/' + account + '/backups' + urllib.parse.quote(path)
    headers = {'x-ms-date': email.utils.formatdate(usegmt=True), 'x-ms-version': '2021-08-06', **headers}
    signed = ''.join(f'{name}:{headers[name]}\\n' for name in sorted(headers))
    length = str(len(body)) if body else ''
    # Content-Length is the third of eleven headers. The others are empty except the type.
    plain = ['PUT', '', '', length, '', 'application/octet-stream', '', '', '', '', '', '']
    resource = '/' + account + url + ''.join('\\n' + name + ':' + value for name, value in query)
    text = '\\n'.join(plain) + '\\n' + signed + resource
    signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
    headers.update({'Authorization': f'SharedKey {account}:{signature}', 'Content-Type': 'application/octet-stream'})
    asked = '?' + urllib.parse.urlencode(query) if query else ''
    urllib.request.urlopen(urllib.request.Request(address + url + asked, body, headers, method='PUT')).read()
try:
    put('', [('restype', 'container')], b'', {})
except urllib.error.HTTPError as error:
    if error.code != 409:
        raise
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            with open(path, 'rb') as body:
                put('/' + prefix + '/' + os.path.relpath(path, root), [], body.read(), {'x-ms-blob-type': 'BlockBlob'})
";

impl BackupLocation {
    /// Starts a server of this kind and uploads the files below `folder`. Credentials are written to files in the playground.
    ///
    /// # Errors
    /// Fails if the server does not start or does not accept the files.
    pub fn with(self, folder: &Path, playground: &Playground) -> Result<StoredBackup> {
        let retry = "retry_for = \"30s\"\nidle_timeout = \"10s\"\n";
        let (server, grant) = match self {
            Self::Directory => {
                return Ok(StoredBackup { server: None, grant: Grant::Read(folder.to_owned()) });
            }
            Self::FileUrl => (None, format!("url = \"file://{}\"\n", folder.display())),
            Self::Moto | Self::S3rver => {
                let server = if self == Self::Moto { StoreServer::moto()? } else { StoreServer::s3rver()? };
                self.put(&server.url(), folder)?;
                let key = secret(playground, "s3-key", S3RVER)?;
                let grant = format!(
                    "url = \"s3://backups/{PREFIX}\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\nallow_http = true\n{retry}\
                     credentials = {{ access_key_id = {{ file = \"{key}\" }}, secret_access_key = {{ file = \"{key}\" }} }}\n",
                    server.url(),
                    key = key.display()
                );
                (Some(server), grant)
            }
            Self::Azurite => {
                let server = StoreServer::azurite()?;
                self.put(&server.url(), folder)?;
                let key = secret(playground, "azure-key", AZURITE_KEY)?;
                let grant = format!(
                    "url = \"az://backups/{PREFIX}\"\naccount = \"{AZURITE_ACCOUNT}\"\nendpoint = \"{}/{AZURITE_ACCOUNT}\"\n\
                     allow_http = true\n{retry}credentials = {{ account_key = {{ file = \"{}\" }} }}\n",
                    server.url(),
                    key.display()
                );
                (Some(server), grant)
            }
            Self::Google => {
                let server = StoreServer::moto()?;
                self.put(&server.url(), folder)?;
                let grant = format!(
                    "url = \"gs://backups/{PREFIX}\"\nendpoint = \"{}\"\nallow_http = true\n{retry}",
                    server.url()
                );
                (Some(server), grant)
            }
            Self::Web => {
                let server = StoreServer::moto()?;
                self.put(&server.url(), folder)?;
                let grant = format!("url = \"{}/backups/{PREFIX}/\"\n{retry}", server.url());
                (Some(server), grant)
            }
            Self::WebWithoutRanges => {
                let server = StoreServer::python_http()?;
                run(Command::new("/bin/cp").arg("-r").arg(folder).arg(server.folder().join("demo")))?;
                let grant = format!("url = \"{}/demo/\"\n{retry}", server.url());
                (Some(server), grant)
            }
        };
        Ok(StoredBackup { server, grant: Grant::Store(grant) })
    }

    /// Uploads the files below `folder` to the server at this address. Replaces existing files with the same names.
    ///
    /// # Errors
    /// Fails if the server refuses a file.
    pub fn put(self, address: &str, folder: &Path) -> Result<()> {
        let mut put = Command::new(ensure_servers()?.join("venv/bin/python"));
        match self {
            Self::Azurite => {
                put.args(["-c", TO_AZURE, address]).arg(folder).args([PREFIX, AZURITE_ACCOUNT, AZURITE_KEY])
            }
            _ => put.args(["-c", TO_S3, address]).arg(folder).args([PREFIX, S3RVER]),
        };
        run(&mut put).map(drop)
    }

    /// Returns whether the location can be listed.
    pub fn can_be_listed(self) -> bool {
        !matches!(self, Self::Web | Self::WebWithoutRanges)
    }
}

/// Writes a file in the playground that only the server's user may read.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn secret(playground: &Playground, name: &str, value: &str) -> Result<PathBuf> {
    let path = playground.path(name);
    playground.user().write(&path, value)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}
