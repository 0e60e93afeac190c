//! `store`: stores that hold backups, with a new function and a changed record compared with 0.1.

use transfer::cipher::CipherFormat;
use transfer::codec::Codec;
use transfer::error::Kind;
use transfer::keys::Key;
use transfer::pipeline::Pipeline;
use transfer::store::Range;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynInputStream;

use super::interfaces::store;
use crate::answer::{Answer, CallError};
use crate::capability::stores::{self, Bucket};
use crate::state::State;

impl store::HostPipeline for State {
    async fn new(&mut self) -> wasmtime::Result<Resource<Pipeline>> {
        self.new_pipeline()
    }

    async fn decrypt(
        &mut self,
        pipeline: Resource<Pipeline>,
        key: Resource<Key>,
        format: store::CipherFormat,
    ) -> wasmtime::Result<()> {
        let format = match format {
            store::CipherFormat::OpensslSha1 => CipherFormat::OpensslSha1,
            store::CipherFormat::OpensslSha256 => CipherFormat::OpensslSha256,
            store::CipherFormat::SaltOnlySha1 => CipherFormat::SaltOnlySha1,
            store::CipherFormat::Secretstream => CipherFormat::Secretstream,
            store::CipherFormat::SecretstreamHex => CipherFormat::SecretstreamHex,
            store::CipherFormat::SecretstreamBase64 => CipherFormat::SecretstreamBase64,
            store::CipherFormat::Openpgp => CipherFormat::OpenPgp,
        };
        self.decrypt_with(&pipeline, &key, format)
    }

    async fn decompress(
        &mut self,
        pipeline: Resource<Pipeline>,
        codec: store::Codec,
    ) -> wasmtime::Result<()> {
        let codec = match codec {
            store::Codec::Gzip => Codec::Gzip,
            store::Codec::Zlib => Codec::Zlib,
            store::Codec::Lz4 => Codec::Lz4,
            store::Codec::Zstd => Codec::Zstd,
            store::Codec::Bzip2 => Codec::Bzip2,
            store::Codec::Xz => Codec::Xz,
            store::Codec::Snappy => Codec::Snappy,
            store::Codec::Brotli => Codec::Brotli,
            store::Codec::Lzma => Codec::Lzma,
        };
        self.decompress_with(&pipeline, codec)
    }

    async fn drop(&mut self, pipeline: Resource<Pipeline>) -> wasmtime::Result<()> {
        self.drop_handle(pipeline)
    }
}

impl store::HostBucket for State {
    async fn open(&mut self, name: String) -> Answer<Resource<Bucket>> {
        self.open_store(name).await
    }

    async fn scan(
        &mut self,
        bucket: Resource<Bucket>,
        prefix: String,
        after: Option<String>,
    ) -> Answer<store::Page> {
        self.scan_store(&bucket, prefix, after).await.map(page)
    }

    async fn head(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<store::Object> {
        self.head_object(&bucket, key).await.map(object)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        match self.head_object(&bucket, key).await {
            Ok(_) => Ok(true),
            Err(CallError::Answer(error)) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        via: Option<Resource<Pipeline>>,
        limit: u32,
    ) -> Answer<Vec<u8>> {
        self.get_object(&bucket, key, via.as_ref(), limit).await
    }

    async fn read(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        range: Option<store::Range>,
        via: Option<Resource<Pipeline>>,
    ) -> Answer<Resource<DynInputStream>> {
        self.read_object(&bucket, key, range.map(self::range), via.as_ref()).await
    }

    async fn derive_key(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        via: Resource<Pipeline>,
        section: String,
        name: String,
    ) -> Answer<Resource<Key>> {
        self.derive_key_from(&bucket, key, &via, section, name).await
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.drop_handle(bucket)
    }
}

impl store::Host for State {}

pub(super) fn range(range: store::Range) -> Range {
    Range { offset: range.offset, length: range.length }
}

fn object(object: stores::Object) -> store::Object {
    let modified_ms = object.modified.map(|seconds| seconds.saturating_mul(1000));
    store::Object { key: object.key, size: object.size, modified_ms }
}

fn page(page: stores::Page) -> store::Page {
    store::Page { objects: page.objects.into_iter().map(object).collect(), next: page.next }
}
