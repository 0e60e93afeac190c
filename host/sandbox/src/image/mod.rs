//! Images: components compiled to machine code. A component is compiled once. Later runs map its image from a cache.

mod cache;
mod child;
mod compiler;
mod private;
mod record;

use std::fs::File;
use std::hash::Hash;
use std::os::fd::AsRawFd;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::engine::Host;
use crate::{Inspection, SandboxSettings};
use cache::Cache;
pub use child::compiler_main;
pub(crate) use compiler::CompileError;
pub use compiler::{CompileBounds, Compiler};

/// The size limit of a component. A component that contains Python has 18 MB.
pub(crate) const COMPONENT_BYTES: u64 = 128 << 20;

/// The format of cache entries. Entries of another format are not used.
const FORMAT: u32 = 1;

/// A component as machine code.
pub(crate) enum Image {
    /// A file in the cache that this program wrote, and whose stamp or digest is unchanged.
    File(File),
    /// The output of a compiler, or the content of a cache file on a file system that is mounted `noexec`.
    Memory(Vec<u8>),
}

/// A component from the cache: its image and its description.
pub(crate) struct CachedComponent {
    pub(crate) image: Image,
    pub(crate) inspection: Inspection,
}

/// An image that was just compiled.
pub(crate) struct Fresh<'i> {
    pub(crate) image: Image,
    written: Option<cache::Written<'i>>,
}

/// Provides images, from the cache or from the compiler.
pub(crate) struct Images {
    compiler: Compiler,
    cache: Option<Cache>,
}

impl Images {
    /// Opens the cache. If it cannot be used, logs a warning and continues without it.
    pub(crate) fn new(settings: &SandboxSettings, engine: &Engine) -> Self {
        let open = |path: &std::path::PathBuf| match Cache::open(path, engine_digest(engine)) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let path = path.display();
                tracing::warn!("cannot use {path} as a cache, so each run compiles its components: {error}");
                None
            }
        };
        Self { compiler: settings.compiler.clone(), cache: settings.cache.as_ref().and_then(open) }
    }

    /// Returns the component with this digest from the cache.
    pub(crate) fn find(&self, component: &[u8; 32]) -> Option<CachedComponent> {
        let cache = self.cache.as_ref()?;
        cache.find(component).unwrap_or_else(|error| {
            let path = cache.path().display();
            if error.kind() == std::io::ErrorKind::NotFound {
                tracing::debug!(
                    "ignoring a compiled component in {path}, because another run is removing it: {error}"
                );
            } else {
                // No run writes such an entry, so the operator should see that something else changed it.
                tracing::warn!("ignoring a compiled component in {path}: {error}");
            }
            None
        })
    }

    /// Compiles a component. Blocks until the compilation has ended or `cancel` is cancelled.
    ///
    /// # Errors
    /// Says why the component was not compiled.
    pub(crate) fn make(
        &self,
        host: &Host,
        component: Vec<u8>,
        cancel: &CancellationToken,
    ) -> Result<Fresh<'_>, CompileError> {
        let image = self.compiler.compile(&host.engine, component, cancel)?;
        let written = self.cache.as_ref().and_then(|cache| match cache.write(&image) {
            Ok(written) => Some(written),
            Err(error) => {
                warn_not_kept(cache, &error);
                None
            }
        });
        let mapped = written.as_ref().and_then(cache::Written::executable);
        Ok(Fresh { image: mapped.map_or(Image::Memory(image), Image::File), written })
    }

    /// Adds an image to the cache, with what its component says about itself.
    pub(crate) fn keep(&self, fresh: Fresh<'_>, component: &[u8; 32], inspection: &Inspection) {
        let (Some(cache), Some(written)) = (&self.cache, fresh.written) else { return };
        if let Err(error) = cache.keep(written, component, inspection) {
            warn_not_kept(cache, &error);
        }
    }
}

fn warn_not_kept(cache: &Cache, error: &std::io::Error) {
    let path = cache.path().display();
    tracing::warn!("cannot keep a compiled component in {path}, so the next run compiles it again: {error}");
}

impl Image {
    /// Loads the image as a component of `engine`. Fails if the image is for an engine of another version or configuration.
    #[expect(unsafe_code, reason = "an image runs as native code, which the engine cannot check")]
    pub(crate) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes are the output of this program's compiler, in this process or in a child. `Images::make` gets them from the
        // compiler. `Cache::find` returns only a file whose digest or stamp is in a record that was authenticated with this user's key, and
        // no other user may change the file's directory. This program never changes such a file once it is written. It only removes the
        // file or gives its name to another file, which leaves an existing mapping as it is.
        unsafe {
            match self {
                // This path leads to the opened file that was checked, even if another file has its name by now.
                Self::File(file) => {
                    Component::deserialize_file(engine, format!("/proc/self/fd/{}", file.as_raw_fd()))
                }
                Self::Memory(bytes) => Component::deserialize(engine, bytes),
            }
        }
    }
}

/// Returns the digest of everything, apart from the component, that determines an image: the version of this program, and the version,
/// configuration and processor features of the engine (`Engine::precompile_compatibility_hash`).
fn engine_digest(engine: &Engine) -> [u8; 32] {
    struct Bytes(Sha256);
    impl std::hash::Hasher for Bytes {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            let digest: [u8; 32] = self.0.clone().finalize().into();
            u64::from_ne_bytes(digest[..8].try_into().unwrap_or_default())
        }
    }
    let mut bytes = Bytes(Sha256::new());
    (FORMAT, env!("CARGO_PKG_VERSION")).hash(&mut bytes);
    engine.precompile_compatibility_hash().hash(&mut bytes);
    bytes.0.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config;
    use crate::{Description, Kind, Need, NeedKind, OptionSpec, OptionValue};

    /// Returns an inspection for a component with this name. It has every kind of value.
    pub(super) fn inspection(name: &str) -> Inspection {
        let kinds = [
            (Kind::Text, Some(OptionValue::Text("7".to_owned()))),
            (Kind::Choice(vec!["a".to_owned()]), None),
            (Kind::Integer, Some(OptionValue::Integer(-7))),
            (Kind::Number, Some(OptionValue::Number(7.0))),
            (Kind::Number, Some(OptionValue::Number(0.1))),
            (Kind::Flag, Some(OptionValue::Flag(true))),
            (Kind::Texts, Some(OptionValue::Texts(vec!["a".to_owned(), "b".to_owned()]))),
            (Kind::Texts, Some(OptionValue::Texts(Vec::new()))),
            (Kind::Size, Some(OptionValue::Integer(1 << 40))),
            (Kind::Duration, Some(OptionValue::Integer(90_000))),
            (Kind::Secret, None),
        ];
        let option = |(kind, default)| OptionSpec {
            name: "option".to_owned(),
            kind,
            required: false,
            default,
            doc: "for \"this\"".to_owned(),
        };
        let need = |kind| Need { kind, name: "need".to_owned(), required: true, reason: "why".to_owned() };
        let needs = [
            NeedKind::Store,
            NeedKind::Key,
            NeedKind::Directory,
            NeedKind::Network,
            NeedKind::Program,
            NeedKind::Environment,
        ];
        Inspection {
            name: name.to_owned(),
            digest: "sha256:00".to_owned(),
            size: 7,
            contract: "0.1.0".to_owned(),
            description: Description {
                name: name.to_owned(),
                version: "1.0".to_owned(),
                summary: "does".to_owned(),
                options: kinds.map(option).into(),
                needs: needs.map(need).into(),
            },
            imports: vec!["wasi:io/poll@0.2.6".to_owned()],
        }
    }

    #[test]
    fn an_engine_of_another_configuration_has_another_digest_and_refuses_the_image() {
        let ours = Engine::new(&config()).unwrap();
        assert_eq!(engine_digest(&ours), engine_digest(&Engine::new(&config()).unwrap()));
        let other = Engine::new(config().epoch_interruption(false)).unwrap();
        assert_ne!(engine_digest(&ours), engine_digest(&other));
        let image = other.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap();
        assert!(Image::Memory(image.clone()).component(&ours).is_err());
        Image::Memory(image).component(&other).unwrap();
    }
}
