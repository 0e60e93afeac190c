//! Prepares the job of the loop from the configuration: the user, the directories, the source, the methods.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use foundation::logins::{percent_decoded, secrets_in};
use replica::create_replica::BASEBACKUP;
use replica::datadir::{check_places, cluster_of, place_around};
use replica::mounts::{Location, Mounts};
use replica::seal::{EndState, Standby};
use replica::source::{SourceConfig, passwords_in};
use replica::{Job, ListedMethod, Method, Redactor, Refusal, Rule, Source};
use sandbox::{
    Compiler, ComponentSource, MethodSettings, OptionValue, Sandbox, SandboxError, SandboxSettings, Secret,
};
use tokio_util::sync::CancellationToken;

use super::NotStarted;
use super::config_source::ConfigSource;
use super::trusted::Trusted;
use crate::config::{
    ComponentSection, Config, Environment, GrantsSection, Plugin, SourceSettings, check_config_file,
    check_entries, check_passfile,
};
use crate::plugin_path;
use crate::refused::Refused;
use crate::render::output_file::OutputFile;
use crate::root::{Account, drop_root};
use crate::run_directory::RunDirectory;

/// The state directory below the home directory of the user that the program runs as.
const STATE_DIR: &str = ".local/state/understudy";

/// The directory of compiled components, below the state directory.
const COMPONENTS: &str = "components";

/// The file that is removed before the replica starts, unless the configuration names another (loop rule 29).
const TRIGGER_FILE: &str = "promote";

/// The accepted configuration of a run. Root has been dropped.
pub(super) struct AcceptedConfig {
    config: Config,
    state_dir: PathBuf,
    /// The passfile that libpq reads if no setting names one.
    default_passfile: Option<PathBuf>,
    /// The report and the audit, each with its name in messages.
    outputs: Vec<(PathBuf, &'static str)>,
}

/// A run that is ready to begin: the arguments of the loop.
pub(super) struct PreparedRun {
    pub(super) job: Job,
    pub(super) candidates: Vec<ListedMethod>,
    /// Holds the passfile of the run; must live as long as the run.
    pub(super) run_directory: RunDirectory,
}

impl AcceptedConfig {
    /// Reads the configuration, then becomes the user that PostgreSQL runs as. No thread may exist yet.
    pub(super) fn read(source: &ConfigSource<'_>, environment: Environment<'_>) -> Result<Self, NotStarted> {
        let config = source.load(environment)?;
        let account = drop_root(config.user.as_deref())?;
        let state_dir = state_dir(&config, &account)?;
        let default_passfile = account.home.map(|home| home.join(".pgpass"));
        Ok(Self { config, state_dir, default_passfile, outputs: Vec::new() })
    }

    /// Returns whether the run ends when the process that started it ends.
    pub(super) fn ends_with_parent(&self) -> bool {
        self.config.end_with_parent
    }

    /// Returns the warnings on the configuration, which do not keep the run from starting.
    pub(super) fn warnings(&self) -> &[String] {
        &self.config.warnings
    }

    /// Checks that the run's user can write the report or the audit, and that the file lies neither in a directory of the run nor in a
    /// cluster. From then on, a method that could change the file is refused.
    pub(super) fn check_output(&mut self, file: &OutputFile) -> Result<(), NotStarted> {
        let (name, shown) = (file.name(), file.path().display());
        if let Some((what, place)) = place_around(&self.config.directories, &self.state_dir, file.path()) {
            return Err(NotStarted::usage(anyhow::anyhow!(
                "the {name} {shown} would lie in {what}, {}: name a file elsewhere",
                place.display()
            )));
        }
        if let Some(around) = cluster_of(file.path()) {
            let message = format!("the {name} {shown} would lie {around}");
            return Err(NotStarted::refused(Refusal::new(Rule::DataDirectory, message)));
        }
        file.probe().map_err(|error| {
            NotStarted::usage(anyhow::Error::new(error).context(format!("cannot write the {name} {shown}")))
        })?;
        self.outputs.push((file.path().to_owned(), name));
        Ok(())
    }

    /// Connects to the source and loads the methods. `redactor` learns every secret before any text could contain it.
    pub(super) async fn prepare(
        self,
        cancel: &CancellationToken,
        redactor: &Redactor,
    ) -> Result<PreparedRun, NotStarted> {
        let Self { config, state_dir, default_passfile, outputs } = self;
        for secret in &config.proxy_secrets {
            redactor.add(secret).map_err(NotStarted::failed)?;
        }
        // Root is dropped, so this checks what the run's user may read.
        if let Some(source) = &config.source {
            source.conninfo.check_certificates().map_err(NotStarted::usage)?;
        }
        let standby_passfile = match (&config.standby, &config.standby_passfile_at) {
            (Some((conninfo, Some(passfile))), Some(origin)) => Some((conninfo, passfile, origin)),
            _ => None,
        };
        if let Some((_, passfile, origin)) = standby_passfile {
            check_passfile("replica.standby_passfile", passfile, origin).map_err(|problem| vec![problem])?;
            for secret in passwords_in(passfile) {
                redactor.add(&secret).map_err(NotStarted::failed)?;
            }
        }
        if let Some((path, origin)) = &config.config_file {
            check_config_file(path, &config.directories, origin).map_err(|problem| vec![problem])?;
        }
        let settings = config.source.as_ref().map(SourceSettings::resolve).transpose();
        let settings = settings.map_err(|problem| vec![problem])?;
        // No directory is created before the whole configuration and the directories are accepted.
        check_places(&config.directories, &state_dir).map_err(NotStarted::refused)?;
        let run_directory =
            RunDirectory::below(&state_dir).map_err(|error| state_directory_error(&state_dir, error))?;
        let source = match &settings {
            Some(settings) => {
                let mut source =
                    connect(settings, &config.bin_dir, run_directory.path(), cancel, redactor).await?;
                if config.standby.is_some() {
                    source.try_without_password(&config.bin_dir, cancel).await;
                }
                Some(Arc::new(source))
            }
            None => None,
        };
        if let Some((conninfo, passfile, origin)) = standby_passfile
            && source.as_ref().is_some_and(|source| source.asks_password == Some(true))
        {
            check_entries(conninfo, passfile, origin).map_err(|problem| vec![problem])?;
        }
        let guards = Guards {
            secrets: secrets(&config, &state_dir, run_directory.path()),
            trusted: Trusted::of(&config, &state_dir, &outputs, default_passfile.as_deref()),
        };
        let candidates = candidates(&config, &state_dir, &guards, redactor);
        let standby = config
            .standby
            .map(|(conninfo, passfile)| Standby { conninfo: conninfo.without_passwords(), passfile });
        let job = Job {
            scope: config.scope,
            directories: Arc::new(config.directories),
            bin_dir: config.bin_dir,
            state_dir,
            source,
            end: EndState {
                configure_standby: standby,
                restore_command: config.restore_command,
                trigger_file: Some(config.trigger_file.unwrap_or_else(|| TRIGGER_FILE.to_owned())),
                snapshot: config.snapshot,
                refuse_commands: config.refuse_commands,
                config_file: config.config_file.map(|(path, _)| path),
                default_passfile,
            },
            force: config.force,
            only_empty: config.only_empty,
            timeout: config.timeout,
            redactor: redactor.clone(),
        };
        Ok(PreparedRun { job, candidates, run_directory })
    }
}

fn state_directory_error(state_dir: &Path, error: io::Error) -> NotStarted {
    let message = format!("cannot use the state directory {}", state_dir.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => NotStarted::refused(
            Refusal::new(Rule::StateDirectory, format!("{message}: {error}"))
                .remedy("[replica] state_dir = \"<directory>\""),
        ),
        _ => NotStarted::failed(anyhow::Error::new(error).context(message)),
    }
}

fn state_dir(config: &Config, account: &Account) -> Result<PathBuf, NotStarted> {
    let home = || account.home.as_deref().filter(|home| home.is_absolute());
    let default = || home().map(|home| home.join(STATE_DIR));
    config.state_dir.clone().or_else(default).ok_or_else(|| {
        NotStarted::usage(anyhow::anyhow!(
            "the user `{}` has no home directory to keep state files in: set `state_dir` below [replica]",
            account.name
        ))
    })
}

async fn connect(
    settings: &SourceConfig,
    bin_dir: &Path,
    run_directory: &Path,
    cancel: &CancellationToken,
    redactor: &Redactor,
) -> Result<Source, NotStarted> {
    let in_conninfo = settings.conninfo.secrets().map(|(_, secret)| secret);
    for secret in settings.password.iter().cloned().chain(in_conninfo) {
        redactor.add(&secret).map_err(NotStarted::failed)?;
    }
    let named = settings.conninfo.get("passfile").map(Path::new);
    for passfile in settings.passfile.as_deref().into_iter().chain(named) {
        for secret in passwords_in(passfile) {
            redactor.add(&secret).map_err(NotStarted::failed)?;
        }
    }
    Source::connect(settings, bin_dir, run_directory, cancel)
        .await
        .with_context(|| format!("cannot write the passfile of this run in {}", run_directory.display()))
        .map_err(NotStarted::failed)
}

/// Returns the paths that hold secrets of this run: the run's own directory, which holds its passfile; the directory of compiled
/// components, which holds the key that authenticates them; the operator's files of secrets; and `/proc`.
fn secrets(config: &Config, state_dir: &Path, run_directory: &Path) -> Vec<PathBuf> {
    let mut secrets = vec![run_directory.to_owned(), state_dir.join(COMPONENTS), PROC.into()];
    if let Some(source) = &config.source {
        secrets.extend(source.secret_files());
    }
    // The files that `[source]` names stay secret even if `--connstring`, which Patroni always passes, replaces that section.
    secrets.extend(config.files_of_source.iter().cloned());
    secrets.extend(config.file.iter().filter(|_| config.holds_secret).cloned());
    secrets.extend(config.standby.as_ref().and_then(|(_, passfile)| passfile.clone()));
    let grants = || config.components.values().map(|section| &section.grants);
    secrets.extend(grants().flat_map(|grants| grants.secret_files().map(Path::to_owned)));
    secrets
}

/// The directory through which a process can read its own memory and environment.
const PROC: &str = "/proc";

/// Refuses grants that would let a method read a secret: no directory or store that is granted may contain one at any depth.
fn refuse_to_grant(secrets: &[PathBuf], grants: &GrantsSection) -> Result<(), Refusal> {
    let mounts = Mounts::of_this_process();
    let proc = Location::of(Path::new(PROC), &mounts);
    let secret_in = |granted: &Path| {
        let place = Location::of(granted, &mounts);
        secrets.iter().find(|secret| {
            let own = Location::of(secret, &mounts);
            secret.starts_with(granted) || own.lies_in(&place) || (own.lies_in(&proc) && place.lies_in(&proc))
        })
    };
    for granted in grants.open.reads_of_programs() {
        if let Some(secret) = secret_in(&granted) {
            let message = format!(
                "`programs` lets every program read {}, which holds a secret of this run, in {}: keep the secret elsewhere",
                granted.display(),
                secret.display()
            );
            return Err(Refusal::new(Rule::Grant, message).by_policy());
        }
    }
    for (granted, how) in grants.open.reads() {
        if let Some(secret) = secret_in(&granted) {
            let message = format!(
                "{} is granted by `{how}` and holds a secret of this run, in {}: grant a narrower directory, or keep the secret \
                 elsewhere (`passfile`, `state_dir`, the file of a key or of credentials)",
                granted.display(),
                secret.display()
            );
            return Err(Refusal::new(Rule::Grant, message).by_policy());
        }
    }
    Ok(())
}

/// The places that no grant may reach.
struct Guards {
    /// Files and directories that hold secrets, and must not be read.
    secrets: Vec<PathBuf>,
    /// Files and directories that must not be written.
    trusted: Trusted,
}

/// Returns the methods in the order in which they are tried. The sandbox is set up only if one of them is a component.
fn candidates(config: &Config, state_dir: &Path, guards: &Guards, redactor: &Redactor) -> Vec<ListedMethod> {
    let mut sandbox: Option<Result<Sandbox, Refusal>> = None;
    let candidate = |name: &String| {
        if name == BASEBACKUP {
            return ListedMethod {
                method: Arc::new(config.basebackup.method(config.require_landlock)),
                keep_data: false,
                no_leader: false,
                no_params: false,
                timeout: config.basebackup.timeout,
                plan_timeout: None,
                stall_timeout: config.basebackup.stall_timeout,
            };
        }
        let section = config.components.get(name).cloned().unwrap_or_default();
        let (keep_data, no_leader, no_params) = (section.keep_data, section.no_leader, section.no_params);
        let (timeout, plan_timeout, stall_timeout) =
            (section.timeout, section.plan_timeout(), section.stall_timeout());
        let sandbox = sandbox.get_or_insert_with(|| new_sandbox(config, state_dir, redactor));
        let method: Arc<dyn Method> = match component_method(config, sandbox, name, section, guards, redactor)
        {
            Ok(method) => method,
            Err(why) => Arc::new(Refused::new(name, why)),
        };
        ListedMethod { method, keep_data, no_leader, no_params, timeout, plan_timeout, stall_timeout }
    };
    config.methods.iter().map(candidate).collect()
}

fn new_sandbox(config: &Config, state_dir: &Path, redactor: &Redactor) -> Result<Sandbox, Refusal> {
    let settings = SandboxSettings {
        require_landlock: config.require_landlock,
        redactor: redactor.clone(),
        cache: Some(state_dir.join(COMPONENTS)),
        ..SandboxSettings::new(Compiler::this_executable())
    };
    Sandbox::new(settings).map_err(|error| match error {
        SandboxError::Landlock { .. } => Refusal::new(Rule::RequireLandlock, error.to_string()).by_policy(),
        SandboxError::Engine(_) => Refusal::new(Rule::Engine, error.to_string()),
    })
}

/// Finds the plugin of a method and gives it to the sandbox. The method's preflight reports a missing file.
fn component_method(
    config: &Config,
    sandbox: &Result<Sandbox, Refusal>,
    name: &str,
    section: ComponentSection,
    guards: &Guards,
    redactor: &Redactor,
) -> Result<Arc<dyn Method>, Refusal> {
    refuse_to_grant(&guards.secrets, &section.grants)?;
    guards.trusted.refuse_to_write(&config.directories, &section.grants.open)?;
    let cpu = section.cpu();
    let find = |plugin: &str| {
        plugin_path::find(&config.plugin_path, plugin).ok_or_else(|| {
            let looked = plugin_path::shown(&config.plugin_path);
            Refusal::new(Rule::Plugin, format!("there is no {plugin}.wasm in {looked}"))
                .remedy(format!("[method.{name}] plugin = \"/path/to/{plugin}.wasm\""))
        })
    };
    let component = match section.plugin {
        Some(Plugin::File(file)) => ComponentSource::File(file),
        Some(Plugin::Name(plugin)) => find(&plugin)?,
        None => find(name)?,
    };
    let sandbox = sandbox.as_ref().map_err(Clone::clone)?;
    // A method may repeat an option in its own error message.
    for (_, value) in &section.options {
        let texts = match value {
            OptionValue::Text(text) | OptionValue::Untyped(text) => std::slice::from_ref(text),
            OptionValue::Texts(texts) => texts.as_slice(),
            OptionValue::Integer(_) | OptionValue::Number(_) | OptionValue::Flag(_) => &[],
        };
        for secret in texts.iter().flat_map(|text| secrets_in(text)) {
            // A method may report the password in its written or in its decoded form.
            for secret in [secret.as_bytes().to_vec(), percent_decoded(secret.as_bytes())] {
                let added = redactor.add(&Secret::new(secret));
                added.map_err(|error| Refusal::new(Rule::Option, error.to_string()))?;
            }
        }
    }
    for secret in &section.grants.ambient {
        redactor.add(secret).map_err(|error| Refusal::new(Rule::Grant, error.to_string()))?;
    }
    // Root is dropped, so the run's user reads the credentials and keys.
    let mut grants =
        section.grants.resolve().map_err(|problem| Refusal::new(Rule::Grant, problem.to_string()))?;
    section.grants.renew_credentials(&mut grants, redactor);
    let settings = MethodSettings {
        name: name.to_owned(),
        component,
        cpu,
        options: section.options,
        written: section.written,
        grants,
    };
    let method = sandbox.method(settings).map_err(|error| Refusal::new(Rule::Grant, error.to_string()))?;
    Ok(Arc::new(method))
}

#[cfg(test)]
mod tests {
    use sandbox::{Grants, StoreConfig};

    use super::*;

    #[test]
    fn no_method_is_granted_the_key_of_compiled_components() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        // The state directory does not exist before the first run.
        let state_dir = directory.path().join("state");
        let text = "scope = \"s\"\n[replica]\ndatadir = \"/data\"\nbin_dir = \"/bin\"\n";
        let file = directory.path().join("understudy.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file, &crate::config::Overrides::default(), &|_| None).unwrap();
        let secrets = secrets(&config, &state_dir, &state_dir.join("run-1"));
        let read = |path: &Path| GrantsSection {
            open: Grants { read: vec![path.to_owned()], ..Grants::default() },
            ..GrantsSection::default()
        };
        for covering in [directory.path(), &link, &state_dir, &state_dir.join(COMPONENTS), Path::new("/proc")]
        {
            let refusal = refuse_to_grant(&secrets, &read(covering)).unwrap_err();
            assert!(refusal.message.contains("holds a secret"), "{refusal}");
        }
        refuse_to_grant(&secrets, &read(&directory.path().join("backups"))).unwrap();
    }

    #[test]
    fn no_program_is_granted_beside_a_secret_that_every_program_may_read() {
        let grants = || GrantsSection {
            open: Grants {
                programs: [("tool".to_owned(), sandbox::ProgramGrant::new(PathBuf::from("/bin/true")))]
                    .into(),
                ..Grants::default()
            },
            ..GrantsSection::default()
        };
        let refusal = refuse_to_grant(&["/usr/share/acme/key".into()], &grants()).unwrap_err();
        assert!(refusal.message.contains("`programs` lets every program read /usr/share"), "{refusal}");
        refuse_to_grant(&["/etc/acme/key".into()], &grants()).unwrap();
        refuse_to_grant(&["/usr/share/acme/key".into()], &GrantsSection::default()).unwrap();
    }

    #[test]
    fn no_method_is_granted_a_directory_that_holds_a_password() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("state/run-1");
        std::fs::create_dir_all(&deep).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("state"), &link).unwrap();
        let secrets = [deep.clone(), PROC.into()];
        let read = |path: PathBuf| GrantsSection {
            open: Grants { read: vec![path], ..Grants::default() },
            ..GrantsSection::default()
        };
        let store = |path: PathBuf| GrantsSection {
            open: Grants {
                stores: [("repo".to_owned(), StoreConfig::new(format!("file://{}", path.display())))].into(),
                ..Grants::default()
            },
            ..GrantsSection::default()
        };
        for covering in [PathBuf::from("/"), directory.path().to_owned(), deep, link] {
            for grants in [read(covering.clone()), store(covering)] {
                let refusal = refuse_to_grant(&secrets, &grants).unwrap_err();
                assert_eq!((refusal.rule, refusal.policy), (Rule::Grant, true));
                assert!(refusal.message.contains("holds a secret"), "{refusal}");
            }
        }
        for memory in ["/proc", "/proc/self", "/proc/thread-self", "/proc/1"] {
            refuse_to_grant(&secrets, &read(memory.into())).unwrap_err();
        }
        refuse_to_grant(&secrets, &read(directory.path().join("backups"))).unwrap();
        refuse_to_grant(&secrets, &store(directory.path().join("sta"))).unwrap();
        refuse_to_grant(&[], &read("/".into())).unwrap();
    }
}
