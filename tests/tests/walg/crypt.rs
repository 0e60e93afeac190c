//! Encrypts a storage as WAL-G does.

use std::fs;
use std::path::{Path, PathBuf};

use tests::gpg::Gpg;

/// A way to encrypt a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// With libsodium's secretstream.
    Libsodium(KeyForm),
    /// With OpenPGP, and a key of this algorithm as gpg names it.
    OpenPgp(&'static str),
}

impl Encryption {
    pub(crate) const ALL: [Self; 5] = [
        Self::Libsodium(KeyForm::Text),
        Self::Libsodium(KeyForm::Hex),
        Self::Libsodium(KeyForm::Base64),
        Self::OpenPgp("rsa2048"),
        Self::OpenPgp("future-default"),
    ];
}

/// Encrypts a storage, and has the key.
#[derive(Debug)]
pub(crate) enum Crypt {
    /// With libsodium's secretstream.
    Libsodium(KeyForm),
    /// With OpenPGP.
    OpenPgp {
        gpg: Gpg,
        /// The secret key in ASCII armour, with the pass phrase [`PASS_PHRASE`].
        key: String,
    },
}

/// How the key for libsodium is given (`WALG_LIBSODIUM_KEY_TRANSFORM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// As a text. WAL-G fills up a text that is shorter than a key with zeros.
    Text,
    /// In hexadecimal.
    Hex,
    /// In base64.
    Base64,
}

const PASS_PHRASE: &str = "correct horse battery staple";

impl Crypt {
    /// Makes the key.
    pub(crate) fn new(encryption: Encryption) -> Self {
        match encryption {
            Encryption::Libsodium(form) => Self::Libsodium(form),
            Encryption::OpenPgp(algorithm) => Self::openpgp(algorithm),
        }
    }

    fn openpgp(algorithm: &str) -> Self {
        let gpg = Gpg::new().unwrap();
        let key = gpg.key("walg", algorithm, PASS_PHRASE, &["--armor", "--export-secret-subkeys"]).unwrap();
        Self::OpenPgp { gpg, key: String::from_utf8(key).unwrap() }
    }

    /// Returns the lines that tell the method how the storage is encrypted.
    pub(crate) fn options(&self) -> String {
        match self {
            Self::Libsodium(form) => format!("libsodium-key-transform = \"{}\"", form.transform()),
            Self::OpenPgp { .. } => "encryption = \"openpgp\"".to_owned(),
        }
    }

    /// Returns the settings of the granted key. `file` writes a file with this name and text.
    pub(crate) fn grant(&self, file: &dyn Fn(&str, &str) -> PathBuf) -> String {
        let file = |name, text| format!("file = \"{}\"", file(name, text).display());
        match self {
            Self::Libsodium(form) => file("libsodium.key", form.text()),
            Self::OpenPgp { key, .. } => format!(
                "kind = \"openpgp\", {}, passphrase = {{ {} }}",
                file("openpgp.asc", key),
                file("openpgp.pass", PASS_PHRASE)
            ),
        }
    }

    /// Encrypts every archive and every segment.
    pub(crate) fn encrypt_all(&self, storage: &Path) {
        for folder in [storage.join("basebackups_005"), storage.join("wal_005")] {
            for entry in walk(&folder) {
                if entry.extension().is_none_or(|ending| ending != "json") {
                    let plain = fs::read(&entry).unwrap();
                    fs::write(&entry, self.encrypted(&plain)).unwrap();
                }
            }
        }
    }

    fn encrypted(&self, plain: &[u8]) -> Vec<u8> {
        match self {
            Self::Libsodium(form) => secretstream(plain, &form.key()),
            // WAL-G's library does not compress.
            Self::OpenPgp { gpg, .. } => gpg.encrypt("walg", &["--compress-algo=none"], plain).unwrap(),
        }
    }
}

impl KeyForm {
    /// Returns the transform as the option of the method names it.
    fn transform(self) -> &'static str {
        match self {
            Self::Text => "none",
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }

    /// Returns the key as the operator's file has it.
    fn text(self) -> &'static str {
        match self {
            Self::Text => "correct horse battery staple",
            Self::Hex => "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            Self::Base64 => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        }
    }

    /// Returns the bytes of the key.
    fn key(self) -> [u8; 32] {
        let text = self.text().as_bytes();
        std::array::from_fn(|index| match self {
            Self::Text => text.get(index).copied().unwrap_or(0),
            Self::Hex | Self::Base64 => u8::try_from(index).unwrap(),
        })
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

fn secretstream(plain: &[u8], key: &[u8; 32]) -> Vec<u8> {
    use dryoc::classic::crypto_secretstream_xchacha20poly1305 as secretstream;
    use dryoc::constants::{
        CRYPTO_SECRETSTREAM_XCHACHA20POLY1305_TAG_FINAL as FINAL,
        CRYPTO_SECRETSTREAM_XCHACHA20POLY1305_TAG_MESSAGE as MESSAGE,
    };
    const AT_ONCE: usize = 8192;
    let (mut state, mut header) = (secretstream::State::new(), secretstream::Header::default());
    secretstream::crypto_secretstream_xchacha20poly1305_init_push(&mut state, &mut header, key);
    let mut stored = header.to_vec();
    let full = plain.len() / AT_ONCE * AT_ONCE;
    let mut message = |bytes: &[u8], tag| {
        let mut out = vec![0; bytes.len() + 17];
        secretstream::crypto_secretstream_xchacha20poly1305_push(&mut state, &mut out, bytes, None, tag)
            .unwrap();
        stored.extend(out);
    };
    plain[..full].chunks(AT_ONCE).for_each(|bytes| message(bytes, MESSAGE));
    message(&plain[full..], FINAL);
    stored
}
