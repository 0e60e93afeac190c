//! Copying what the layout found.

use std::collections::BTreeSet;
use std::fs::File;

use understudy::{AtPath, Datadir, Failure, Plan, log, progress};

use crate::layout::{Layout, read_control_file};
use crate::walk::{Entry, Tell, walk};

/// Copies everything, and at the very end the control file.
pub(crate) fn all(layout: &Layout, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let planned: BTreeSet<_> = plan.tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    if layout.describe() != plan.backup || !planned.into_iter().eq(layout.oids()) {
        return Err(changed(layout));
    }
    progress::expect(plan.bytes, plan.files);
    progress::phase("copying");
    // The plan told what is passed over.
    walk(layout, Tell::No, &mut |entry| match entry {
        Entry::Directory(name) => datadir.create_dir(&name),
        Entry::File { name, path, .. } => {
            let mut from = File::open(&path).at(&path)?;
            datadir.write(&name, &mut from).map(drop).map_err(|failure| match failure {
                Failure::Failed(why) => Failure::failed(format!("copying {}: {why}", path.display())),
                other => other,
            })
        }
    })?;
    if read_control_file(&layout.directory)?.as_ref() != Some(&layout.control_file) {
        return Err(changed(layout));
    }
    datadir.write("global/pg_control", &mut &layout.control_file[..])?;
    log::info!("copied {}", plan.backup);
    Ok(())
}

fn changed(layout: &Layout) -> Failure {
    let directory = layout.directory.display();
    Failure::failed(format!(
        "{directory} changed since the plan was made: a server runs in it, or it was replaced"
    ))
}
