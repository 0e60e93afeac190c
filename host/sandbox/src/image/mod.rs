//! Components as machine code, their images: compiled once, kept, and mapped from then on.

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

/// The largest component that is read. One with a whole Python in it has 18 MB.
pub(crate) const COMPONENT_BYTES: u64 = 128 << 20;

/// Told apart from what an earlier version of this program wrote.
const FORMAT: u32 = 1;

/// A component as machine code.
pub(crate) enum Image {
    /// A file in the cache that this program wrote, with the stamp or the digest that it had then.
    File(File),
    /// What a compiler just gave, or a file of the cache where the file system executes nothing.
    Memory(Vec<u8>),
}

/// An image and what its component said of itself.
pub(crate) struct Kept {
    pub(crate) image: Image,
    pub(crate) inspection: Inspection,
}

/// An image that was just made.
pub(crate) struct Fresh<'i> {
    pub(crate) image: Image,
    kept: Option<cache::Written<'i>>,
}

/// Where images come from.
pub(crate) struct Images {
    compiler: Compiler,
    cache: Option<Cache>,
}

impl Images {
    /// Opens the cache. One that cannot be used is told of and done without.
    pub(crate) fn new(settings: &SandboxSettings, engine: &Engine) -> Self {
        let open = |path: &std::path::PathBuf| match Cache::open(path, engine_digest(engine)) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let path = path.display();
                tracing::warn!("compiled components are not kept in {path}, each run compiles: {error}");
                None
            }
        };
        Self { compiler: settings.compiler.clone(), cache: settings.cache.as_ref().and_then(open) }
    }

    /// What is kept of the component with this digest.
    pub(crate) fn find(&self, component: &[u8; 32]) -> Option<Kept> {
        let cache = self.cache.as_ref()?;
        cache.find(component).unwrap_or_else(|error| {
            let path = cache.path().display();
            if error.kind() == std::io::ErrorKind::NotFound {
                tracing::debug!(
                    "a compiled component in {path} is not used, another run removes it: {error}"
                );
            } else {
                // No run makes such an entry: the operator should see that something else had a hand in it.
                tracing::warn!("a compiled component in {path} is not used: {error}");
            }
            None
        })
    }

    /// Compiles a component. Blocks until that has ended or `cancel` is cancelled.
    ///
    /// # Errors
    /// Why there is no image of it.
    pub(crate) fn make(
        &self,
        host: &Host,
        component: Vec<u8>,
        cancel: &CancellationToken,
    ) -> Result<Fresh<'_>, CompileError> {
        let image = self.compiler.compile(&host.engine, component, cancel)?;
        let kept = self.cache.as_ref().and_then(|cache| match cache.write(&image) {
            Ok(written) => Some(written),
            Err(error) => {
                not_kept(cache, &error);
                None
            }
        });
        let mapped = kept.as_ref().and_then(cache::Written::executable);
        Ok(Fresh { image: mapped.map_or(Image::Memory(image), Image::File), kept })
    }

    /// Keeps an image with what its component says of itself.
    pub(crate) fn keep(&self, fresh: Fresh<'_>, component: &[u8; 32], inspection: &Inspection) {
        let (Some(cache), Some(written)) = (&self.cache, fresh.kept) else { return };
        if let Err(error) = cache.keep(written, component, inspection) {
            not_kept(cache, &error);
        }
    }
}

fn not_kept(cache: &Cache, error: &std::io::Error) {
    let path = cache.path().display();
    tracing::warn!("a compiled component cannot be kept in {path}, the next run compiles again: {error}");
}

impl Image {
    /// Makes it a component of `engine`, which refuses an image of another version or configuration.
    #[expect(unsafe_code, reason = "an image runs as native code, which the engine cannot check")]
    pub(crate) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes are what a compiler of this program gave, in this process or in a child: `Images::make` has
        // them from there, and `Cache::find` gives only a file in a directory that no other user may change, with the
        // digest or the stamp that a record under this user's key has for it. Nothing here changes such a file once it
        // is written: it is replaced under its name and removed, which leaves a mapping as it is.
        unsafe {
            match self {
                // The opened file that was checked, whatever has its name by now.
                Self::File(file) => {
                    Component::deserialize_file(engine, format!("/proc/self/fd/{}", file.as_raw_fd()))
                }
                Self::Memory(bytes) => Component::deserialize(engine, bytes),
            }
        }
    }
}

/// What an image must be made by to be used: this version of the program, and an engine of the same version,
/// configuration and processor features (`Engine::precompile_compatibility_hash`).
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

    /// What a component of this name could have said, with every kind of value in it.
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
