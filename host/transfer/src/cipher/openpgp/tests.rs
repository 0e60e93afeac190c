//! Messages of the real gpg, and of rPGP for what no gpg here writes.

use std::sync::Arc;

use ::tests::gpg::Gpg;
use foundation::secret::Secret;
use pgp::composed::{
    ArmorOptions, EncryptionCaps, KeyType, MessageBuilder, RawSessionKey, SecretKeyParamsBuilder,
    SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::aead::{AeadAlgorithm, ChunkSize};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::PacketTrait;
use pgp::types::CompressionAlgorithm;

use super::*;
use crate::budget::{Budget, MemoryAllowance};
use crate::cipher::CipherFormat;
use crate::keys::KeySecret;
use crate::pipeline::Pipeline;

const ARMOURED: &[&str] = &["--armor", "--export-secret-keys"];

fn key(text: &[u8], pass_phrase: Option<&str>) -> Key {
    let keys = OpenPgpKey::read(text, pass_phrase.map(Secret::new).as_ref()).unwrap();
    Key::named("repo", KeySecret::OpenPgp(Arc::new(keys)))
}

fn decrypted_within(stored: &[u8], key: &Key, budget: &Budget) -> Result<Vec<u8>, Error> {
    let via = Pipeline { decrypt: Some((key.clone(), CipherFormat::OpenPgp)), decompress: None };
    let stored = Box::new(io::Cursor::new(stored.to_vec()));
    let mut plain = Vec::new();
    via.decode(stored, &MemoryAllowance::of(budget))?.read_to_end(&mut plain)?;
    Ok(plain)
}

fn decrypted(stored: &[u8], key: &Key) -> Result<Vec<u8>, Error> {
    decrypted_within(stored, key, &Budget::unlimited())
}

/// Bytes that compress to about a half.
fn sample(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(5);
    (0..length).map(|_| random.u8(..16)).collect()
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn messages_of_gpg_are_read_with_every_kind_of_key_cipher_and_compression() {
    let gpg = Gpg::new().unwrap();
    let keys = [
        ("rsa", gpg.key("rsa", "rsa2048", "", ARMOURED).unwrap(), None),
        ("curve", gpg.key("curve", "future-default", "", &["--export-secret-keys"]).unwrap(), None),
        (
            "rsa-locked",
            gpg.key("rsa-locked", "rsa2048", "pass word", &["--export-secret-keys"]).unwrap(),
            Some("pass word"),
        ),
        (
            "curve-locked",
            gpg.key("curve-locked", "future-default", "pass word", ARMOURED).unwrap(),
            Some("pass word"),
        ),
        // The primary key is left out.
        ("sub", gpg.key("sub", "rsa2048", "", &["--armor", "--export-secret-subkeys"]).unwrap(), None),
    ];
    for (name, text, pass_phrase) in &keys {
        let key = key(text, *pass_phrase);
        for arguments in [
            &["--compress-algo=none"][..],
            &["--compress-algo=zip"],
            &["--compress-algo=zlib", "--cipher-algo=AES128"],
            &["--compress-algo=bzip2", "--cipher-algo=CAMELLIA256"],
            &["--hidden-recipient==rsa", "--hidden-recipient==curve"],
        ] {
            for length in [0, 20, 8170, 300_000] {
                let plain = sample(length);
                let stored = gpg.encrypt(name, arguments, &plain).unwrap();
                assert!(decrypted(&stored, &key) == Ok(plain), "{name} {arguments:?} {length}");
            }
        }
    }
    // A key that no message is for, and a message for several.
    let plain = sample(1000);
    let stored = gpg.encrypt("rsa", &["--recipient==curve"], &plain).unwrap();
    assert!(decrypted(&stored, &key(&keys[1].1, None)) == Ok(plain));
    let error = decrypted(&stored, &key(&keys[4].1, None)).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(
        error.message.contains("is encrypted for 0x") && error.message.contains("the key `repo` (0x"),
        "{error}"
    );
    let stored = gpg.run(&["--passphrase=x", "--symmetric"], b"plain").unwrap();
    let error = decrypted(&stored, &key(&keys[0].1, None)).unwrap_err();
    assert!(error.message.contains("for a pass phrase rather than a key"), "{error}");
    // A signed message is read as another one.
    let stored = gpg.encrypt("rsa", &["--sign", "--local-user==curve"], b"signed").unwrap();
    assert_eq!(decrypted(&stored, &key(&keys[0].1, None)).unwrap(), b"signed");
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn keys_that_cannot_be_used_are_refused_without_showing_them() {
    let gpg = Gpg::new().unwrap();
    let locked = gpg.key("locked", "future-default", "pass word", ARMOURED).unwrap();
    let signs = gpg.key("signs", "ed25519", "", ARMOURED).unwrap();
    let public = gpg.run(&["--armor", "--export", "locked"], b"").unwrap();
    for (text, pass_phrase, says) in [
        (&*locked, None, "it has a pass phrase"),
        (&locked, Some("another"), "not the given one"),
        (&locked[..locked.len() / 2], Some("pass word"), "no OpenPGP secret key"),
        (&signs, None, "no secret key that can decrypt"),
        (&public, None, "no OpenPGP secret key"),
        (b"swordfish", None, "no OpenPGP secret key"),
        (b"", None, "no OpenPGP secret key"),
        (&[0xFF; 100], None, "no OpenPGP secret key"),
    ] {
        let why = OpenPgpKey::read(text, pass_phrase.map(Secret::new).as_ref()).unwrap_err();
        assert!(
            why.contains(says) && !why.contains("swordfish") && !why.contains("pass word"),
            "{says}: {why}"
        );
    }
    let debug = format!("{:?}", key(&locked, Some("pass word")));
    assert!(debug.contains("<1 secret keys>"), "{debug}");
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn every_damage_fails_the_message() {
    let gpg = Gpg::new().unwrap();
    let key = key(&gpg.key("curve", "future-default", "", ARMOURED).unwrap(), None);
    for (arguments, plain) in [
        (&["--compress-algo=none"][..], sample(20_000)),
        (&["--compress-algo=zlib"], sample(20_000)),
        (&["--compress-algo=bzip2"], sample(2_000)),
        (&["--compress-algo=zip"], sample(100)),
    ] {
        let stored = gpg.encrypt("curve", arguments, &plain).unwrap();
        assert!(decrypted(&stored, &key) == Ok(plain.clone()));
        let step = (stored.len() / 300).max(1);
        for at in (0..stored.len()).step_by(step) {
            let mut changed = stored.clone();
            changed[at] ^= 0x10;
            match decrypted(&changed, &key) {
                Err(error) => assert!(matches!(error.kind, Kind::Corrupt | Kind::Limit), "{at}: {error}"),
                // A key that is named as hidden is tried, too; and the library ignores some bits of a point on the curve.
                Ok(read) => assert!(
                    at < 100 && read == plain,
                    "{arguments:?}: the change of byte {at} is not noticed"
                ),
            }
            let error = decrypted(&stored[..at], &key).unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{arguments:?} cut at {at}: {error}");
        }
        for more in [&b"x"[..], b"\n", &stored] {
            let error = decrypted(&[&stored, more].concat(), &key).unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{error}");
        }
    }
    let error = decrypted(b"plain text", &key).unwrap_err();
    assert!(error.message.contains("cannot be decrypted"), "{error}");
    assert_eq!(decrypted(b"", &key).unwrap_err().message, "the OpenPGP message is truncated");
}

/// Writes the packets of a message again, each in one part, after `change` has changed its type and its body.
fn changed(stored: &[u8], mut change: impl FnMut(&mut u8, &mut Vec<u8>)) -> Vec<u8> {
    let (mut message, mut source): (Vec<u8>, Source) =
        (Vec::new(), Box::new(io::Cursor::new(stored.to_vec())));
    while let Some(packet) = Packet::next(source).unwrap() {
        let mut tag = packet.tag().encode() & 0x3F;
        let (mut body, rest) = packet.body.read_short().unwrap();
        change(&mut tag, &mut body);
        message.extend([0xC0 | tag, 0xFF]);
        message.extend((body.len() as u32).to_be_bytes());
        message.extend(body);
        source = rest;
    }
    message
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn data_without_protection_against_modification_are_refused() {
    let gpg = Gpg::new().unwrap();
    let key = key(&gpg.key("curve", "future-default", "", ARMOURED).unwrap(), None);
    let stored = gpg.encrypt("curve", &["--compress-algo=none"], &sample(1000)).unwrap();
    assert!(decrypted(&changed(&stored, |_, _| {}), &key) == Ok(sample(1000)));
    // The old type of packet, without a modification detection code.
    let old = changed(&stored, |tag, body| {
        if *tag == 18 {
            *tag = 9;
            body.remove(0);
        }
    });
    let error = decrypted(&old, &key).unwrap_err();
    assert!(
        error.kind == Kind::Corrupt && error.message.contains("not protected against modification"),
        "{error}"
    );
    // The code is cut off: 22 bytes at the end.
    let cut = changed(&stored, |tag, body| {
        if *tag == 18 {
            body.truncate(body.len() - 22);
        }
    });
    let error = decrypted(&cut, &key).unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.message.contains("check for modification"), "{error}");
    // A literal packet or a compressed one that nobody encrypted.
    let error = decrypted(b"\xCB\x0Bb\0\0\0\0\0plain", &key).unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.message.contains("no encrypted message"), "{error}");
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_key_of_one_kind_does_not_decrypt_data_of_another() {
    let gpg = Gpg::new().unwrap();
    let openpgp = key(&gpg.key("curve", "future-default", "", ARMOURED).unwrap(), None);
    let stored = gpg.encrypt("curve", &[], b"plain").unwrap();
    let text = Key::named("repo", Secret::new("swordfish"));
    let error = decrypted(&stored, &text).unwrap_err();
    assert!(error.kind == Kind::Invalid && error.message.contains("kind = \"openpgp\""), "{error}");
    for format in [CipherFormat::OpensslSha256, CipherFormat::SaltOnlySha1, CipherFormat::Secretstream] {
        let via = Pipeline { decrypt: Some((openpgp.clone(), format)), decompress: None };
        let source = Box::new(io::Cursor::new([&b"Salted__"[..], &[7; 100]].concat()));
        let mut plain = Vec::new();
        let error =
            via.decode(source, &MemoryAllowance::unlimited()).unwrap().read_to_end(&mut plain).unwrap_err();
        let error = Error::from(error);
        assert!(error.kind == Kind::Invalid && error.message.contains("is an OpenPGP key"), "{error}");
    }
}

/// Encrypts in GnuPG's own packet of type 20 with OCB, in chunks of 64 bytes, as draft-koch-librepgp describes it, for a new key. No gpg here
/// writes this packet, and neither does rPGP.
fn gnupg_aead(plain: &[u8]) -> (Vec<u8>, Key) {
    const CHUNK: usize = 64;
    let (secret, session_key, iv) = (curve(), [7; 32], [9; 15]);
    let cipher = SymmetricKeyAlgorithm::AES256;
    let recipient = secret.secret_subkeys[0].key.public_key();
    let raw = RawSessionKey::from(&session_key[..]);
    let encrypted =
        PublicKeyEncryptedSessionKey::from_session_key_v3(rand::thread_rng(), &raw, cipher, &recipient);
    let mut stored = Vec::new();
    encrypted.unwrap().to_writer_with_header(&mut stored).unwrap();

    let length = u8::try_from(plain.len() + 6).unwrap();
    let literal = [&[0xCB, 255, 0, 0, 0, length][..], b"b\0\0\0\0\0", plain].concat();
    let start = [1, cipher.into(), AeadAlgorithm::Ocb.into(), ChunkSize::C64B.into()];
    let mut body = [&start[..], &iv].concat();
    let mut add = |index: usize, bytes: &[u8], total: &[u8]| {
        let index = (index as u64).to_be_bytes();
        let mut nonce = iv;
        nonce[7..].iter_mut().zip(index).for_each(|(byte, of_index)| *byte ^= of_index);
        let associated = [&[0xD4][..], &start, &index, total].concat();
        let mut sealed = bytes::BytesMut::from(bytes);
        AeadAlgorithm::Ocb.encrypt_in_place(&cipher, &session_key, &nonce, &associated, &mut sealed).unwrap();
        body.extend_from_slice(&sealed);
    };
    let chunks: Vec<_> = literal.chunks(CHUNK).collect();
    chunks.iter().enumerate().for_each(|(index, chunk)| add(index, chunk, &[]));
    add(chunks.len(), &[], &(literal.len() as u64).to_be_bytes());
    stored.extend([0xD4, 255]);
    stored.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    stored.extend(body);
    (stored, key(&secret.to_armored_bytes(ArmorOptions::default()).unwrap(), None))
}

#[test]
fn data_of_gnupgs_own_type_are_read() {
    let plain = sample(200);
    let (stored, key) = gnupg_aead(&plain);
    assert!(decrypted(&stored, &key) == Ok(plain));
    for at in stored.len() - 250..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        assert_eq!(decrypted(&changed, &key).unwrap_err().kind, Kind::Corrupt, "{at}");
        assert_eq!(decrypted(&stored[..at], &key).unwrap_err().kind, Kind::Corrupt, "{at}");
    }
}

/// Makes a key on Curve25519.
fn curve() -> SignedSecretKey {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(KeyType::X25519)
        .can_encrypt(EncryptionCaps::All)
        .build()
        .unwrap();
    let parameters = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519)
        .can_certify(true)
        .primary_user_id("test".to_owned())
        .subkey(subkey)
        .build()
        .unwrap();
    parameters.generate(rand::thread_rng()).unwrap()
}

/// Encrypts with version 2 for a new key.
fn version_2(plain: &[u8], chunk: ChunkSize, compression: Option<CompressionAlgorithm>) -> (Vec<u8>, Key) {
    let secret = curve();
    let mut random = rand::thread_rng();
    let mut message = MessageBuilder::from_bytes("", plain.to_vec()).seipd_v2(
        &mut random,
        SymmetricKeyAlgorithm::AES256,
        AeadAlgorithm::Ocb,
        chunk,
    );
    if let Some(compression) = compression {
        message.compression(compression);
    }
    message.encrypt_to_key(&mut random, &secret.secret_subkeys[0].key.public_key()).unwrap();
    (
        message.to_vec(&mut random).unwrap(),
        key(&secret.to_armored_bytes(ArmorOptions::default()).unwrap(), None),
    )
}

#[test]
fn data_of_version_2_are_read() {
    for (length, chunk) in [(0, ChunkSize::C64B), (1000, ChunkSize::C64B), (300_000, ChunkSize::C64KiB)] {
        let plain = sample(length);
        for compression in [None, Some(CompressionAlgorithm::ZLIB)] {
            let (stored, key) = version_2(&plain, chunk, compression);
            assert!(decrypted(&stored, &key) == Ok(plain.clone()), "{length} {compression:?}");
            for at in [stored.len() - 1, stored.len() - 20] {
                let mut changed = stored.clone();
                changed[at] ^= 1;
                assert_eq!(decrypted(&changed, &key).unwrap_err().kind, Kind::Corrupt);
                assert_eq!(decrypted(&stored[..at], &key).unwrap_err().kind, Kind::Corrupt);
            }
        }
    }
}

#[test]
fn the_memory_of_chunks_is_charged_before_it_is_allocated_and_given_back() {
    let (stored, key) = version_2(&sample(100_000), ChunkSize::C4MiB, None);
    let budget = Budget::memory(17 << 20);
    assert_eq!(decrypted_within(&stored, &key, &budget).unwrap().len(), 100_000);
    assert!(budget.peak() >= 16 << 20, "{}", budget.peak());
    assert_eq!(budget.held(), 0);
    let error = decrypted_within(&stored, &key, &Budget::memory(15 << 20)).unwrap_err();
    assert!(error.kind == Kind::Limit && error.message.contains("host_memory"), "{error}");
}

#[test]
fn a_message_of_endless_packets_is_refused() {
    let (_, key) = version_2(b"", ChunkSize::C64B, None);
    // Markers without end, and one packet with a session key that never ends.
    let markers = b"\xCA\x03PGP".repeat(1000);
    assert_eq!(decrypted(&markers, &key).unwrap_err().kind, Kind::Limit);
    let via = Pipeline { decrypt: Some((key, CipherFormat::OpenPgp)), decompress: None };
    for start in [&b"\x87"[..], b"\x8F"] {
        let stored = Box::new(start.chain(io::repeat(b'x')));
        let error = via.decode(stored, &MemoryAllowance::unlimited()).unwrap().read(&mut [0]).unwrap_err();
        assert_eq!(Error::from(error).kind, Kind::Limit);
    }
}

#[test]
fn data_compressed_too_many_times_are_refused() {
    // Compressed data of algorithm 0 are the bytes themselves.
    let literal = b"\xCB\x0Bb\0\0\0\0\0plain".to_vec();
    let nested = |times: usize| {
        let bytes = (0..times).fold(literal.clone(), |inner, _| {
            [&[0xC8, u8::try_from(inner.len() + 1).unwrap(), 0], &*inner].concat()
        });
        let windows = Windows::new(&MemoryAllowance::unlimited());
        let mut plain = Vec::new();
        literal_of(bytes, &windows)?.read_to_end(&mut plain)?;
        Ok::<_, Error>(plain)
    };
    assert_eq!(nested(0).unwrap(), b"plain");
    assert_eq!(nested(2).unwrap(), b"plain");
    assert_eq!(nested(3).unwrap_err().kind, Kind::Limit);
}

fn literal_of(bytes: Vec<u8>, windows: &Windows) -> Result<Body, Error> {
    literal(Box::new(io::Cursor::new(bytes)), windows, MOST_COMPRESSIONS)
}

#[test]
fn a_key_that_failed_too_often_is_not_used_any_more() {
    let (stored, key) = version_2(b"plain", ChunkSize::C64B, None);
    let broken = changed(&stored, |tag, body| {
        if *tag == 1 {
            let last = body.len() - 1;
            body[last] ^= 1;
        }
    });
    let mut last = None;
    for _ in 0..=keys::MOST_FAILURES {
        last = decrypted(&broken, &key).err();
    }
    let error = last.unwrap();
    assert!(error.kind == Kind::Limit && error.message.contains("not used any more"), "{error}");
    assert_eq!(decrypted(&stored, &key).unwrap_err().kind, Kind::Limit);
}
