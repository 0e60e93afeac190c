//! Decodes what the stores of the stand-in hold. Less strict than the host, which refuses bytes after the end of the compressed data and data
//! that end early: here only the first frame of zstd is read, and some lz4 data that are cut off end without an error. A `Fetch` compares
//! the size in any case.

use std::cell::Cell;
use std::io::{self, Read};

use super::Key;
use crate::raw::understudy::method::store::{CipherFormat, Codec};
use crate::raw::understudy::method::types::Error;

/// What a pipeline does to the bytes of an object.
#[derive(Clone, Copy, Default)]
struct Steps {
    decrypts: bool,
    codec: Option<Codec>,
}

pub(crate) struct Pipeline(Cell<Steps>);

impl Pipeline {
    pub(crate) fn new() -> Self {
        Self(Cell::default())
    }

    pub(crate) fn decrypt(&self, key: &Key, _format: CipherFormat) {
        let () = key.0;
        self.0.set(Steps { decrypts: true, ..self.0.get() });
    }

    pub(crate) fn decompress(&self, codec: Codec) {
        self.0.set(Steps { codec: Some(codec), ..self.0.get() });
    }

    /// Returns how a pipeline decodes. Fails if the stand-in cannot decode in this way.
    pub(super) fn decoding(via: Option<&Self>) -> Result<Decoding, Error> {
        let steps = via.map(|via| via.0.get()).unwrap_or_default();
        if steps.decrypts {
            return Err(Error::Invalid("the stand-in decrypts nothing".to_owned()));
        }
        let unknown = match steps.codec {
            None => return Ok(Decoding::Plain),
            Some(Codec::Gzip) => return Ok(Decoding::Gzip),
            Some(Codec::Zlib) => return Ok(Decoding::Zlib),
            Some(Codec::Lz4) => return Ok(Decoding::Lz4),
            Some(Codec::Zstd) => return Ok(Decoding::Zstd),
            Some(Codec::Bzip2) => "bzip2",
            Some(Codec::Xz) => "xz",
            Some(Codec::Snappy) => "snappy",
            Some(Codec::Brotli) => "brotli",
            Some(Codec::Lzma) => "lzma",
        };
        Err(Error::Invalid(format!(
            "the stand-in decodes gzip, zlib, lz4 and zstd, not {unknown}: test this with the program understudy"
        )))
    }
}

/// How the stand-in decodes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoding {
    Plain,
    Gzip,
    Zlib,
    Lz4,
    Zstd,
}

impl Decoding {
    /// Returns a reader of the plain bytes. Fails if the compressed bytes begin wrongly.
    pub(super) fn reader<'a>(self, stored: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(stored),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stored)),
            Self::Zlib => Box::new(flate2::read::ZlibDecoder::new(stored)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(stored)),
            Self::Zstd => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(stored);
                Box::new(
                    decoder.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?,
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::digests::{Algorithm, Digest, Hasher};
    use crate::native::Host;
    use crate::store::{Bucket, Pipeline};
    use crate::transfer::{Fetch, Job, Unless};
    use crate::{Error, Failure};

    /// Some text, compressed with each codec that the stand-in knows.
    fn compressed(text: &[u8]) -> [(Codec, Vec<u8>); 4] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        gzip.write_all(text).unwrap();
        zlib.write_all(text).unwrap();
        lz4.write_all(text).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        [
            (Codec::Gzip, gzip.finish().unwrap()),
            (Codec::Zlib, zlib.finish().unwrap()),
            (Codec::Lz4, lz4.finish().unwrap()),
            (Codec::Zstd, zstd),
        ]
    }

    fn fetch(bucket: &Bucket, codec: Codec, size: u64, digest: Vec<u8>) -> Result<(), Failure> {
        let mut job = Job::new();
        job.fetch(Fetch {
            origin: job.origin(bucket, Some(&Pipeline::new().decompress(codec)))?,
            object: "object".to_owned(),
            range: None,
            path: "file".to_owned(),
            at: None,
            size,
            digest: Some(Digest { algorithm: Algorithm::Sha256, value: digest }),
            mode: None,
            mtime: None,
            unless: Unless::Always,
        })?;
        job.finish().map(drop)
    }

    #[test]
    fn objects_are_decoded_and_checked() {
        let (store, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let text = b"parcels ".repeat(5000);
        let size = text.len() as u64;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&text);
        let digest = hasher.finish();
        for (codec, bytes) in compressed(&text) {
            fs::write(store.path().join("object"), &bytes).unwrap();
            Host::new(data.path()).store("repo", store.path()).run(|| {
                let bucket = Bucket::open("repo").unwrap();
                let via = Pipeline::new().decompress(codec);
                assert_eq!(bucket.get("object", Some(&via), 1 << 20).unwrap(), text, "{codec:?}");
                let mut read = Vec::new();
                bucket.read("object", None, Some(&via)).unwrap().read_to_end(&mut read).unwrap();
                assert_eq!(read, text, "{codec:?}");
                fetch(&bucket, codec, size, digest.clone()).unwrap();
                assert_eq!(fs::read(data.path().join("file")).unwrap(), text);
                for (size, digest, says) in [
                    (size - 1, digest.clone(), "more than 39999 bytes"),
                    (size + 1, digest.clone(), "40000 bytes instead of 40001"),
                    (size, vec![0; 32], "another digest"),
                ] {
                    let failure = fetch(&bucket, codec, size, digest).unwrap_err();
                    assert!(failure.to_string().contains(says), "{codec:?}: {failure}");
                }
                fs::write(store.path().join("object"), &bytes[..bytes.len() / 2]).unwrap();
                let failure = fetch(&bucket, codec, size, digest.clone()).unwrap_err();
                assert!(failure.to_string().contains("object"), "{codec:?}: {failure}");
            });
        }
    }

    #[test]
    fn a_codec_that_the_stand_in_does_not_know_is_named() {
        let store = tempfile::tempdir().unwrap();
        fs::write(store.path().join("object"), "bytes").unwrap();
        Host::new("/data").store("repo", store.path()).run(|| {
            let bucket = Bucket::open("repo").unwrap();
            let answer = bucket.get("object", Some(&Pipeline::new().decompress(Codec::Brotli)), 10);
            assert!(matches!(answer, Err(Error::Invalid(why)) if why.contains("not brotli")));
        });
    }
}
