//! A behaviour that restores a copy and requests settings.

use std::fs;
use std::path::Path;

use understudy::{AtPath, Datadir, Failure, Request, log};

/// Copies the directory `path` unchanged, then requests each of `settings`. Logs the host's answers, and succeeds.
pub(crate) fn restore_and_ask(request: &Request) -> Result<(), Failure> {
    let datadir = Datadir::of(request)?;
    let from: String = request.require("path")?;
    copy(&datadir, Path::new(&from), "")?;
    for setting in request.get::<Vec<String>>("settings")?.unwrap_or_default() {
        let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
        let answer = match understudy::recovery_setting(name, value) {
            Ok(()) => "taken".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        log::info!("{name}: {answer}");
    }
    Ok(())
}

fn copy(datadir: &Datadir, folder: &Path, prefix: &str) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = format!("{prefix}{}", name.to_string_lossy());
        if entry.file_type().at(&path)?.is_dir() {
            datadir.create_dir(&name)?;
            copy(datadir, &path, &format!("{name}/"))?;
        } else {
            datadir.write(&name, &mut fs::File::open(&path).at(&path)?)?;
        }
    }
    Ok(())
}
