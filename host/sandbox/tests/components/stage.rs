//! A stage for tests: a data directory, a component and everything that it reported.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use replica::event::HostCall;
use replica::usage::ComponentUsage;
use replica::{
    Context, Denial, Directories, Event, EventSink, Failure, Level, Method, Outcome, Plan, Redactor, Refusal,
    Request, Run, SealRequests, TablespaceMap,
};
use sandbox::{
    Compiler, ComponentMethod, Grants, MethodSettings, OptionValue, Resolve, Sandbox, SandboxSettings,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Returns the path of the component with this name, built by `cargo xtask plugins`.
pub(crate) fn component(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../plugins/target/components/{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugins` first", path.display());
    path
}

/// One sandbox for all tests: each component is compiled once.
pub(crate) fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let settings = || SandboxSettings { redactor: redactor(), ..SandboxSettings::new(Compiler::Here) };
    SANDBOX.get_or_init(|| Sandbox::new(settings()).unwrap()).clone()
}

/// The redactor, which removes secrets from the operator's log.
pub(crate) fn redactor() -> Redactor {
    static REDACTOR: OnceLock<Redactor> = OnceLock::new();
    REDACTOR.get_or_init(Redactor::new).clone()
}

/// A data directory and settings to run a component with.
pub(crate) struct Stage {
    root: TempDir,
    pub(crate) settings: MethodSettings,
    pub(crate) directories: Directories,
    pub(crate) cancel: CancellationToken,
    sandbox: Sandbox,
    reported: Arc<Mutex<Vec<Event>>>,
    used: Mutex<Option<ComponentUsage>>,
    takes_calls: bool,
}

/// Keeps every event.
struct Reported {
    events: Arc<Mutex<Vec<Event>>>,
    takes_calls: bool,
}

impl EventSink for Reported {
    fn emit(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn takes_calls(&self) -> bool {
        self.takes_calls
    }
}

impl Stage {
    /// Makes a stage for the component `hostile`, with this option `behave`, which takes effect in `create`.
    pub(crate) fn hostile(behave: &str) -> Self {
        Self::of(component("hostile")).option("behave", text(behave))
    }

    /// Makes a stage for the component in this file.
    pub(crate) fn of(component: PathBuf) -> Self {
        let root = tempfile::tempdir().unwrap();
        let datadir = root.path().join("data");
        std::fs::create_dir(&datadir).unwrap();
        let grants = Grants::default();
        Self {
            root,
            settings: MethodSettings {
                name: "hostile".to_owned(),
                component: component.into(),
                options: Vec::new(),
                written: sandbox::Written::default(),
                cpu: None,
                grants,
            },
            directories: Directories { datadir, wal: None, tablespaces: TablespaceMap::default() },
            cancel: CancellationToken::new(),
            sandbox: sandbox(),
            reported: Arc::default(),
            used: Mutex::default(),
            takes_calls: false,
        }
    }

    pub(crate) fn option(mut self, name: &str, value: OptionValue) -> Self {
        self.settings.options.push((name.to_owned(), value));
        self
    }

    /// Resolves the names of servers with this resolver.
    pub(crate) fn resolving(self, resolver: Arc<dyn Resolve>) -> Self {
        let settings =
            SandboxSettings { redactor: redactor(), resolver, ..SandboxSettings::new(Compiler::Here) };
        Self { sandbox: Sandbox::new(settings).unwrap(), ..self }
    }

    /// Lets the option `behave` take effect in `plan` instead of `create`.
    pub(crate) fn in_plan(self) -> Self {
        self.option("when", text("plan"))
    }

    /// Sets the option `path`.
    pub(crate) fn path(self, path: &Path) -> Self {
        let path = text(path.to_str().unwrap());
        self.option("path", path)
    }

    pub(crate) fn grant(mut self, grant: impl FnOnce(&mut Grants)) -> Self {
        grant(&mut self.settings.grants);
        self
    }

    /// Makes a directory in the same folder as the data directory.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn datadir(&self) -> &Path {
        &self.directories.datadir
    }

    pub(crate) fn method(&self) -> ComponentMethod {
        self.sandbox.method(self.settings.clone()).unwrap()
    }

    pub(crate) fn request(&self) -> Request {
        Request {
            context: Some(Context {
                scope: "batman".to_owned(),
                role: "replica".to_owned(),
                datadir: self.directories.datadir.to_str().unwrap().to_owned(),
                connstring: String::new(),
            }),
            keep_data: false,
            directories: Arc::new(self.directories.clone()),
            directory: None,
            bin_dir: PathBuf::new(),
            source: None,
        }
    }

    pub(crate) fn run(&self) -> Run {
        let sink = Reported { events: Arc::clone(&self.reported), takes_calls: self.takes_calls };
        Run::new(&self.settings.name, self.cancel.clone(), Arc::new(sink))
    }

    pub(crate) async fn preflight(&self) -> Result<(), Refusal> {
        self.method().preflight(&self.request()).await
    }

    pub(crate) async fn plan(&self) -> Result<Plan, Failure> {
        self.method().plan(&self.request(), &self.run()).await
    }

    /// Plans, then creates.
    pub(crate) async fn create(&self) -> Result<SealRequests, Failure> {
        let (method, request, run) = (self.method(), self.request(), self.run());
        let ended = async {
            let plan = method.plan(&request, &run).await?;
            method.create(&request, &plan, &run).await
        };
        let ended = ended.await;
        *self.used.lock().unwrap() = run.usage().get();
        ended
    }

    /// Returns the usage of the last creation.
    pub(crate) fn used(&self) -> ComponentUsage {
        self.used.lock().unwrap().clone().unwrap()
    }

    /// Records the calls of the component.
    pub(crate) fn audited(self) -> Self {
        Self { takes_calls: true, ..self }
    }

    /// Returns the records of calls.
    pub(crate) fn calls(&self) -> Vec<HostCall> {
        let call = |event| match event {
            Event::Called { call, .. } => Some(call),
            _ => None,
        };
        self.events().into_iter().filter_map(call).collect()
    }

    /// Checks that the creation fails with this outcome. Returns the message.
    pub(crate) async fn fails(&self, outcome: Outcome) -> String {
        let failure = self.create().await.unwrap_err();
        assert_eq!(failure.outcome, outcome, "{}", failure.chain());
        assert!(!failure.message.contains("ESCAPED"), "{}", failure.message);
        failure.chain()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.reported.lock().unwrap().clone()
    }

    pub(crate) fn denials(&self) -> Vec<Denial> {
        let denial = |event| match event {
            Event::Denied { denial, .. } => Some(denial),
            _ => None,
        };
        self.events().into_iter().filter_map(denial).collect()
    }

    /// Returns the lines of the log: origin, level and message.
    pub(crate) fn lines(&self) -> Vec<(String, Level, String)> {
        let line = |event| match event {
            Event::Log { origin, level, message, .. } => Some((origin, level, message)),
            _ => None,
        };
        self.events().into_iter().filter_map(line).collect()
    }

    /// Waits until a line of the log contains `what`.
    pub(crate) async fn says(&self, what: &str) {
        let started = Instant::now();
        while !self.lines().iter().any(|(_, _, message)| message.contains(what)) {
            assert!(started.elapsed() < Duration::from_secs(20), "no line of the log says {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) fn text(text: &str) -> OptionValue {
    OptionValue::Text(text.to_owned())
}
