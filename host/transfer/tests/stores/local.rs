//! The particularities of a local directory: files that change, links, and the open file.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use transfer::error::{Error, Kind};
use transfer::store::{Object, Range, Store};

use crate::suite::pattern;

fn store(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(name), bytes).unwrap();
    let store = Store::directory(root.path()).unwrap();
    (root, store)
}

/// Reads the first chunk, changes the file, and reads on. Returns the error.
async fn changed(change: impl FnOnce(&Path)) -> Error {
    let (root, store) = store("a.tar", &pattern(3_000_000));
    let (_, mut body) = store.read("a.tar", None).await.unwrap();
    body.chunk().await.unwrap().unwrap();
    change(&root.path().join("a.tar"));
    loop {
        match body.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the change was not seen"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_corrupt() {
    let shorter =
        changed(|path| fs::File::options().write(true).open(path).unwrap().set_len(1_000_000).unwrap()).await;
    let longer =
        changed(|path| fs::File::options().write(true).open(path).unwrap().set_len(4_000_000).unwrap()).await;
    let other = changed(|path| {
        fs::File::options().write(true).open(path).unwrap().write_all_at(b"other", 2_000_000).unwrap();
    })
    .await;
    for error in [shorter, longer, other] {
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert!(error.message.contains("a.tar"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_has_another_etag() {
    let (root, store) = store("a", b"content");
    let before: Object = store.head("a").await.unwrap();
    fs::write(root.path().join("b"), "content").unwrap();
    fs::rename(root.path().join("b"), root.path().join("a")).unwrap();
    assert_ne!(store.head("a").await.unwrap().etag, before.etag);
}

#[tokio::test]
async fn no_link_is_an_object_or_leads_to_one() {
    let (root, store) = store("file", b"content");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret"), "secret").unwrap();
    symlink("file", root.path().join("link")).unwrap();
    symlink(elsewhere.path(), root.path().join("folder")).unwrap();
    symlink(elsewhere.path().join("secret"), root.path().join("secret")).unwrap();
    for key in ["link", "secret", "folder", "folder/secret"] {
        assert_eq!(store.head(key).await.unwrap_err().kind, Kind::NotFound, "{key}");
        assert_eq!(store.read(key, None).await.unwrap_err().kind, Kind::NotFound, "{key}");
    }
    assert_eq!(store.scan("", None).await.unwrap().objects.len(), 1);
}

#[tokio::test]
async fn a_file_whose_name_is_no_key_is_reported_and_not_left_out() {
    // The file is deeper than the longest path allows, so the directories are created step by step.
    let deep = "name=$(printf %0200d 0); for step in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do \
                mkdir $name && cd -P $name || exit 1; done; echo content >file";
    for (script, says) in [
        ("mkdir base && printf content >\"base/a$(printf '\\nb')\"", "`base/a\\nb` has a control character"),
        (deep, "4095"),
    ] {
        let (root, store) = store("aside", b"content");
        let made = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .current_dir(root.path())
            .status()
            .unwrap();
        assert!(made.success(), "{script}");
        let error = store.scan("", None).await.unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{error}");
        assert!(error.message.contains(says) && !error.message.contains('\n'), "{error}");
        // The path does not matter for a listing with another prefix.
        assert_eq!(store.scan("aside", None).await.unwrap().objects.len(), 1);
        let removed = std::process::Command::new("/bin/rm").arg("-rf").arg(root.path()).status().unwrap();
        assert!(removed.success());
    }
}

#[tokio::test]
async fn a_file_as_deep_as_the_system_takes_is_an_object_like_another() {
    let (root, store) = store("aside", b"content");
    let key = format!("{}/file", vec!["d".repeat(250); 12].join("/"));
    fs::create_dir_all(root.path().join(&key).parent().unwrap()).unwrap();
    fs::write(root.path().join(&key), "deep").unwrap();
    assert_eq!(store.head(&key).await.unwrap().size, 4);
    assert_eq!(store.read(&key, None).await.unwrap().1.chunk().await.unwrap().unwrap().as_ref(), b"deep");
    let listed = store.scan("d", None).await.unwrap().objects;
    assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), [key.as_str()]);
    // A key that no file can have is invalid, not missing.
    for no_name in ["n".repeat(256), vec!["d".repeat(250); 17].join("/")] {
        assert_eq!(store.head(&no_name).await.unwrap_err().kind, Kind::Invalid, "{no_name}");
        assert_eq!(store.read(&no_name, None).await.map(drop).unwrap_err().kind, Kind::Invalid, "{no_name}");
    }
}

#[tokio::test]
async fn a_local_body_exposes_its_file_and_range_for_copying_in_the_kernel() {
    let content = pattern(1_000_000);
    let (root, store) = store("a.tar", &content);
    let (_, mut body) = store.read("a.tar", Some(Range { offset: 100, length: 900_000 })).await.unwrap();
    assert_eq!(body.file().unwrap().1, Range { offset: 100, length: 900_000 });
    let first = body.chunk().await.unwrap().unwrap().len() as u64;
    let (file, left) = body.file().unwrap();
    assert_eq!((left.offset, left.length), (100 + first, 900_000 - first));
    let mut bytes = vec![0; 10];
    file.read_exact_at(&mut bytes, left.offset).unwrap();
    let at = usize::try_from(left.offset).unwrap();
    assert!(bytes == content[at..at + 10]);
    assert_eq!(body.unchanged(), Ok(()));
    fs::write(root.path().join("a.tar"), "other").unwrap();
    assert_eq!(body.unchanged().unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn a_local_file_is_read_without_any_runtime() {
    let (_root, store) = store("a", b"content");
    let reading = async {
        let (_, mut body) = store.read("a", None).await.unwrap();
        let bytes = body.chunk().await.unwrap().unwrap();
        assert_eq!(body.chunk().await.unwrap(), None);
        bytes
    };
    // No step of the read waits.
    let mut reading = std::pin::pin!(reading);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(
        matches!(reading.as_mut().poll(&mut context), std::task::Poll::Ready(bytes) if bytes == "content")
    );
}
