//! Goes through the objects of a folder.

use understudy::store::{Bucket, Object};
use understudy::{Error, Failure, cancelled};

/// Why the objects of a folder were not all listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The store, such as a web server, cannot list its objects. Contains what the store says.
    Unlistable(String),
    /// There are more objects than this number.
    TooMany(usize),
}

/// Calls `each` with every object in `folder` of `bucket` and below it, and with its path below the folder. Does not call it if the folder
/// does not exist. An empty `folder` is the whole bucket. Lists at most `most` objects. This number and the returned number include objects
/// outside the folder whose keys begin with the name of the folder.
///
/// # Errors
/// The failure that `refused` makes; the error of the store; the errors of `each`.
pub fn each_in<E: From<Failure>>(
    bucket: &Bucket,
    folder: &str,
    most: usize,
    refused: &dyn Fn(Refused) -> E,
    each: &mut dyn FnMut(String, Object) -> Result<(), E>,
) -> Result<usize, E> {
    let mut count = 0;
    for object in bucket.objects(folder) {
        cancelled()?;
        let object = match object {
            Err(Error::NotFound(_)) if count == 0 => break,
            Err(Error::Invalid(what)) if count == 0 => return Err(refused(Refused::Unlistable(what))),
            object => object.map_err(Failure::from)?,
        };
        if count == most {
            return Err(refused(Refused::TooMany(most)));
        }
        count += 1;
        let path = match folder {
            "" => Some(object.key.as_str()),
            _ => object.key.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')),
        };
        if let Some(path) = path.map(str::to_owned) {
            each(path, object)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use understudy::native::Host;

    use super::*;

    #[test]
    fn the_objects_of_a_folder_are_gone_through_up_to_a_number() {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["a/b", "a/c/d", "ab/e", "f"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let list = |folder: &str, most| {
            let listed = Host::new(data.path()).run(|| {
                let bucket = Bucket::open(dir.path().to_str().unwrap())?;
                let mut paths = Vec::new();
                let refused = |why| Failure::failed(format!("{why:?}"));
                let count = each_in(&bucket, folder, most, &refused, &mut |path, object| {
                    assert!(object.key.ends_with(&path));
                    paths.push(path);
                    Ok(())
                })?;
                Ok::<_, Failure>((count, paths))
            });
            listed.0.map_err(|failure| failure.to_string())
        };
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        // The object ab/e is outside the folder, and counts.
        assert_eq!(list("a", 3), Ok((3, paths(&["b", "c/d"]))));
        assert_eq!(list("a", 2), Err("TooMany(2)".to_owned()));
        assert_eq!(list("", 4), Ok((4, paths(&["a/b", "a/c/d", "ab/e", "f"]))));
        assert_eq!(list("x", 0), Ok((0, Vec::new())));
    }
}
