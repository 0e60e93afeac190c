//! `store`: places where backups are, to look and to read. Credentials and keys stay here.

use std::sync::Arc;

use transfer::cipher::CipherFormat;
use transfer::codec::Codec;
use transfer::keys::Key;
use transfer::pipeline::Pipeline;
use transfer::store::{Object, Page, Range, Store};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynInputStream;

use super::denied::named;
use super::interfaces::store;
use super::interfaces::types::Error;
use crate::files::{GuestPath, Watched};
use crate::plane::Plane;
use crate::state::State;

/// The most bytes that `bucket.get` gives.
const GET: u32 = 4 << 20;

/// A store that a component has opened.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Bucket {
    /// As the component called it.
    pub(super) name: Arc<str>,
    pub(super) store: Store,
}

/// What every call of a bucket needs.
const NO_PLANE: &str = "a handle that was never given";

impl State {
    fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<(&Plane, &Bucket)> {
        let plane = self.plane().ok_or_else(|| wasmtime::format_err!("{NO_PLANE}"))?;
        Ok((plane, self.table.get(bucket)?))
    }

    pub(super) fn pipeline(&self, via: Option<&Resource<Pipeline>>) -> wasmtime::Result<Pipeline> {
        Ok(match via {
            Some(via) => self.table.get(via)?.clone(),
            None => Pipeline::default(),
        })
    }

    /// An object to read, where it may be read in this way.
    fn object(
        &self,
        bucket: &Resource<Bucket>,
        key: String,
        via: Pipeline,
    ) -> wasmtime::Result<Result<(&Plane, crate::plane::Object), Error>> {
        let (plane, bucket) = self.bucket(bucket)?;
        if let Err((what, line)) = plane.may_decrypt(&bucket.name, &via) {
            return Ok(Err(self.denied("key", what, line)));
        }
        if let Err(error) = plane.may_read(&bucket.name, &key, &via) {
            return Ok(Err(self.error(error)));
        }
        Ok(Ok((plane, plane.object(bucket.store.clone(), key, via))))
    }

    async fn open_bucket(&mut self, name: &str) -> Result<Store, Error> {
        let Some(plane) = &mut self.job.plane else {
            return Err(self.denied("store", named("store", name), None));
        };
        if !name.starts_with('/') {
            let opened = plane.granted_store(name).await;
            let line = plane.remedies.store(name);
            return match opened {
                Some(opened) => opened.map_err(|error| self.error(error)),
                None => Err(self.denied("store", named("store", name), line)),
            };
        }
        let opened = plane.granted_directory(name).await;
        match opened {
            Some(opened) => opened.map_err(|error| self.error(error)),
            None => {
                let path = GuestPath::root().join(name);
                let line = self.plane().and_then(|plane| plane.remedies.read(&path.to_host()));
                Err(self.denied("read", path.to_string(), line))
            }
        }
    }
}

impl store::HostPipeline for State {
    async fn new(&mut self) -> wasmtime::Result<Resource<Pipeline>> {
        Ok(self.table.push(Pipeline::default())?)
    }

    async fn decrypt(
        &mut self,
        pipeline: Resource<Pipeline>,
        key: Resource<Key>,
        format: store::CipherFormat,
    ) -> wasmtime::Result<()> {
        let key = self.table.get(&key)?.clone();
        let format = match format {
            store::CipherFormat::OpensslSha1 => CipherFormat::OpensslSha1,
            store::CipherFormat::OpensslSha256 => CipherFormat::OpensslSha256,
            store::CipherFormat::SaltOnlySha1 => CipherFormat::SaltOnlySha1,
        };
        self.table.get_mut(&pipeline)?.decrypt = Some((key, format));
        Ok(())
    }

    async fn decompress(
        &mut self,
        pipeline: Resource<Pipeline>,
        codec: store::Codec,
    ) -> wasmtime::Result<()> {
        self.table.get_mut(&pipeline)?.decompress = Some(match codec {
            store::Codec::Gzip => Codec::Gzip,
            store::Codec::Zlib => Codec::Zlib,
            store::Codec::Lz4 => Codec::Lz4,
            store::Codec::Zstd => Codec::Zstd,
            store::Codec::Bzip2 => Codec::Bzip2,
            store::Codec::Xz => Codec::Xz,
            store::Codec::Snappy => Codec::Snappy,
            store::Codec::Brotli => Codec::Brotli,
        });
        Ok(())
    }

    async fn drop(&mut self, pipeline: Resource<Pipeline>) -> wasmtime::Result<()> {
        self.table.delete(pipeline)?;
        Ok(())
    }
}

impl store::HostBucket for State {
    async fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
        match self.open_bucket(&name).await {
            Ok(store) => Ok(Ok(self.table.push(Bucket { name: name.into(), store })?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn scan(
        &mut self,
        bucket: Resource<Bucket>,
        prefix: String,
        after: Option<String>,
    ) -> wasmtime::Result<Result<store::Page, Error>> {
        let (plane, bucket) = self.bucket(&bucket)?;
        let store = bucket.store.clone();
        let found = plane.run(async move { store.scan(&prefix, after.as_deref()).await }).await;
        Ok(found.map(|found| page(found, plane)).map_err(|error| self.error(error)))
    }

    async fn head(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<store::Object, Error>> {
        let (plane, bucket) = self.bucket(&bucket)?;
        let store = bucket.store.clone();
        let found = plane.run(async move { store.head(&key).await }).await;
        Ok(found.map(|found| object(found, plane)).map_err(|error| self.error(error)))
    }

    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        via: Option<Resource<Pipeline>>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let via = self.pipeline(via.as_ref())?;
        let (plane, object) = match self.object(&bucket, key, via)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let got = plane.run(object.get(limit.min(GET) as usize)).await;
        Ok(got.map_err(|error| self.error(error)))
    }

    async fn read(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        range: Option<store::Range>,
        via: Option<Resource<Pipeline>>,
    ) -> wasmtime::Result<Result<Resource<DynInputStream>, Error>> {
        let via = self.pipeline(via.as_ref())?;
        let (plane, object) = match self.object(&bucket, key, via)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        match plane.stream(object, range.map(self::range)).await {
            Ok(stream) => Ok(Ok(self
                .table
                .push(Box::new(Watched::new(stream, self.reporter.activity())) as DynInputStream)?)),
            Err(error) => Ok(Err(self.error(error))),
        }
    }

    async fn derive_key(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        via: Resource<Pipeline>,
        section: String,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Key>, Error>> {
        let via = self.pipeline(Some(&via))?;
        let store_name = self.table.get(&bucket)?.name.clone();
        let object = match self.object(&bucket, key, via)? {
            Ok((_, object)) => object,
            Err(error) => return Ok(Err(error)),
        };
        let Some(plane) = &mut self.job.plane else { wasmtime::bail!("{NO_PLANE}") };
        match plane.derive(&store_name, object, section, name).await {
            Ok(key) => Ok(Ok(self.table.push(key)?)),
            Err(error) => Ok(Err(self.error(error))),
        }
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl store::Host for State {}

pub(super) fn range(range: store::Range) -> Range {
    Range { offset: range.offset, length: range.length }
}

/// What a component is told of an object. A mark is a text of the server's, and may repeat what it was given.
fn object(object: Object, plane: &Plane) -> store::Object {
    let etag = object.etag.map(|etag| plane.without_secrets(&etag.to_string()));
    store::Object { key: object.key, size: object.size, modified: object.modified, etag }
}

fn page(page: Page, plane: &Plane) -> store::Page {
    let objects = page.objects.into_iter().map(|found| object(found, plane)).collect();
    store::Page { objects, next: page.next }
}
