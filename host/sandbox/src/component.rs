//! Loads a component from its file: checks the file, gets the compiled component and its description from the cache or compiles the
//! component and calls `describe`, and links the component.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use foundation::way::{Changeable, ChangeableBy, changeable_by_others};
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
use crate::image::{COMPONENT_BYTES, CachedComponent, Images};
use crate::reporter::Reporter;
use crate::run;
use crate::state::State;
use crate::text::{hex, printable};
use crate::thread::WritesEnded;
use crate::{ComponentSource, Grants, Inspection, describe};
use foundation::landlock::Domain;

/// How long `describe` may take, and how many bytes of memory it may hold.
const DESCRIBE_TIME: Duration = Duration::from_secs(1);
const DESCRIBE_MEMORY: u64 = 64 << 20;

/// A component's bytes and their digest. Only bytes with this digest are compiled.
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

/// Refuses a component file that users other than root and this one may change, because the component writes the server's data directory.
/// Accepts a missing file, which [`Bytecode::read`] refuses. A component that is included in the program can be replaced only with the
/// program.
///
/// # Errors
/// A [`Refusal`] of the rule `component`.
pub(crate) fn refuse_if_others_may_change(source: &ComponentSource) -> Result<(), Refusal> {
    let ComponentSource::File(path) = source else { return Ok(()) };
    let changeable = match changeable_by_others(path, None) {
        Ok(changeable) => changeable,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refuse(source, error)),
    };
    let Some(Changeable { path, by, .. }) = changeable.first() else { return Ok(()) };
    let place = path.display();
    let what = match by {
        ChangeableBy::Mode(mode) => {
            format!("may be changed by others: {place} has mode {mode:04o}; `chmod go-w` it")
        }
        ChangeableBy::Owner(owner) => format!(
            "may be changed by user {owner}, to whom {place} belongs: `chown` it to root or to the user that runs it"
        ),
    };
    Err(refuse(source, what).by_policy())
}

impl Bytecode {
    /// Reads the component to its end and checks its header.
    ///
    /// # Errors
    /// A [`Refusal`] of the rule `component`.
    pub(crate) fn read(source: &ComponentSource) -> Result<Self, Refusal> {
        let unreadable = |error: io::Error| refuse(source, format!("cannot be read: {error}"));
        let held = match source {
            ComponentSource::Included { bytes, .. } => Held::Included(bytes),
            ComponentSource::File(path) => {
                // Without NONBLOCK, opening a FIFO would block this thread.
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
            begin.extend_from_slice(&part[..part.len().min(HEADER_BYTES - begin.len())]);
            digest.update(part);
        });
        let size = size.map_err(unreadable)?;
        if size > COMPONENT_BYTES {
            return Err(refuse(source, format!("is larger than {} MiB", COMPONENT_BYTES >> 20)));
        }
        check_header(&begin).map_err(|what| refuse(source, what))?;
        Ok(Self { held, size, digest: digest.finalize().into() })
    }

    /// Returns the bytes. Reads a file again, because `read` does not keep the bytes: only a compiler needs them.
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

    /// Returns the digest of the bytes.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// How many bytes [`check_header`] looks at.
const HEADER_BYTES: usize = 8;

impl Held {
    /// Passes the bytes to `part`, piece by piece, and returns how many there were. Stops one byte after the size limit for components.
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

/// Distinguishes a component from files that are often mistaken for one. Compares the first eight bytes (the binary format in the
/// WebAssembly specification, and `Binary.md` of the component model).
fn check_header(bytes: &[u8]) -> Result<(), &'static str> {
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
    /// Loads a component from the cache, or compiles it and calls `describe`. Then links it.
    ///
    /// Call this from a thread without Landlock restrictions, because it may start the compiler. Blocks; `cancel` ends a compilation.
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
        if let Some(CachedComponent { image, inspection }) = images.find(&code.digest) {
            let component = image.component(&host.engine).map_err(|error| in_one_line(&error));
            match component.and_then(|component| Ok((component, recheck(inspection)?))) {
                Ok((component, (inspection, contract))) => {
                    tracing::debug!("{source}: sha256:{digest} was compiled before");
                    let exports = link(host, source, &component, contract, &inspection.imports)?;
                    return Ok(Self { inspection, exports });
                }
                Err(why) => tracing::warn!("{source}: ignoring the compiled image in the cache: {why}"),
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
        tracing::debug!("{source}: calling describe of sha256:{digest}");
        let described = call_describe(host, &*exports).map_err(refused)?;
        let description = describe::check(described)
            .map_err(|why| refused(format!("its description is invalid: {why}")))?;
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

/// Checks an inspection from the cache again, because a version of this program with other rules may have written it.
///
/// # Errors
/// Says why the inspection is not valid.
fn recheck(inspection: Inspection) -> Result<(Inspection, &'static Contract), String> {
    let contract = Contract::of(&inspection.contract).ok_or_else(|| {
        format!("it is for version {} of the contract", printable(&inspection.contract, 32))
    })?;
    let description = describe::check(inspection.description)?;
    Ok((Inspection { description, ..inspection }, contract))
}

/// The message for a component that imports something which the linker does not have.
const WITHOUT: &str = "has an import that this program does not have, or was built for another state of the contract, as 0.1.0 \
                       changes until it is released: build it again with this program's wit/";

/// Links the imports of a component and finds the functions of the contract that it exports.
fn link(
    host: &Host,
    source: &ComponentSource,
    component: &component::Component,
    contract: &Contract,
    imports: &[String],
) -> Result<Box<dyn Exports>, Refusal> {
    let refusal = |rule, what: &str, error: &wasmtime::Error| {
        Refusal::new(rule, format!("{source}: {what}: {}", in_one_line(error)))
    };
    let linked = host.linker.instantiate_pre(component).map_err(|error| {
        let unknown = contracts::unknown(imports).map(|unknown| format!("; not known: {unknown}"));
        refusal(Rule::Import, &format!("{WITHOUT}{}", unknown.unwrap_or_default()), &error)
    })?;
    (contract.exports)(linked).map_err(|error| {
        let other = format!(
            "does not fit version {} of the contract: it was built for another state of the contract, build it again",
            contract.version
        );
        refusal(Rule::InterfaceVersion, &other, &error)
    })
}

/// Calls `describe` with everything denied, on a new thread.
fn call_describe(host: &Host, component: &dyn Exports) -> Result<crate::Description, String> {
    let asked = || {
        Domain::deny_all().enter(None).map_err(|error| error.to_string())?;
        let (events, _nobody) = unbounded_channel();
        let reporter = Reporter::new("describe", events);
        let files = Files::none(Remedies::new("", &Grants::default())).map_err(|error| error.to_string())?;
        let state = State::fixed(files, DESCRIBE_MEMORY, reporter);
        let call = async |store: &mut wasmtime::Store<State>| component.describe(store).await;
        match run::call(
            &host.engine,
            state,
            &WritesEnded::default(),
            || tokio::time::sleep(DESCRIBE_TIME),
            call,
        ) {
            (Ok(Some(description)), _) => Ok(description),
            (Ok(None), _) => Err(format!("describe took longer than {} s", DESCRIBE_TIME.as_secs())),
            (Err(error), _) => Err(format!("describe failed: {}", in_one_line(&error))),
        }
    };
    std::thread::scope(|scope| match scope.spawn(asked).join() {
        Ok(answer) => answer,
        Err(panic) => {
            Err(format!("a fault in the host ended describe: {}", crate::thread::panic_message(&*panic)))
        }
    })
}

/// Returns an error of the engine and its causes as one printable line.
pub(crate) fn in_one_line(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"), 1000)
}
