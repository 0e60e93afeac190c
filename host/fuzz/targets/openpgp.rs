//! Fuzzes OpenPGP messages, and the packets within encrypted data: decrypting ends, in bounded memory, and the size of the reads makes no
//! difference.

#![no_main]

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use fuzz::check_reads;
use libfuzzer_sys::fuzz_target;
use pgp::composed::{
    ArmorOptions, EncryptionCaps, KeyType, RawSessionKey, SecretKeyParamsBuilder, SubkeyParamsBuilder,
};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{PacketTrait, PublicKeyEncryptedSessionKey, SymEncryptedProtectedData};
use transfer::budget::{Budget, MemoryAllowance};
use transfer::cipher::{CipherFormat, OpenPgpKey};
use transfer::error::Kind;
use transfer::keys::{Key, KeySecret};
use transfer::pipeline::Pipeline;

const SESSION_KEY: [u8; 16] = [7; 16];

const CIPHER: SymmetricKeyAlgorithm = SymmetricKeyAlgorithm::AES128;

/// The pipeline with the key, and the packet with the session key for it.
static KEY: LazyLock<(Pipeline, Vec<u8>)> = LazyLock::new(|| {
    let mut random = rand::thread_rng();
    let subkey = SubkeyParamsBuilder::default()
        .key_type(KeyType::X25519)
        .can_encrypt(EncryptionCaps::All)
        .build()
        .unwrap();
    let secret = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519)
        .can_certify(true)
        .primary_user_id("fuzz".to_owned())
        .subkey(subkey)
        .build()
        .unwrap()
        .generate(&mut random)
        .unwrap();
    let public = secret.secret_subkeys[0].key.public_key();
    let session_key = RawSessionKey::from(&SESSION_KEY[..]);
    let packet =
        PublicKeyEncryptedSessionKey::from_session_key_v3(&mut random, &session_key, CIPHER, &public)
            .unwrap();
    let mut session_key = Vec::new();
    packet.to_writer_with_header(&mut session_key).unwrap();
    let text = secret.to_armored_bytes(ArmorOptions::default()).unwrap();
    let key = Arc::new(OpenPgpKey::read(&text, None).unwrap());
    let decrypt = Some((Key::named("fuzz", KeySecret::OpenPgp(key)), CipherFormat::OpenPgp));
    (Pipeline { decrypt, decompress: None }, session_key)
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, input)) = bytes.split_first() else { return };
    let mut stored = KEY.1.clone();
    match choice % 3 {
        0 => stored = input.to_vec(),
        1 => stored.extend_from_slice(input),
        _ => SymEncryptedProtectedData::encrypt_seipdv1(rand::thread_rng(), CIPHER, &SESSION_KEY, input)
            .unwrap()
            .to_writer_with_header(&mut stored)
            .unwrap(),
    }
    let open = || {
        let allowance = MemoryAllowance::of(&Budget::memory(64 << 20));
        KEY.0.decode(Box::new(Cursor::new(stored.clone())), &allowance)
    };
    // A text with keys that is compressed once more is denied.
    check_reads(open, &[Kind::Corrupt, Kind::Limit, Kind::Denied]);
});
