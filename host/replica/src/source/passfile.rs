//! The files that carry secrets to native programs, so that no argument list contains one. Loop rule 3.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use foundation::secret::Secret;
use tempfile::TempPath;
use zeroize::Zeroizing;

use super::Conninfo;
use crate::regular_file;

/// The service that a run's service file defines.
pub(super) const SERVICE: &str = "understudy";

/// The longest line of a service file: libpq reads lines of 1024 bytes (`parseServiceFile` in `fe-connect.c`), and this leaves a margin.
const SERVICE_LINE: usize = 1000;

/// The bytes that end a value in both files.
const LINE_ENDS: &[u8] = b"\n\r\0";

/// Returns the content of a passfile of this run: what Patroni writes for the same connection (`ConfigHandler._pgpass_content`
/// in `patroni/postgresql/config.py`), a line for each host. If there are as many ports as hosts, each line has its own port, as libpq
/// looks it up; Patroni would write the whole list, which matches no connection.
///
/// # Errors
/// Fails if no line can hold the password.
pub(super) fn content(conninfo: &Conninfo, password: &Secret) -> io::Result<Vec<u8>> {
    if password.expose().iter().any(|byte| LINE_ENDS.contains(byte)) {
        return Err(unfit(
            "the password of the source has a line break or a NUL, which no passfile can hold",
        ));
    }
    let user = conninfo.get("user").unwrap_or("*");
    let ports: Vec<_> = conninfo.get("port").unwrap_or("*").split(',').map(str::trim).collect();
    let mut lines: Vec<(String, String)> = Vec::new();
    for (index, host) in hosts(conninfo).into_iter().enumerate() {
        let port = if ports.len() == 1 { ports.first() } else { ports.get(index) };
        let port = port.copied().filter(|port| !port.is_empty()).unwrap_or("*");
        lines.extend(host.map(|host| (host, port.to_owned())));
    }
    let is = |wanted: &str| lines.iter().any(|(host, _)| host == wanted);
    // For a socket in the default directory, libpq looks up `localhost` in the passfile.
    if lines.iter().any(|(host, _)| host.starts_with('/')) && !is("localhost") {
        let port = if ports.len() == 1 { ports[0] } else { "*" };
        lines.push(("localhost".to_owned(), port.to_owned()));
    }
    let mut content = Vec::new();
    for (host, port) in &lines {
        let fields = [host.as_bytes(), port.as_bytes()].map(escape);
        let [host, port] = fields;
        content.extend([&host[..], b":", &port, b":*:", &escape(user.as_bytes()), b":"].concat());
        content.extend(escape(password.expose()));
        content.push(b'\n');
    }
    Ok(content)
}

/// Returns the hosts as libpq looks them up, in the order of the list; `None` for an empty entry without an address.
fn hosts(conninfo: &Conninfo) -> Vec<Option<String>> {
    let Some(hosts) = conninfo.get("host") else {
        return vec![Some("*".to_owned()); conninfo.get("port").map_or(1, |ports| ports.split(',').count())];
    };
    let addresses: Vec<_> = conninfo.get("hostaddr").unwrap_or("").split(',').collect();
    let named = |(index, host): (usize, &str)| match host.trim() {
        "" => addresses
            .get(index)
            .map(|address| address.trim().to_owned())
            .filter(|address| !address.is_empty()),
        host => Some(host.to_owned()),
    };
    hosts.split(',').enumerate().map(named).collect()
}

fn escape(field: &[u8]) -> Vec<u8> {
    let escaped = field.iter().flat_map(|byte| match byte {
        b'\\' | b':' => [Some(b'\\'), Some(*byte)],
        byte => [None, Some(*byte)],
    });
    escaped.flatten().collect()
}

/// The most bytes of an operator's passfile that are read for the passwords in it.
const LONGEST_PASSFILE: u64 = 1 << 20;

/// Returns the passwords in a passfile of libpq's format (`passwordFromFile` in `fe-connect.c`), so that they can be kept out of
/// texts. Returns none for a file that cannot be read; [`super::unusable_passfile`] reports why.
pub fn passwords_in(path: &Path) -> Vec<Secret> {
    let mut content = Zeroizing::new(Vec::new());
    let file = regular_file::open(path);
    let read = file.and_then(|file| file.take(LONGEST_PASSFILE).read_to_end(&mut content));
    if read.is_err() {
        return Vec::new();
    }
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#"));
    lines.filter_map(password_of).filter(|password| !password.expose().is_empty()).collect()
}

/// Returns the password of a line: the text after the fourth unescaped colon, without its escapes. `None` if the line has fewer colons.
fn password_of(line: &[u8]) -> Option<Secret> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut colons = 0;
    let mut bytes = line.iter().copied();
    while colons < 4 {
        match bytes.next()? {
            b'\\' => _ = bytes.next(),
            b':' => colons += 1,
            _ => {}
        }
    }
    let mut password = Zeroizing::new(Vec::with_capacity(line.len()));
    while let Some(byte) = bytes.next() {
        password.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    Some(Secret::new(password.as_slice()))
}

/// Returns the content of a service file of this run: the secrets other than the password, because PostgreSQL has no environment variables
/// for them. `None` if there are none.
///
/// # Errors
/// Fails if the connection string already names a service, because there can be only one, or if a line cannot hold a value.
pub(super) fn service(conninfo: &Conninfo) -> io::Result<Option<Vec<u8>>> {
    let mut lines = Vec::new();
    for (keyword, secret) in conninfo.secrets().filter(|(keyword, _)| *keyword != "password") {
        if conninfo.get("service").is_some() || conninfo.get("servicefile").is_some() {
            return Err(unfit(&format!(
                "the connection string names a service and has a {keyword}: write the {keyword} into the service file"
            )));
        }
        let value = secret.expose();
        let ends_in_space = value.last().is_some_and(|last| last.is_ascii_whitespace() || *last == b'\x0b');
        if value.iter().any(|byte| LINE_ENDS.contains(byte))
            || ends_in_space
            || value.len() + keyword.len() > SERVICE_LINE
        {
            return Err(unfit(&format!(
                "the {keyword} of the source ends in a space, has a line break or is longer than {SERVICE_LINE} bytes, \
                 which PostgreSQL's service file cannot hold"
            )));
        }
        lines.extend([keyword.as_bytes(), b"=", value, b"\n"].concat());
    }
    Ok((!lines.is_empty()).then(|| [b"[", SERVICE.as_bytes(), b"]\n", &lines].concat()))
}

fn unfit(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Writes a file of this run (0600) into `directory`, which is created (0700) if it is missing. The file is removed when
/// the value is dropped.
///
/// # Errors
/// Fails if others may enter the directory, or it cannot be written.
pub(super) fn write(directory: &Path, prefix: &str, content: &[u8]) -> io::Result<TempPath> {
    let at = |error: io::Error| {
        io::Error::new(error.kind(), format!("{} cannot hold a passfile: {error}", directory.display()))
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at)?;
    let mode = std::fs::metadata(directory).map_err(at)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(at(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("its mode is {:04o} and must be 0700", mode & 0o7777),
        )));
    }
    let mut file = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(at)?;
    file.write_all(content).map_err(at)?;
    Ok(file.into_temp_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passfile(conninfo: &str) -> String {
        let conninfo = Conninfo::parse(conninfo).unwrap();
        String::from_utf8(content(&conninfo, &conninfo.password().unwrap()).unwrap()).unwrap()
    }

    /// Expects what Patroni's `_pgpass_content` returns for the same parameters.
    #[test]
    fn rule_03_a_passfile_holds_what_patroni_writes() {
        for (conninfo, expected) in [
            ("host=10.0.0.1 port=5432 user=repl password=x", "10.0.0.1:5432:*:repl:x\n"),
            (r"host=h port=1 user='a:b' password='p:q\\r'", "h:1:*:a\\:b:p\\:q\\\\r\n"),
            (
                "host=a,b,c port=5432 user=repl password=x",
                "a:5432:*:repl:x\nb:5432:*:repl:x\nc:5432:*:repl:x\n",
            ),
            ("host='a, b,,' port=1 user=u password=x", "a:1:*:u:x\nb:1:*:u:x\n"),
            ("host=::1 port=1 user=u password=x", "\\:\\:1:1:*:u:x\n"),
            ("host=/run/pg port=1 user=u password=x", "/run/pg:1:*:u:x\nlocalhost:1:*:u:x\n"),
            ("host=/run/pg,localhost port=1 user=u password=x", "/run/pg:1:*:u:x\nlocalhost:1:*:u:x\n"),
            ("password=x", "*:*:*:*:x\n"),
        ] {
            assert_eq!(passfile(conninfo), expected, "{conninfo}");
        }
    }

    #[test]
    fn rule_03_each_host_has_its_own_port() {
        assert_eq!(passfile("host=a,b port=1,2 user=u password=x"), "a:1:*:u:x\nb:2:*:u:x\n");
        assert_eq!(passfile("host=a,b port=1, user=u password=x"), "a:1:*:u:x\nb:*:*:u:x\n");
        assert_eq!(passfile("host=a,, hostaddr=,::1, port=1 password=x"), "a:1:*:*:x\n\\:\\:1:1:*:*:x\n");
    }

    #[test]
    fn the_passwords_of_a_passfile_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "# a:b:c:d:comment\nh:1:*:u:plain\n\\:\\:1:1:*:u\\:v:p\\:q\\\\r\nshort:1:2\nh:1:*:u:\nh:1:*:u:last\r\n",
        )
        .unwrap();
        let found = passwords_in(file.path());
        let found: Vec<_> = found.iter().map(Secret::expose).collect();
        assert_eq!(found, [&b"plain"[..], b"p:q\\r", b"last"]);
        assert!(passwords_in(Path::new("/no/such/file")).is_empty());
    }

    #[test]
    fn a_password_that_no_line_can_hold_is_refused_without_showing_it() {
        let error = content(&Conninfo::default(), &Secret::new("hunter2\nx")).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn rule_03_the_other_secrets_go_into_a_service_file() {
        let conninfo = Conninfo::parse("host=h password=a sslpassword='b c'").unwrap();
        assert_eq!(service(&conninfo).unwrap().as_deref(), Some(&b"[understudy]\nsslpassword=b c\n"[..]));
        assert_eq!(service(&Conninfo::parse("host=h password=a").unwrap()).unwrap(), None);
    }

    #[test]
    fn a_secret_that_a_service_file_cannot_hold_is_refused_without_showing_it() {
        let long = "hunter2".repeat(200);
        for value in ["'hunter2 '", "'hunter2\nx'", long.as_str(), "hunter2 service=mine"] {
            let error = service(&Conninfo::parse(&format!("sslpassword={value}")).unwrap()).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn rule_03_the_file_is_private_and_removed_at_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("run");
        let file = write(&directory, "pgpass-", b"a\n").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        let path = file.to_path_buf();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_may_enter_holds_no_passfile() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o750)).unwrap();
        assert!(write(parent.path(), "pgpass-", b"a\n").unwrap_err().to_string().contains("0750"));
    }
}
