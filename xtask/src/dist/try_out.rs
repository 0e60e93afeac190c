//! Tries the Debian package in a fresh Debian below `target/`, where nothing else is installed.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{command, folder};
use crate::{say, setup};

/// The script that runs in the fresh Debian.
const SCRIPT: &str = include_str!("try.sh");

/// Creates a fresh Debian from the mirror that apt uses on this machine, and runs [`SCRIPT`] in it.
///
/// debootstrap and the script run in separate mount namespaces, and the script also in its own process namespace. So their mounts and
/// processes end with them, however they end.
pub(super) fn package(package: &Path) -> Result<()> {
    setup::debootstrap()?;
    let begun = Instant::now();
    let release = release(&fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?)?;
    let targets = command("apt-get")
        .args(["indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"])
        .output()?;
    let mirror = mirror(&targets, &release)?;
    let debian = folder().join("debian");
    let place = debian.to_str().context("the project's path is not UTF-8")?;
    // The folder may exist from an earlier run that failed. Nothing can be mounted in it.
    setup::as_root(&["rm", "-rf", "--one-file-system", place])?;
    say(&format!("making a fresh Debian {release} in {place}"));
    setup::as_root(&[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "debootstrap",
        "--variant=minbase",
        &release,
        place,
        &mirror,
    ])?;
    say(&format!("made after {} s; trying the package in it", begun.elapsed().as_secs()));
    let script = folder().join("try.sh");
    fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
    for (file, name) in [(package, "understudy.deb"), (&script, "try.sh")] {
        let file = file.to_str().context("the project's path is not UTF-8")?;
        setup::as_root(&["install", "-m", "0644", file, &format!("{place}/{name}")])?;
    }
    setup::as_root(&[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-euc",
        ENTER,
        "sh",
        place,
    ])?;
    setup::as_root(&["rm", "-rf", "--one-file-system", place])?;
    say(&format!("the package works in a fresh Debian {release}, after {} s", begun.elapsed().as_secs()));
    Ok(())
}

/// The shell command that enters the fresh Debian, whose path is the first argument, and runs the script.
const ENTER: &str = "mount -t proc proc \"$1/proc\" && mount -t tmpfs tmpfs \"$1/dev/shm\" && \
    exec chroot \"$1\" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy=$http_proxy} sh /try.sh";

/// Returns the name of this machine's Debian release, such as `bookworm`.
fn release(os_release: &str) -> Result<String> {
    let name = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.map(|name| name.trim_matches('"')).unwrap_or_default();
    ensure!(!name.is_empty(), "/etc/os-release has no VERSION_CODENAME: the trial needs Debian");
    Ok(name.to_owned())
}

/// Returns the URL from which apt gets the packages of this release. `targets` has a line for each component of each source.
fn mirror(targets: &str, release: &str) -> Result<String> {
    let wanted = format!("{release} main ");
    let found = targets.lines().find_map(|line| line.strip_prefix(&wanted));
    let found = found.with_context(|| format!("apt has no source for the component main of {release}"))?;
    Ok(found.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_source_from_which_apt_gets_the_release() {
        let targets = "bookworm-updates main http://one/debian/\nbookworm contrib http://two/debian/\n\
                       bookworm main http://three/debian/\nbookworm main http://four/other/\n";
        assert_eq!(mirror(targets, "bookworm").unwrap(), "http://three/debian/");
        mirror(targets, "trixie").unwrap_err();
        assert_eq!(release("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        release("ID=other\n").unwrap_err();
    }
}
