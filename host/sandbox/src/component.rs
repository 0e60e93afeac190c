//! From a file to a component that can run: judged, compiled and described unless it was before, linked.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::Duration;

use replica::{Refusal, Rule};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;
use wasmtime::component;

use crate::capability::Remedies;
use crate::contracts::{self, Contract, Exports};
use crate::engine::Host;
use crate::files::Files;
use crate::image::{COMPONENT_BYTES, Images, Kept};
use crate::reporter::Reporter;
use crate::run;
use crate::state::State;
use crate::text::{hex, printable};
use crate::thread::Quiet;
use crate::{ComponentSource, Grants, Inspection, describe};
use foundation::landlock::Domain;

/// How long `describe` may take, and how much memory it may hold.
const DESCRIBE_TIME: Duration = Duration::from_secs(1);
const DESCRIBE_MEMORY: u64 = 64 << 20;

/// A component's bytes, read to their end: what had this digest is what runs.
pub(crate) struct Bytecode {
    held: Held,
    size: u64,
    digest: [u8; 32],
}

/// Where the bytes are until a compiler needs them.
enum Held {
    File(File),
    Included(&'static [u8]),
}

/// A component that can run.
pub(crate) struct Loaded {
    pub(crate) inspection: Inspection,
    pub(crate) exports: Box<dyn Exports>,
}

fn refuse(source: &ComponentSource, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(Rule::Component, format!("{source}: {what}"))
}

/// Refuses a component that any user of this machine could put another in the place of: what it writes becomes the
/// server's. A file that is not there is left to [`Bytecode::read`]; what is included in the program only who replaces the program
/// can change.
///
/// # Errors
/// A [`Refusal`] of the rule `component`.
pub(crate) fn refuse_if_everybody_may_change(source: &ComponentSource) -> Result<(), Refusal> {
    const STICKY: u32 = 0o1000;
    let ComponentSource::File(path) = source else { return Ok(()) };
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    for (place, is_file) in std::iter::once((real.as_path(), true)).chain(real.parent().map(|up| (up, false)))
    {
        let Ok(metadata) = std::fs::metadata(place) else { continue };
        let mode = metadata.mode();
        if mode & 0o002 != 0 && (is_file || mode & STICKY == 0) {
            let what = format!(
                "may be changed by everybody: {} has mode {:04o}; `chmod o-w` it",
                place.display(),
                mode & 0o7777
            );
            return Err(refuse(source, what).by_policy());
        }
    }
    Ok(())
}

impl Bytecode {
    /// Reads the component to its end and judges its first bytes.
    ///
    /// # Errors
    /// A [`Refusal`] of the rule `component`.
    pub(crate) fn read(source: &ComponentSource) -> Result<Self, Refusal> {
        let unreadable = |error: io::Error| refuse(source, format!("cannot be read: {error}"));
        let held = match source {
            ComponentSource::Included { bytes, .. } => Held::Included(bytes),
            ComponentSource::File(path) => {
                // Without it a FIFO would hang this thread.
                let flags = OFlags::NONBLOCK.bits() as i32;
                let file = File::options().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
                if !file.metadata().map_err(unreadable)?.is_file() {
                    return Err(refuse(source, "is not a file"));
                }
                Held::File(file)
            }
        };
        let (mut begin, mut digest) = (Vec::new(), Sha256::new());
        let size = held.each_part(&mut |part| {
            begin.extend_from_slice(&part[..part.len().min(JUDGED - begin.len())]);
            digest.update(part);
        });
        let size = size.map_err(unreadable)?;
        if size > COMPONENT_BYTES {
            return Err(refuse(source, format!("is larger than {} MiB", COMPONENT_BYTES >> 20)));
        }
        judge(&begin).map_err(|what| refuse(source, what))?;
        Ok(Self { held, size, digest: digest.finalize().into() })
    }

    /// The bytes themselves; a file is read once more: only a compiler needs them.
    fn bytes(&self, source: &ComponentSource) -> Result<Vec<u8>, Refusal> {
        let mut file = match &self.held {
            Held::Included(bytes) => return Ok(bytes.to_vec()),
            Held::File(file) => file,
        };
        let mut bytes = Vec::new();
        let read =
            file.rewind().and_then(|()| self.held.each_part(&mut |part| bytes.extend_from_slice(part)));
        read.map_err(|error| refuse(source, format!("cannot be read: {error}")))?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if digest != self.digest {
            return Err(refuse(source, "was changed while it was read: try again"));
        }
        Ok(bytes)
    }

    /// The digest of the bytes.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// Bytes that [`judge`] looks at.
const JUDGED: usize = 8;

impl Held {
    /// Gives the bytes part by part, and how many there were; ends after one more than a component may have.
    fn each_part(&self, part: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        let file = match self {
            Self::Included(bytes) => {
                part(bytes);
                return Ok(bytes.len() as u64);
            }
            Self::File(file) => file,
        };
        let mut file = file.take(COMPONENT_BYTES + 1);
        let mut buffer = vec![0; 64 << 10];
        let mut size = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(size),
                Ok(count) => {
                    part(&buffer[..count]);
                    size += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Tells a component from what is often taken for one by the eight bytes that each begins with (the WebAssembly
/// specification's binary format; the component model's `Binary.md`).
fn judge(bytes: &[u8]) -> Result<(), &'static str> {
    match bytes {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err("is a core module and not a component: build it for wasm32-wasip2")
        }
        [b'(', ..] => Err("is WebAssembly text and not a component: translate it with `wasm-tools parse`"),
        [] => Err("is empty"),
        bytes if b"\0asm".starts_with(&bytes[..bytes.len().min(4)]) => Err("ends in its first eight bytes"),
        _ => Err("is not WebAssembly"),
    }
}

impl Loaded {
    /// Maps the image of a component and what it said of itself, or compiles it and asks it; then links it.
    ///
    /// Must be called from a thread that is not restricted: a compiler starts here. Blocks; `cancel` ends a compilation.
    ///
    /// # Errors
    /// A [`Refusal`] of the rule `component`, `interface version`, `import` or `describe`.
    pub(crate) fn new(
        host: &Host,
        images: &Images,
        source: &ComponentSource,
        code: Bytecode,
        cancel: &CancellationToken,
    ) -> Result<Self, Refusal> {
        let digest = hex(&code.digest);
        if let Some(Kept { image, inspection }) = images.find(&code.digest) {
            let component = image.component(&host.engine).map_err(|error| in_one_line(&error));
            match component.and_then(|component| Ok((component, believed(inspection)?))) {
                Ok((component, (inspection, contract))) => {
                    tracing::debug!("{source}: sha256:{digest} was compiled before");
                    let exports = link(host, source, &component, contract, &inspection.imports)?;
                    return Ok(Self { inspection, exports });
                }
                Err(why) => tracing::warn!("{source}: what is kept of it is not used: {why}"),
            }
        }
        tracing::debug!("{source}: compiling sha256:{digest}");
        let fresh = images.make(host, code.bytes(source)?, cancel).map_err(|error| refuse(source, error))?;
        let component = fresh
            .image
            .component(&host.engine)
            .map_err(|error| refuse(source, format!("cannot be loaded: {}", in_one_line(&error))))?;
        let ty = component.component_type();
        let names = |(name, _): (&str, _)| printable(name, 200);
        let imports: Vec<_> = ty.imports(&host.engine).map(names).collect();
        let exports: Vec<_> = ty.exports(&host.engine).map(names).collect();
        let (contract, version) = Contract::exported(&exports)
            .map_err(|why| Refusal::new(Rule::InterfaceVersion, format!("{source}: {why}")))?;
        let exports = link(host, source, &component, contract, &imports)?;
        let refused = |why: String| Refusal::new(Rule::Describe, format!("{source}: {why}"));
        tracing::debug!("{source}: asking sha256:{digest} what it is");
        let described = ask(host, &*exports).map_err(refused)?;
        let description = describe::check(described)
            .map_err(|why| refused(format!("what it says of itself cannot be: {why}")))?;
        let inspection = Inspection {
            name: description.name.clone(),
            digest: format!("sha256:{digest}"),
            size: code.size,
            contract: version,
            description,
            imports,
        };
        images.keep(fresh, &code.digest, &inspection);
        Ok(Self { inspection, exports })
    }
}

/// What was kept of a component's own words, where it still holds: a version of this program with other rules may have kept it.
fn believed(inspection: Inspection) -> Result<(Inspection, &'static Contract), String> {
    let contract = Contract::of(&inspection.contract).ok_or_else(|| {
        format!("it is for version {} of the contract", printable(&inspection.contract, 32))
    })?;
    let description = describe::check(inspection.description)?;
    Ok((Inspection { description, ..inspection }, contract))
}

/// What a component asks for that the linker does not have.
const WITHOUT: &str = "asks for what this program does not have, or was built for another state of the contract, as 0.1.0 \
                       changes until it is released: build it again with this program's wit/";

/// Gives a component what it imports and finds the exports of the contract.
fn link(
    host: &Host,
    source: &ComponentSource,
    component: &component::Component,
    contract: &Contract,
    imports: &[String],
) -> Result<Box<dyn Exports>, Refusal> {
    let unfit = |rule, what: &str, error: &wasmtime::Error| {
        Refusal::new(rule, format!("{source}: {what}: {}", in_one_line(error)))
    };
    let linked = host.linker.instantiate_pre(component).map_err(|error| {
        let unknown = contracts::unknown(imports).map(|unknown| format!("; not known: {unknown}"));
        unfit(Rule::Import, &format!("{WITHOUT}{}", unknown.unwrap_or_default()), &error)
    })?;
    (contract.exports)(linked).map_err(|error| {
        let other = format!(
            "does not fit version {} of the contract: it was built for another state of it, build it again",
            contract.version
        );
        unfit(Rule::InterfaceVersion, &other, &error)
    })
}

/// Calls `describe`, with everything denied, on a thread of its own.
fn ask(host: &Host, component: &dyn Exports) -> Result<crate::Description, String> {
    let asked = || {
        Domain::of_nothing().enter(None).map_err(|error| error.to_string())?;
        let (events, _nobody) = unbounded_channel();
        let reporter = Reporter::new("describe", events);
        let files = Files::none(Remedies::new("", &Grants::default())).map_err(|error| error.to_string())?;
        let state = State::fixed(files, DESCRIBE_MEMORY, reporter);
        let call = async |store: &mut wasmtime::Store<State>| component.describe(store).await;
        match run::call(&host.engine, state, &Quiet::default(), || tokio::time::sleep(DESCRIBE_TIME), call) {
            (Ok(Some(description)), _) => Ok(description),
            (Ok(None), _) => Err(format!("describe took longer than {} s", DESCRIBE_TIME.as_secs())),
            (Err(error), _) => Err(format!("describe failed: {}", in_one_line(&error))),
        }
    };
    std::thread::scope(|scope| match scope.spawn(asked).join() {
        Ok(answer) => answer,
        Err(panic) => Err(format!("a fault in the host ended describe: {}", crate::thread::said(&*panic))),
    })
}

/// An error of the engine with its causes, fit for a log.
pub(crate) fn in_one_line(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"), 1000)
}
