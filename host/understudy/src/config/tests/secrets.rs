//! Every setting that takes a secret reads it by the same rules.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::sync::LazyLock;

use super::*;
use sandbox::kinds::{KINDS, Unset, ValueKind};

/// A setting that takes a secret: its name, the form of the secret, and lines of a configuration with `SECRET` as a placeholder for the
/// value.
struct SecretPlace {
    name: String,
    shape: Shape,
    lines: String,
}

/// A file with an OpenPGP key whose pass phrase is `swordfish`; a key without a pass phrase; and the text of the file.
static KEY: LazyLock<(tempfile::NamedTempFile, String, String)> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().unwrap();
    let locked = openpgp_key("swordfish");
    fs::write(file.path(), &locked).unwrap();
    (file, openpgp_key("").trim_end().to_owned(), locked)
});

impl SecretPlace {
    fn all() -> Vec<Self> {
        let mut places = vec![
            Self {
                name: "source.password".to_owned(),
                shape: Shape::Line,
                lines: "[source]\nconninfo = \"host=h\"\npassword = SECRET".to_owned(),
            },
            Self {
                name: "keys".to_owned(),
                shape: Shape::Line,
                lines: "[method.acme.grants]\nstores.repo = { url = \"file:///b\" }\n\
                        keys.repo = SECRET"
                    .to_owned(),
            },
            Self {
                name: "keys of OpenPGP".to_owned(),
                shape: Shape::OpenPgpKey,
                lines: "[method.acme.grants]\nstores.repo = { url = \"file:///b\" }\n\
                        keys.repo = SECRET"
                    .to_owned(),
            },
            Self {
                name: "keys.passphrase".to_owned(),
                shape: Shape::Line,
                lines: format!(
                    "[method.acme.grants]\nstores.repo = {{ url = \"file:///b\" }}\n\
                     keys.repo = {{ kind = \"openpgp\", file = \"{}\", passphrase = SECRET }}",
                    KEY.0.path().display()
                ),
            },
        ];
        for kind in KINDS {
            let address = if kind.scheme == "file" { "/b" } else { "b" };
            for (set, credential) in
                kind.credentials.iter().flat_map(|set| set.credentials.iter().map(move |of| (set, of)))
            {
                let name = credential.name;
                let beside = set.credentials.iter().filter(|other| !other.optional && other.name != name);
                let beside: String =
                    beside.map(|other| format!(", {} = {{ env = \"BESIDE\" }}", other.name)).collect();
                let required = kind.settings.iter().filter(|setting| {
                    matches!(setting.unset, Unset::Missing(_))
                        || set.needs.iter().any(|needed| needed.name == setting.name)
                });
                let needed: String = required.map(|setting| format!("{} = \"a\"\n", setting.name)).collect();
                let shape = match credential.value {
                    ValueKind::JsonObject => Shape::JsonObject,
                    _ => Shape::Line,
                };
                places.push(Self {
                    name: format!("{} {name}", kind.scheme),
                    shape,
                    lines: format!(
                        "[method.acme.grants.stores.repo]\nurl = \"{}://{address}\"\n{needed}credentials = {{ {name} = SECRET{beside} }}",
                        kind.scheme
                    ),
                });
            }
        }
        places
    }

    /// Returns a secret that this place takes.
    fn right(&self) -> &str {
        match self.shape {
            Shape::Line => "swordfish",
            Shape::JsonObject => "{\n  \"private_key\": \"swordfish\"\n}",
            Shape::OpenPgpKey => &KEY.1,
        }
    }

    /// Returns the secret that a run reads if the place names this file, or the problem.
    fn in_file(&self, file: &Path) -> Result<Vec<u8>, String> {
        self.secret(&format!("{{ file = \"{}\" }}", file.display()), &|name| {
            (name == "BESIDE").then(|| "beside".into())
        })
    }

    fn secret(&self, named: &str, environment: Environment<'_>) -> Result<Vec<u8>, String> {
        let named = match self.shape {
            Shape::OpenPgpKey => named.replace("{ ", "{ kind = \"openpgp\", "),
            Shape::Line | Shape::JsonObject => named.to_owned(),
        };
        let text = format!("{WHOLE}{}\n", self.lines.replace("SECRET", &named));
        let config = parse_with(&text, &Overrides::default(), environment)
            .map_err(|problems| format!("{}: {}", self.name, problems.join("; ")))?;
        let problem = |problem: Problem| problem.to_string();
        if let Some(source) = &config.source {
            let password = source.resolve().map_err(problem)?.password.unwrap();
            return Ok(password.expose().to_owned());
        }
        let grants = config.components["acme"].grants.resolve().map_err(problem)?;
        let is_of_another_place = |secret: &Vec<u8>| {
            secret == b"beside" || (self.shape == Shape::Line && *secret == KEY.2.as_bytes())
        };
        let mut secrets = grants.secrets().map(|secret| secret.expose().to_owned());
        let secret = secrets.find(|secret| !is_of_another_place(secret)).unwrap();
        // The line end after an OpenPGP key is kept.
        Ok(secret.trim_ascii_end().to_vec())
    }
}

/// Creates files that every setting refuses. Returns each with a part of the expected problem. `right` is a content that would be accepted.
fn refused_files(folder: &Path, right: &str) -> Vec<(PathBuf, &'static str)> {
    let file = |name: &str, content: &str, mode: u32| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let fifo = folder.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let link = folder.join("link");
    symlink(file("linked", right, 0o600), &link).unwrap();
    let mut files = vec![
        (file("read-by-all", right, 0o644), "chmod 0600"),
        (file("read-by-others", right, 0o604), "chmod 0600"),
        (file("written-by-a-group", right, 0o660), "chmod 0600"),
        (fifo, "not a file"),
        (link, "symbolic link"),
        (file("empty", "", 0o600), "it is empty"),
        (file("a-newline", "\n", 0o600), "it is empty"),
        (file("two-lines", "swordfish\nand more\n", 0o600), ""),
        (file("too-long", &"x".repeat((64 << 10) + 1), 0o600), "longer than 65536 bytes"),
        (folder.to_owned(), "not a file"),
        (folder.join("absent"), "No such file"),
    ];
    // Only root can give a file to another user.
    if rustix::process::geteuid().is_root() {
        let other = file("another-owner", right, 0o600);
        chown(&other, Some(12_345), None).unwrap();
        files.push((other, "chown"));
    }
    files
}

#[test]
fn every_setting_that_takes_a_secret_refuses_the_same_files() {
    let places = SecretPlace::all();
    assert!(places.len() >= 15, "{}", places.len());
    for place in places {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::write(&taken, format!("{}\n", place.right())).unwrap();
        fs::set_permissions(&taken, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(place.in_file(&taken).as_deref(), Ok(place.right().as_bytes()), "{}", place.name);
        for (file, says) in refused_files(folder.path(), place.right()) {
            let problem = place.in_file(&file).unwrap_err();
            let shown = if file.exists() {
                file.display().to_string()
            } else {
                "a file that does not exist".to_owned()
            };
            let named = format!("cannot use the secret in {shown}");
            assert!(problem.contains(&named) && problem.contains(says), "{}: {problem}", place.name);
            assert!(!problem.contains("swordfish"), "{}: {problem}", place.name);
        }
    }
}

#[test]
fn every_setting_that_takes_a_secret_refuses_the_same_variables() {
    for place in SecretPlace::all() {
        let named = "{ env = \"SECRET\" }";
        let with = |content: &str| {
            let content = OsString::from(content);
            place.secret(named, &|name| match name {
                "SECRET" => Some(content.clone()),
                "BESIDE" => Some("beside".into()),
                _ => None,
            })
        };
        assert_eq!(with(place.right()).as_deref(), Ok(place.right().as_bytes()), "{}", place.name);
        let two_lines = match place.shape {
            Shape::OpenPgpKey => "no OpenPGP secret key",
            Shape::Line | Shape::JsonObject => "cannot be a secret",
        };
        for (content, says) in [("", "not set"), ("\n", "empty"), ("swordfish\nand more", two_lines)] {
            let problem = with(content).unwrap_err();
            assert!(problem.contains(says) && !problem.contains("swordfish"), "{}: {problem}", place.name);
        }
        let inline = place.secret("\"swordfish\"", &nothing).unwrap_err();
        assert!(inline.contains("must not be written in this file"), "{}: {inline}", place.name);
    }
}

#[test]
fn credentials_that_auto_finds_in_the_environment_are_known_as_secrets() {
    for (scheme, variables) in [
        ("s3", &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"][..]),
        ("az", &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET"]),
        ("gs", &[]),
    ] {
        let of_a_cloud = |name: &str| name.starts_with("AWS_") || name.starts_with("AZURE_");
        let value = |name: &str| match name {
            _ if name.ends_with("_FILE") => format!("/{name}"),
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" => "/of".to_owned(),
            _ if name.contains("URI") || name.contains("URL") || name.ends_with("HOST") => {
                "https://of/".to_owned()
            }
            _ => format!("of-{name}").replace('_', "-"),
        };
        let environment = |name: &str| of_a_cloud(name).then(|| OsString::from(value(name)));
        let needed = if scheme == "az" { "account = \"a\"" } else { "" };
        let of = |credentials: &str| {
            let lines =
                format!("[method.acme.grants.stores.repo]\nurl = \"{scheme}://b\"\n{needed}\n{credentials}");
            let config =
                parse_with(&format!("{WHOLE}{lines}\n"), &Overrides::default(), &environment).unwrap();
            let known = &config.components["acme"].grants.ambient;
            known
                .iter()
                .map(|secret| String::from_utf8(secret.expose().to_owned()).unwrap())
                .collect::<Vec<_>>()
        };
        let expected: Vec<_> = variables.iter().map(|name| value(name)).collect();
        assert_eq!(of("credentials = \"auto\""), expected, "{scheme}");
        assert_eq!(of(""), [""; 0], "{scheme}");
    }
}

#[test]
fn a_secret_in_a_linked_directory_is_read_because_kubernetes_mounts_secrets_that_way() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("..2026")).unwrap();
    let file = folder.path().join("..2026/password");
    fs::write(&file, "swordfish").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    symlink("..2026", folder.path().join("..data")).unwrap();
    symlink("..data/password", folder.path().join("password")).unwrap();
    for place in SecretPlace::all().iter().filter(|place| place.shape == Shape::Line) {
        assert_eq!(place.in_file(&folder.path().join("..data/password")).as_deref(), Ok(&b"swordfish"[..]));
        let problem = place.in_file(&folder.path().join("password")).unwrap_err();
        assert!(problem.contains("`..data/NAME`"), "{problem}");
    }
}

#[test]
fn the_message_names_a_variable_that_auto_cannot_use() {
    use std::os::unix::ffi::OsStringExt;
    let long = "x".repeat(70_000);
    let s3 = &[
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_ENDPOINT_URL_STS",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ][..];
    let az = &[
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_AUTHORITY_HOST",
        "IDENTITY_ENDPOINT",
    ][..];
    let gs = &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS"][..];
    for (store, variables) in
        [("url = \"s3://b\"", s3), ("url = \"az://b\", account = \"a\"", az), ("url = \"gs://b\"", gs)]
    {
        let lines = format!("[method.acme.grants]\nstores.repo = {{ {store}, credentials = \"auto\" }}\n");
        let text = format!("{WHOLE}{lines}");
        for variable in variables {
            // The clouds' own programs treat an empty variable as not set.
            let empty = |name: &str| (name == *variable).then(OsString::new);
            assert!(parse_with(&text, &Overrides::default(), &empty).is_ok(), "{variable}");
            for value in [b"\xFF".to_vec(), b"a\nswordfish".to_vec(), long.clone().into_bytes()] {
                let environment = |name: &str| (name == *variable).then(|| OsString::from_vec(value.clone()));
                let problems =
                    parse_with(&text, &Overrides::default(), &environment).map(|_| ()).unwrap_err();
                assert_eq!(problems.len(), 1, "{variable}: {problems:?}");
                let begin = format!("{FILE}:7:");
                let says = format!(
                    "`method.acme.grants.stores.repo.credentials` asks the environment: the variable {variable} "
                );
                assert!(problems[0].starts_with(&begin) && problems[0].contains(&says), "{}", problems[0]);
                assert!(!problems[0].contains("swordfish"), "{}", problems[0]);
            }
            let garbage = if ["FILE", "CREDENTIALS", "ACCOUNT"].iter().any(|end| variable.ends_with(end)) {
                "relative/file"
            } else {
                "swordfish of garbage"
            };
            let environment = |name: &str| (name == *variable).then(|| OsString::from(garbage));
            let free = ["AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AZURE_CLIENT_SECRET"].contains(variable);
            let read = parse_with(&text, &Overrides::default(), &environment).map(|_| ());
            assert_eq!(read.is_ok(), free, "{variable}: {read:?}");
        }
    }
}

#[test]
fn the_password_of_a_proxy_is_known_as_a_secret() {
    let environment =
        |name: &str| (name == "https_proxy").then(|| OsString::from("http://me:sw%6frdfish@proxy:3128"));
    let config = parse_with(WHOLE, &Overrides::default(), &environment).unwrap();
    let redactor = ::replica::Redactor::new();
    config.proxy_secrets.iter().for_each(|secret| redactor.add(secret).unwrap());
    let redacted = redactor.redact("http://me:sw%6frdfish@proxy:3128 got swordfish and bWU6c3dvcmRmaXNo");
    assert_eq!(redacted, "http://<secret>@proxy:3128 got <secret> and <secret>");
}

#[test]
fn a_restore_command_with_a_secret_is_refused_without_showing_it() {
    for (line, expected) in [
        (
            "restore_command = \"AWS_SECRET=x wal-g wal-fetch\"",
            "6:19: `replica.restore_command` sets variables",
        ),
        (
            "restore_command = \"curl https://u:S3cret@h/%f -o %p\"",
            "6:19: `replica.restore_command` has a password in an address",
        ),
        ("restore_command = \"/usr/bin/env -i A=x wal-g\"", "6:19: `replica.restore_command` sets variables"),
        ("restore_command = \"env -u B A=S3cret wal-g\"", "6:19: `replica.restore_command` sets variables"),
        ("restore_command = \"cd /x && A=S3cret wal-g\"", "6:19: `replica.restore_command` sets variables"),
        ("restore_command = \"sh -c 'A=S3cret wal-g'\"", "6:19: `replica.restore_command` sets variables"),
        ("restore_command = \"export A=S3cret; wal-g\"", "6:19: `replica.restore_command` sets variables"),
        (
            "restore_command = \"x --cipher-pass=S3cret %f\"",
            "6:19: `replica.restore_command` has a secret in the argument `cipher-pass`",
        ),
        (
            "restore_command = \"cp '/a/%f %p\"",
            "6:19: `replica.restore_command` has a quote that is not closed: write a command that a shell can read",
        ),
    ] {
        let problem = problem(line);
        assert!(problem.starts_with(expected), "{line}\n  gave {problem}\n  not  {expected}");
        assert!(!problem.contains("S3cret"), "{problem}");
    }
}
