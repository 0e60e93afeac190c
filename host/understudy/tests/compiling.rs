//! The built program as the compiler of components: a child with bounds, that ends with whoever wants its answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::BufRead;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use replica::{Bytes, Directories, Method, Request, Rule, TablespaceMap};
use sandbox::{CompileBounds, Compiler, Grants, MethodSettings, Sandbox, SandboxSettings};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_understudy");

/// The component of this name, built by `cargo xtask plugins`.
fn component(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../plugins/target/components/{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugins` first", path.display());
    path
}

fn sandbox(bounds: CompileBounds) -> Sandbox {
    let compiler = Compiler::Child { executable: PROGRAM.into(), bounds };
    Sandbox::new(SandboxSettings::new(compiler)).unwrap()
}

/// A number as WebAssembly writes it (LEB128).
fn number(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn with_size(bytes: Vec<u8>) -> Vec<u8> {
    [number(bytes.len()), bytes].concat()
}

fn section(id: u8, bytes: Vec<u8>) -> Vec<u8> {
    [vec![id], with_size(bytes)].concat()
}

/// A component of 14 MB that takes its compiler many seconds: functions in which every branch joins values that all stay in use.
fn slow() -> (TempDir, PathBuf) {
    const FUNCTIONS: usize = 100;
    const BRANCHES: usize = 10_000;
    const LOCALS: u8 = 100;
    let branch = |at: usize| {
        let local = |step: usize| ((at * step + step) % usize::from(LOCALS)) as u8;
        // block; local.get; br_if 0; local.get; local.get; i32.add; local.set; end
        [0x02, 0x40, 0x20, local(1), 0x0d, 0, 0x20, local(7), 0x20, local(3), 0x6a, 0x21, local(5), 0x0b]
    };
    let mut body = vec![1, LOCALS, 0x7f];
    body.extend((0..BRANCHES).flat_map(branch));
    body.extend((0..LOCALS).flat_map(|local| [0x20, local]));
    body.extend((1..LOCALS).map(|_| 0x6a));
    body.push(0x0b);
    let functions = |each: Vec<u8>| [number(FUNCTIONS), each.repeat(FUNCTIONS)].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 0, 1, 0x7f]),
        section(3, functions(vec![0])),
        section(10, functions(with_size(body))),
    ];
    let component = [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module.concat())];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("slow.wasm");
    fs::write(&path, component.concat()).unwrap();
    (directory, path)
}

/// Looks again and again, for a limited time.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The compilers that a process has started and not waited for.
fn compilers_of(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let children = tasks.flat_map(|task| {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    });
    children.filter(|pid| is_compiler(*pid)).collect()
}

fn is_compiler(pid: u32) -> bool {
    arguments(pid).contains("--understudy-compiler")
}

/// The arguments of a process; nothing where it is gone.
fn arguments(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Waits for the end of a compiler that had many seconds of work before it.
#[track_caller]
fn ends_at_once(compiler: u32) {
    let told = Instant::now();
    until("its end", || (!is_compiler(compiler)).then_some(()));
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn what_a_child_compiles_is_what_this_process_would() {
    let here = Sandbox::new(SandboxSettings::new(Compiler::Here)).unwrap();
    for name in ["tarball", "hostile"] {
        let path = component(name);
        let (in_child, here) = (sandbox(CompileBounds::default()).inspect(&path), here.inspect(&path));
        assert_eq!(in_child.unwrap(), here.unwrap());
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_that_is_none_is_refused_with_what_is_wrong_with_it() {
    let whole = fs::read(component("hostile")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("half.wasm");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let refusal = sandbox(CompileBounds::default()).inspect(&path).unwrap_err();
    assert_eq!(refusal.rule, Rule::Component);
    let says = format!("{}: is truncated: ", path.display());
    assert!(refusal.message.starts_with(&says) && refusal.message.len() > says.len() + 10, "{refusal}");

    // Whole, and with a section that no component has.
    fs::write(&path, [b"\0asm\x0d\0\x01\0".to_vec(), section(0x7f, vec![0])].concat()).unwrap();
    let refusal = sandbox(CompileBounds::default()).inspect(&path).unwrap_err();
    let says = format!("{}: is not a component that this program takes: ", path.display());
    assert!(refusal.message.starts_with(&says) && refusal.message.len() > says.len() + 10, "{refusal}");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn each_bound_of_compiling_is_a_refusal_of_its_own() {
    let (_place, slow) = slow();
    let tarball = component("tarball");
    let bounds = CompileBounds::default();
    for (component, bounds, says) in [
        (
            &slow,
            CompileBounds { memory: Bytes(16 << 20), ..bounds },
            "needs more than 16.0 MiB of memory to be compiled: build a smaller one",
        ),
        (
            &slow,
            CompileBounds { time: Duration::from_millis(50), ..bounds },
            "is not compiled within 0.05 s: try again",
        ),
        (
            &slow,
            CompileBounds { processor: Duration::from_secs(1), ..bounds },
            "needs more than 1 s of processor time to be compiled: build a smaller one",
        ),
        (
            &tarball,
            CompileBounds { image: Bytes(64 << 10), ..bounds },
            "becomes more than 64.0 KiB of machine code: build a smaller one",
        ),
    ] {
        let refusal = sandbox(bounds).inspect(component).unwrap_err();
        assert_eq!(refusal.rule, Rule::Component);
        assert!(refusal.message.starts_with(&format!("{}: {says}", component.display())), "{refusal}");
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_compiler_that_is_missing_or_none_is_told_and_nothing_else_compiles() {
    for (executable, says) in [
        ("/no/such/program", "/no/such/program cannot be started: No such file"),
        ("/bin/false", "its compiler ended with exit status: 1"),
        ("/bin/true", "cannot be loaded"),
    ] {
        let compiler = Compiler::Child { executable: executable.into(), bounds: CompileBounds::default() };
        let sandbox = Sandbox::new(SandboxSettings::new(compiler)).unwrap();
        let refusal = sandbox.inspect(component("hostile")).unwrap_err();
        assert_eq!(refusal.rule, Rule::Component);
        assert!(refusal.message.contains(says), "{refusal}");
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_compiler_has_three_descriptors_no_environment_and_its_bounds() {
    let (_place, slow) = slow();
    // As a careless parent would leave one: open in everything that is executed.
    let inherited = fs::File::open("/dev/null").unwrap();
    let flags = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(inherited.as_fd(), flags).unwrap();
    let mut inspect = Command::new(PROGRAM)
        .arg("inspect")
        .arg(&slow)
        .env_clear()
        .env("PGPASSWORD", "secret")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let compiler = until("a compiler", || compilers_of(inspect.id()).first().copied());
    let of = |name: &str| fs::read_to_string(format!("/proc/{compiler}/{name}")).unwrap();
    // The last of what it does to itself.
    until("its bounds", || {
        let limits = of("limits");
        let line = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        (line("Max open files") == ["3", "3"]).then(|| {
            assert_eq!(line("Max address space"), ["1073741824", "1073741824"]);
            assert_eq!(line("Max cpu time"), ["120", "121"]);
            assert_eq!(line("Max file size"), ["0", "0"]);
            assert_eq!(line("Max core file size"), ["0", "0"]);
        })
    });
    let descriptors = fs::read_dir(format!("/proc/{compiler}/fd")).unwrap();
    let mut descriptors: Vec<_> =
        descriptors.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    descriptors.sort_unstable();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let environment = of("environ");
    assert!(environment.starts_with("RAYON_NUM_THREADS="), "{environment:?}");
    assert_eq!(environment.matches('\0').count(), 1, "{environment:?}");
    assert!(of("status").contains("NoNewPrivs:\t1"), "Landlock is enforced");
    assert!(is_compiler(compiler), "it is at work still");
    inspect.kill().unwrap();
    inspect.wait().unwrap();
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_compiler_dies_with_the_program_that_started_it() {
    let (_place, slow) = slow();
    let mut inspect = Command::new(PROGRAM)
        .arg("inspect")
        .arg(&slow)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let compiler = until("a compiler", || compilers_of(inspect.id()).first().copied());
    inspect.kill().unwrap();
    inspect.wait().unwrap();
    ends_at_once(compiler);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_compiler_ends_when_nobody_waits_for_it_any_more() {
    let (place, slow) = slow();
    let settings = MethodSettings {
        name: "slow".to_owned(),
        component: slow.into(),
        options: Vec::new(),
        grants: Grants::default(),
    };
    let bounds = CompileBounds { image: Bytes((200 << 20) + 7), ..CompileBounds::default() };
    let method = sandbox(bounds).method(settings).unwrap();
    let datadir = place.path().join("data");
    let directories = Directories { datadir, wal: None, tablespaces: TablespaceMap::default() };
    let request = Request {
        context: None,
        keep_data: false,
        directories: Arc::new(directories),
        directory: None,
        bin_dir: PathBuf::new(),
        source: None,
    };
    let preflight = tokio::spawn(async move { method.preflight(&request).await.map(drop) });
    let compiler = loop {
        // Other tests of this process have compilers too, of other bounds.
        let ours = |pid: &u32| arguments(*pid).contains(&bounds.image.0.to_string());
        if let Some(compiler) = compilers_of(std::process::id()).into_iter().find(ours) {
            break compiler;
        }
        assert!(!preflight.is_finished());
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    preflight.abort();
    assert!(preflight.await.unwrap_err().is_cancelled());
    ends_at_once(compiler);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn the_hidden_argument_alone_compiles_nothing() {
    let output = Command::new(PROGRAM)
        .args(["--understudy-compiler-of-a-component", "1", "1", "1", "1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let first = output.stderr.lines().next().unwrap().unwrap();
    assert_eq!(first, "it cannot be confined: the parent is gone");
}

/// A directory that the user of the run owns, and a configuration of one method that is a real component.
struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let place = root.path();
        fs::copy(component("tarball"), place.join("tarball.wasm")).unwrap();
        let mut config = format!(
            "scope = \"batman\"\n[replica]\ndatadir = \"{0}/data\"\nbin_dir = \"{0}/bin\"\nstate_dir = \"{0}/state\"\n\
             methods = [\"tarball\"]\n",
            place.display()
        );
        if rustix::process::geteuid().is_root() {
            config.push_str("user = \"nobody\"\n");
            let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
            std::os::unix::fs::chown(place, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        config.push_str(&format!(
            "[method.tarball]\nplugin = \"{0}/tarball.wasm\"\nno_leader = true\noptions.directory = \"{0}/backups\"\n\
             grants.read = [\"{0}/backups\"]\n",
            place.display()
        ));
        fs::write(place.join("u.toml"), config).unwrap();
        fs::set_permissions(place.join("tarball.wasm"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .unwrap();
        Self { root }
    }

    fn check(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["check", "--log-level", "debug", "--config"]).arg(self.root.path().join("u.toml"));
        command.env_clear().stdin(Stdio::null());
        command
    }

    fn log(&self) -> String {
        let output = self.check().output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn the_first_run_compiles_and_asks_and_the_next_does_neither() {
    let place = Place::new();
    let says = |log: &str| {
        ["compiling sha256:", "asking sha256:", "was compiled before"].map(|words| log.contains(words))
    };
    let first = place.log();
    assert_eq!(says(&first), [true, true, false], "{first}");
    let second = place.log();
    assert_eq!(says(&second), [false, false, true], "{second}");
    fs::remove_dir_all(place.root.path().join("state/components")).unwrap();
    let third = place.log();
    assert_eq!(says(&third), [true, true, false], "{third}");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn runs_that_begin_at_once_all_find_their_component() {
    let place = Place::new();
    let runs: Vec<_> = (0..4)
        .map(|_| place.check().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains("compiling sha256:") || log.contains("was compiled before"), "{log}");
        assert!(!log.contains("WARN"), "{log}");
    }
    assert!(place.log().contains("was compiled before"));
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_of_compiled_components_that_others_may_change_is_told_and_done_without() {
    let place = Place::new();
    place.log();
    let components = place.root.path().join("state/components");
    fs::set_permissions(&components, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let log = place.log();
    assert!(log.contains("are not kept in") && log.contains("others may write to it (mode 0777)"), "{log}");
    assert!(log.contains("compiling sha256:"), "{log}");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn inspect_keeps_what_it_compiled_in_the_users_cache_directory_and_root_keeps_nothing() {
    let place = tempfile::tempdir().unwrap();
    let inspect = || {
        let output = Command::new(PROGRAM)
            .arg("inspect")
            .arg(component("tarball"))
            .env_clear()
            .env("XDG_CACHE_HOME", place.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = inspect();
    assert_eq!(inspect(), first);
    let kept = place.path().join("understudy/components");
    let kept = fs::read_dir(kept).map(|entries| entries.count()).unwrap_or_default();
    assert_eq!(kept, if rustix::process::geteuid().is_root() { 0 } else { 4 });
}
