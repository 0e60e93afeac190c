//! Behaviours that try to get keys and the credentials of a store through every function that returns text. They write all text that they
//! got to the data directory, in a form that no redactor recognizes, and also pass it to every function that takes text.

use std::fmt::{Debug, Write as _};
use std::fs;
use std::io::Read;

use understudy::raw::understudy::method::digests::{Algorithm, Hasher};
use understudy::raw::understudy::method::keys::Key;
use understudy::raw::understudy::method::store::{Bucket, CipherFormat, Codec, Pipeline, Range};
use understudy::raw::understudy::method::transfer::{Fetch, Job, Unless, Unpack};
use understudy::raw::understudy::method::types::Error;
use understudy::raw::wasi::io::streams::StreamError;
use understudy::{AtPath, Failure, Request, log, progress};

use crate::refused;

/// The file in the data directory with all text that the component got.
const KEPT: &str = "seen";

const CODECS: [Codec; 8] = [
    Codec::Gzip,
    Codec::Zlib,
    Codec::Lz4,
    Codec::Zstd,
    Codec::Bzip2,
    Codec::Xz,
    Codec::Snappy,
    Codec::Brotli,
];

const FORMATS: [CipherFormat; 3] =
    [CipherFormat::OpensslSha1, CipherFormat::OpensslSha256, CipherFormat::SaltOnlySha1];

/// All text that the component got.
#[derive(Default)]
struct Seen(Vec<u8>);

impl Seen {
    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        self.0.extend_from_slice(format!("\n{what}: ").as_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn answer<T: Debug>(&mut self, what: &str, answer: &Result<T, Error>) {
        self.bytes(what, format!("{answer:?}").as_bytes());
    }

    /// Reads an object with `get` and as a stream.
    fn object(&mut self, what: &str, bucket: &Bucket, object: &str, via: Option<&Pipeline>) {
        match bucket.get(object, via, 4 << 20) {
            Ok(bytes) => self.bytes(what, &bytes),
            Err(error) => self.answer::<()>(what, &Err(error)),
        }
        for range in [None, Some(Range { offset: 0, length: 64 }), Some(Range { offset: 16, length: 64 })] {
            match bucket.read(object, range, via) {
                Ok(stream) => loop {
                    match stream.blocking_read(1 << 16) {
                        Ok(bytes) => self.bytes(what, &bytes),
                        Err(StreamError::Closed) => break,
                        Err(StreamError::LastOperationFailed(error)) => {
                            self.bytes(what, error.to_debug_string().as_bytes());
                            break;
                        }
                    }
                },
                Err(error) => self.answer::<()>(what, &Err(error)),
            }
        }
    }

    /// Fetches an object to the data directory, and reads the file.
    fn fetched(
        &mut self,
        request: &Request,
        bucket: &Bucket,
        object: &str,
        via: Option<&Pipeline>,
        path: &str,
    ) {
        let job = Job::new(true);
        let origin = job.add_origin(bucket, via);
        self.answer("add-origin", &origin);
        let Ok(origin) = origin else { return };
        let size = match bucket.get(object, via, 4 << 20) {
            Ok(plain) => plain.len() as u64,
            Err(_) => bucket.head(object).map_or(1, |object| object.size),
        };
        let fetch = Fetch {
            origin,
            object: object.to_owned(),
            range: None,
            path: path.to_owned(),
            at: None,
            size,
            digest: None,
            mode: None,
            mtime: None,
            unless: Unless::Always,
        };
        self.answer("fetch", &job.fetch(&[fetch]));
        let unpack = Unpack {
            origin,
            object: object.to_owned(),
            path: "unpacked".to_owned(),
            limit: 1 << 20,
            skip: Vec::new(),
            refuse: Vec::new(),
        };
        self.answer("unpack", &job.unpack(&unpack, None));
        while !job.wait(1000).idle {}
        for outcome in job.outcomes(4096) {
            self.answer("outcome", &outcome.ended);
        }
        if let Ok(datadir) = request.datadir() {
            self.file(&datadir.join(path).to_string_lossy());
        }
    }

    fn file(&mut self, path: &str) {
        let mut bytes = Vec::new();
        match fs::File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut bytes)) {
            Ok(_) => self.bytes(path, &bytes),
            Err(error) => self.bytes(path, error.to_string().as_bytes()),
        }
    }
}

/// Tries to get the secrets of the granted stores `repo` and `broken` and of the granted key `pass`. `path` is the file that contains
/// one of these secrets. The object `plain.ini` contains a key in its text, `locked.ini` is the same text encrypted with `pass`, and
/// `history.gz` is the same text compressed and then encrypted.
pub(crate) fn secrets(request: &Request) -> Result<(), Failure> {
    let mut seen = Seen::default();
    let path: String = request.require("path")?;
    of_this_process(&mut seen, &path);
    names(&mut seen, &path);
    for store in ["repo", "broken"] {
        match Bucket::open(store) {
            Ok(bucket) => failing(&mut seen, request, &bucket),
            Err(error) => seen.answer::<()>(store, &Err(error)),
        }
    }
    if let Ok(bucket) = Bucket::open("repo") {
        locked(&mut seen, request, &bucket);
        derived(&mut seen, request, &bucket);
    }
    keep(request, &seen)
}

/// Tries to find the secrets in the process: environment, arguments, files.
fn of_this_process(seen: &mut Seen, path: &str) {
    seen.bytes("environment", format!("{:?} {:?}", std::env::vars_os(), std::env::args_os()).as_bytes());
    for file in [path, "/proc/self/environ", "/proc/self/cmdline", "/proc/self/maps", "/proc/1/environ"] {
        seen.file(file);
    }
}

/// Tries names for keys and stores that are paths, patterns and URLs.
fn names(seen: &mut Seen, path: &str) {
    let up = format!("../..{path}");
    for name in [path, up.as_str(), "", "*", "PASS", "pass\0", "pass/", "./pass", "keys.pass", "file:///"] {
        seen.answer(name, &Key::named(name).map(drop));
        seen.answer(name, &Bucket::open(name).map(drop));
    }
    let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
    for folder in [folder, "/", "/proc/self", "/etc"] {
        match Bucket::open(folder) {
            Ok(bucket) => {
                seen.answer(folder, &bucket.scan("", None).map(|page| page.objects.len()));
                let name = path.rsplit('/').next().unwrap_or_default();
                seen.object(folder, &bucket, name, None);
            }
            Err(error) => seen.answer::<()>(folder, &Err(error)),
        }
    }
}

/// Tries to find the secrets in errors of a store that refuses, sends invalid responses or does not exist.
fn failing(seen: &mut Seen, request: &Request, bucket: &Bucket) {
    for key in ["refused", "absent", "echo", "echoed", "marked", "../up", "/etc/passwd", "a//b", ""] {
        seen.answer(key, &bucket.head(key));
        seen.object(key, bucket, key, None);
    }
    for prefix in ["", "refused", "../"] {
        let page = bucket.scan(prefix, None).map(|page| (page.objects.len(), page.next));
        seen.answer(prefix, &page);
    }
    seen.fetched(request, bucket, "echo", None, "fetched-echo");
    seen.fetched(request, bucket, "echoed", None, "fetched-echoed");
    seen.fetched(request, bucket, "marked", None, "fetched-marked");
}

/// Tries to find the secrets in text that a key decrypts and in digests over the key.
fn locked(seen: &mut Seen, request: &Request, bucket: &Bucket) {
    seen.object("raw", bucket, "locked.ini", None);
    let key = match Key::named("pass") {
        Ok(key) => key,
        Err(error) => return seen.answer::<()>("pass", &Err(error)),
    };
    seen.answer("sha1 of a granted key", &digest_over(&key));
    // Reads the text without deriving the key in it.
    let plainly = Pipeline::new();
    plainly.decrypt(&key, CipherFormat::OpensslSha1);
    seen.object("decrypted", bucket, "locked.ini", Some(&plainly));
    seen.fetched(request, bucket, "locked.ini", Some(&plainly), "decrypted.ini");
    // The component could decompress the object itself, and then the host could not blank the key.
    seen.object("decrypted and compressed", bucket, "history.gz", Some(&plainly));
    seen.fetched(request, bucket, "history.gz", Some(&plainly), "history.gz");
    for format in FORMATS {
        for codec in CODECS {
            let via = Pipeline::new();
            via.decrypt(&key, format);
            via.decompress(codec);
            seen.object("locked, wrongly", bucket, "locked.ini", Some(&via));
        }
        for (section, name) in
            [("wrong", "cipher-pass"), ("cipher", "wrong"), ("", ""), ("cipher]\n[cipher", "x")]
        {
            let via = Pipeline::new();
            via.decrypt(&key, format);
            let derived = bucket.derive_key("locked.ini", &via, section, name);
            seen.answer("derived, wrongly", &derived.map(drop));
        }
    }
}

fn digest_over(key: &Key) -> Result<Vec<u8>, Error> {
    let sum = Hasher::new(Algorithm::Sha1);
    sum.update(b"{\"");
    sum.secret(key)?;
    Ok(sum.finish())
}

/// Reads the object from which a key was derived, in every other way.
fn derived(seen: &mut Seen, request: &Request, bucket: &Bucket) {
    let Ok(pass) = Key::named("pass") else { return };
    let locked = Pipeline::new();
    locked.decrypt(&pass, CipherFormat::OpensslSha1);
    let plain = Pipeline::new();
    for (object, via) in [("locked.ini", &locked), ("plain.ini", &plain)] {
        let key = match bucket.derive_key(object, via, "cipher", "cipher-pass") {
            Ok(key) => key,
            Err(error) => {
                seen.answer::<()>("derived", &Err(error));
                continue;
            }
        };
        seen.bytes("derived", object.as_bytes());
        seen.object("as it was derived", bucket, object, Some(via));
        seen.object("raw", bucket, object, None);
        for codec in CODECS {
            let other = Pipeline::new();
            other.decompress(codec);
            seen.object("otherwise", bucket, object, Some(&other));
        }
        seen.fetched(request, bucket, object, Some(via), "fetched.ini");
        seen.fetched(request, bucket, object, None, "fetched-raw.ini");
        seen.answer("sha1 of it", &digest_over(&key));
        // Decrypts a text with the derived key, and derives the key again, because the errors could contain the key.
        let further = Pipeline::new();
        further.decrypt(&key, CipherFormat::OpensslSha1);
        seen.object("with the derived key", bucket, "plain.ini", Some(&further));
        seen.answer("derived again", &bucket.derive_key(object, via, "cipher", "cipher-pass").map(drop));
    }
}

/// Derives the key in `plain.ini` in the directory `path`, which is granted for reading and also as the store `repo`. Then tries to read
/// the key under every other name and in parts.
pub(crate) fn aliases(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    let mut seen = Seen::default();
    let plain = Pipeline::new();
    match Bucket::open(&path)
        .and_then(|bucket| bucket.derive_key("plain.ini", &plain, "cipher", "cipher-pass"))
    {
        Ok(_) => seen.bytes("derived", b"plain.ini"),
        Err(error) => seen.answer::<()>("derived", &Err(error)),
    }
    let (dot, twice, up, link) =
        (format!("{path}/."), format!("{path}//"), format!("{path}/sub/.."), format!("{path}/link"));
    for name in [path.as_str(), &dot, &twice, &up, &link, "repo"] {
        let bucket = match Bucket::open(name) {
            Ok(bucket) => bucket,
            Err(error) => {
                seen.answer::<()>(name, &Err(error));
                continue;
            }
        };
        for object in ["plain.ini", "sub/copy.ini", "sub/same.ini"] {
            seen.object("whole", &bucket, object, None);
            in_parts(&mut seen, request, &bucket, object);
        }
    }
    if let Ok(sub) = Bucket::open(&format!("{path}/sub")) {
        for object in ["copy.ini", "same.ini"] {
            seen.object("whole", &sub, object, None);
            in_parts(&mut seen, request, &sub, object);
        }
    }
    keep(request, &seen)
}

/// Reads an object in two parts, split at many offsets, and fetches both parts into the same file.
fn in_parts(seen: &mut Seen, request: &Request, bucket: &Bucket, object: &str) {
    let Ok(size) = bucket.head(object).map(|object| object.size) else { return };
    for middle in (0..size).step_by(16).chain([size - 8]) {
        let mut both = Vec::new();
        for (offset, length) in [(0, middle), (middle, size - middle)] {
            match bucket.read(object, Some(Range { offset, length }), None) {
                Ok(stream) => {
                    while let Ok(bytes) = stream.blocking_read(1 << 16) {
                        both.extend_from_slice(&bytes);
                    }
                }
                Err(error) => seen.answer::<()>("a part", &Err(error)),
            }
        }
        seen.bytes("parts", &both);
    }
    let job = Job::new(true);
    let Ok(origin) = job.add_origin(bucket, None) else { return };
    let part = |offset: u64, length: u64| Fetch {
        origin,
        object: object.to_owned(),
        range: Some(Range { offset, length }),
        path: "parts".to_owned(),
        at: Some(offset),
        size: length,
        digest: None,
        mode: None,
        mtime: None,
        unless: Unless::Always,
    };
    seen.answer("fetch", &job.fetch(&[part(0, size / 2), part(size / 2, size - size / 2)]));
    let whole = Fetch { range: None, path: "whole".to_owned(), at: None, size, ..part(0, size) };
    seen.answer("fetch", &job.fetch(&[whole]));
    while !job.wait(1000).idle {}
    for outcome in job.outcomes(4096) {
        seen.answer("outcome", &outcome.ended);
    }
    if let Ok(datadir) = request.datadir() {
        for file in ["parts", "whole"] {
            seen.file(&datadir.join(file).to_string_lossy());
        }
    }
}

/// Decrypts `locked.ini` with the key `pass`: in the store `repo`, to which the key is bound, and in the store `other` and the directory
/// `path`, to which the key is not bound.
pub(crate) fn keys_elsewhere(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    let key = Key::named("pass").map_err(|error| Failure::failed(format!("{error:?}")))?;
    let via = Pipeline::new();
    via.decrypt(&key, CipherFormat::OpensslSha1);
    let own = Bucket::open("repo")
        .and_then(|bucket| bucket.derive_key("locked.ini", &via, "cipher", "cipher-pass"));
    let derived =
        own.map_err(|error| Failure::failed(format!("it does not open its own store: {error:?}")))?;
    let further = Pipeline::new();
    further.decrypt(&derived, CipherFormat::OpensslSha1);
    let mut attempts = Vec::new();
    for name in ["other", path.as_str()] {
        let bucket = Bucket::open(name).map_err(|error| Failure::failed(format!("{name}: {error:?}")))?;
        for (which, via) in [("granted", &via), ("derived", &further)] {
            let answers = [
                ("get", bucket.get("locked.ini", Some(via), 1 << 16).map(drop)),
                ("read", bucket.read("locked.ini", None, Some(via)).map(drop)),
                ("derive", bucket.derive_key("locked.ini", via, "cipher", "cipher-pass").map(drop)),
                ("origin", Job::new(true).add_origin(&bucket, Some(via)).map(drop)),
            ];
            for (how, answer) in answers {
                let answer = match answer {
                    Err(Error::Denied(why)) => Err(why),
                    Err(error) => return Err(Failure::failed(format!("{how} of {name}: {error:?}"))),
                    Ok(()) => Ok(()),
                };
                attempts.push((format!("{how} with the {which} key in {name}"), answer));
            }
        }
    }
    Err(crate::verdict(attempts))
}

/// Derives keys from words in the operator's log and from one real key. Then passes the text `path` to every function that takes text.
pub(crate) fn derive_words(request: &Request) -> Result<(), Failure> {
    let bucket = Bucket::open("repo").map_err(|error| Failure::failed(format!("{error:?}")))?;
    for name in ["word", "path", "key"] {
        bucket
            .derive_key("words.ini", &Pipeline::new(), "w", name)
            .map_err(|error| Failure::failed(format!("{name}: {error:?}")))?;
    }
    let text: String = request.get("path")?.unwrap_or_default();
    log::info!("{text}");
    Err(refused("words", format!("they are keys now; {text}")))
}

/// Writes all text that the component got to a file, in a form that no redactor recognizes, and passes it to functions that take text.
fn keep(request: &Request, seen: &Seen) -> Result<(), Failure> {
    let hidden: Vec<u8> = seen.0.iter().map(|byte| byte ^ 0x55).collect();
    let path = request.datadir()?.join(KEPT);
    fs::write(&path, hidden).at(&path)?;
    let text = String::from_utf8_lossy(&seen.0);
    for line in text.lines() {
        log::info!("{line}");
    }
    progress::phase(&text);
    let mut last = String::new();
    let _infallible = write!(last, "{text}");
    Err(refused("everything that was tried", last))
}

/// Passes the text `path` to every function that takes text, as a component that knows a secret would.
#[expect(clippy::print_stdout, reason = "standard output is one of the ways")]
pub(crate) fn shout(request: &Request) -> Result<(), Failure> {
    let text: String = request.require("path")?;
    log::warn!("it is {text}");
    understudy::raw::understudy::method::log::log(
        understudy::raw::understudy::method::log::Level::Info,
        "fields",
        &[("name".to_owned(), text.clone()), (text.clone(), "value".to_owned())],
    );
    progress::phase(&text);
    println!("{text}");
    eprintln!("{text}");
    let _denied = Bucket::open(&text);
    let _denied = Key::named(&text);
    Err(Failure::failed(format!("it is {text}")))
}
