use super::*;

const ALL: [Algorithm; 6] = [
    Algorithm::Crc32c,
    Algorithm::Sha1,
    Algorithm::Sha224,
    Algorithm::Sha256,
    Algorithm::Sha384,
    Algorithm::Sha512,
];

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn crc32c_is_written_as_backup_manifest_has_it() {
    // A file PG_VERSION, "15\n", in a manifest of PostgreSQL 15.
    assert_eq!(digest(Algorithm::Crc32c, b"15\n").to_string(), "CRC32C 8a744722");
}

#[test]
fn every_algorithm_gives_the_value_of_its_standard() {
    // FIPS 180-4's example "abc"; RFC 3720's CRC is tested above.
    for (algorithm, expected) in [
        (Algorithm::Sha1, "SHA1 a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Algorithm::Sha224, "SHA224 23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        (Algorithm::Sha256, "SHA256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Algorithm::Sha384,
            "SHA384 cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Algorithm::Sha512,
            "SHA512 ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ] {
        assert_eq!(digest(algorithm, b"abc").to_string(), expected);
    }
}

#[test]
fn the_digest_does_not_depend_on_the_pieces_in_which_bytes_arrive() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    for algorithm in ALL {
        let mut hasher = Hasher::new(algorithm);
        for piece in bytes.chunks(777) {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish(), digest(algorithm, &bytes));
    }
}

#[test]
fn a_digest_of_the_wrong_length_is_refused_with_both_lengths() {
    for algorithm in ALL {
        let mut right = digest(algorithm, b"");
        assert_eq!(right.value.len(), algorithm.length());
        assert_eq!(right.check_length(), Ok(()));
        right.value.push(0);
        let error = right.check_length().unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        for told in [algorithm.name(), &algorithm.length().to_string(), &right.value.len().to_string()] {
            assert!(error.message.contains(told), "{error}");
        }
    }
}
