//! The Landlock ruleset of a native program: it reads and executes what its user may, and writes only where it must.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};

/// The ABI whose rights are asked for; an older kernel enforces those that it knows.
const KNOWN: ABI = ABI::V7;

/// Lets this thread and everything that it starts from now on write only below `writable` and to `/dev/null`, and send
/// signals only within. Gives the ABI that is enforced, 0 where the kernel has none.
///
/// # Errors
/// A directory that cannot be opened, or an ABI below `require`.
pub(super) fn restrict(writable: &[OsString], require: Option<u32>) -> Result<u32, String> {
    let explain = |error: landlock::RulesetError| format!("Landlock cannot be applied: {error}");
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(KNOWN))
        .and_then(|rules| rules.scope(Scope::Signal))
        .and_then(Ruleset::create)
        .map_err(explain)?;
    let null = [(PathBuf::from("/dev/null"), AccessFs::WriteFile | AccessFs::Truncate)];
    for (path, rights) in writable.iter().map(|path| (path.into(), rights())).chain(null) {
        let opened = PathFd::new(&path)
            .map_err(|error| format!("cannot open {} for Landlock: {error}", path.display()))?;
        rules = rules.add_rule(PathBeneath::new(opened, rights)).map_err(explain)?;
    }
    let status = rules.restrict_self().map_err(explain)?;
    let enforced = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    match require {
        Some(required) if enforced < required => Err(format!(
            "require_landlock = {required}, but this kernel offers {}",
            if enforced == 0 { "no Landlock".to_owned() } else { format!("Landlock ABI {enforced}") }
        )),
        _ => Ok(enforced),
    }
}

/// Lets this thread and everything that it starts from now on only look: it writes and makes sockets below `writable` alone, reaches no
/// network, and sends signals only within. On a kernel without Landlock, or with an older one, it is held by less.
///
/// # Errors
/// A directory that cannot be opened, or a ruleset that the kernel refuses.
pub(super) fn restrict_to_looking(writable: Option<&Path>) -> Result<(), String> {
    let explain = |error: landlock::RulesetError| format!("Landlock cannot be applied: {error}");
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(KNOWN))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(KNOWN)))
        .and_then(|rules| rules.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create)
        .map_err(explain)?;
    let null = (Path::new("/dev/null"), AccessFs::WriteFile | AccessFs::Truncate);
    let writable = writable.map(|path| (path, rights() | AccessFs::MakeSock));
    for (path, rights) in writable.into_iter().chain([null]) {
        let opened = PathFd::new(path)
            .map_err(|error| format!("cannot open {} for Landlock: {error}", path.display()))?;
        rules = rules.add_rule(PathBeneath::new(opened, rights)).map_err(explain)?;
    }
    rules.restrict_self().map(drop).map_err(explain)
}

/// Changing a tree, one right by one: root could make device nodes with all of them.
fn rights() -> BitFlags<AccessFs> {
    AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}
