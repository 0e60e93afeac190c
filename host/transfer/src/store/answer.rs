//! Whether what a store answers for a listing is one, and whether it is all of it.
//!
//! The libraries of the clouds take whatever is XML for a listing without objects, and one that was cut for a whole one: a
//! page of a proxy would be an empty bucket, and of six backups only the first would be there.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{Error, Kind};

/// The root of a listing: S3's and Google's, Azure's.
const ROOTS: [&[u8]; 2] = [S3, AZURE];
const S3: &[u8] = b"ListBucketResult";
const AZURE: &[u8] = b"EnumerationResults";

/// The root of an error. Some servers have sent the status before they know that they fail.
const REFUSAL: &[u8] = b"Error";

/// The most letters of a name that is shown.
const NAME: usize = 40;

/// How deep elements may lie in each other. Those of a listing are four deep.
const DEEPEST: usize = 32;

/// An answer to the question for a listing, with a status that says that it succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A part of a listing.
    Listing(Listed),
    /// An error, whose body says which.
    Refusal,
}

/// What a part of a listing says of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// S3's `IsTruncated`: whether there is more. `None` where the server does not say.
    is_truncated: Option<bool>,
}

impl Listed {
    /// Whether there is more, of a part without a token. Where the server says nothing, one that is as full as it may be
    /// could have been cut.
    pub(super) fn is_cut(self, is_full: bool) -> bool {
        self.is_truncated.unwrap_or(is_full)
    }
}

/// Reads the body to its end.
///
/// # Errors
/// `Failed` for what is no listing, and for one that does not end.
pub(super) fn read(body: &[u8]) -> Result<Answer, Error> {
    let mut reader = Reader::from_reader(body);
    let mut listed = Listed::default();
    let mut root: Option<Answer> = None;
    let mut depth = 0_usize;
    let mut is_flag = false;
    loop {
        match reader.read_event().map_err(|error| none(&format!("its XML is damaged: {error}")))? {
            Event::Start(element) => {
                if depth == 0 {
                    root = Some(named(root, element.local_name().as_ref(), &mut listed)?);
                }
                depth += 1;
                if depth > DEEPEST {
                    return Err(none("its elements lie too deep in each other"));
                }
                is_flag = depth == 2 && element.local_name().as_ref() == b"IsTruncated";
            }
            Event::Empty(element) if depth == 0 => {
                root = Some(named(root, element.local_name().as_ref(), &mut listed)?);
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                is_flag = false;
            }
            Event::Text(text) if depth == 0 => {
                // A mark of the order of bytes may come first.
                let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text);
                if !text.trim_ascii().is_empty() {
                    return Err(none("there is text where XML belongs"));
                }
            }
            Event::Text(text) if is_flag => {
                listed.is_truncated = Some(match text.trim_ascii() {
                    word if word.eq_ignore_ascii_case(b"true") => true,
                    word if word.eq_ignore_ascii_case(b"false") => false,
                    _ => return Err(none("its IsTruncated is neither true nor false")),
                });
            }
            Event::Eof if depth > 0 => return Err(none("it ends in its middle")),
            Event::Eof => {
                return match root {
                    Some(Answer::Listing(_)) => Ok(Answer::Listing(listed)),
                    Some(Answer::Refusal) => Ok(Answer::Refusal),
                    None => Err(none("it is empty")),
                };
            }
            _ => {}
        }
    }
}

/// What an answer with this root is.
fn named(before: Option<Answer>, name: &[u8], listed: &mut Listed) -> Result<Answer, Error> {
    if before.is_some() {
        return Err(none("it has two roots"));
    }
    if name == REFUSAL {
        return Ok(Answer::Refusal);
    }
    if !ROOTS.contains(&name) {
        let shown: String = String::from_utf8_lossy(name).chars().take(NAME).collect();
        return Err(none(&format!("it is `{}`", shown.escape_debug())));
    }
    if name == AZURE {
        // There the token alone says whether there is more.
        listed.is_truncated = Some(false);
    }
    Ok(Answer::Listing(*listed))
}

fn none(why: &str) -> Error {
    let message = format!(
        "the server answers for a listing what is none ({why}): see whether `endpoint` is the store's own address, and whether a \
         proxy or a page to sign in stands between"
    );
    Error::new(Kind::Failed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(body: &str) -> Option<bool> {
        match read(body.as_bytes()).unwrap() {
            Answer::Listing(listed) => listed.is_truncated,
            Answer::Refusal => panic!("{body}"),
        }
    }

    #[test]
    fn what_a_listing_says_of_its_end_is_read() {
        for (body, said) in [
            ("<ListBucketResult/>", None),
            (
                "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Contents><Key>a</Key></Contents></ListBucketResult>\n",
                None,
            ),
            ("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", Some(true)),
            (
                "\u{feff}<s3:ListBucketResult><s3:IsTruncated> False </s3:IsTruncated></s3:ListBucketResult>",
                Some(false),
            ),
            // Of an object, not of the listing.
            (
                "<ListBucketResult><Contents><IsTruncated>true</IsTruncated></Contents></ListBucketResult>",
                None,
            ),
            ("<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>", Some(false)),
        ] {
            assert_eq!(listed(body), said, "{body}");
        }
        assert!(Listed { is_truncated: Some(true) }.is_cut(false));
        assert!(!Listed { is_truncated: Some(false) }.is_cut(true));
        assert!(Listed { is_truncated: None }.is_cut(true));
        assert!(!Listed { is_truncated: None }.is_cut(false));
    }

    #[test]
    fn what_is_no_listing_is_told() {
        for (body, why) in [
            ("", "it is empty"),
            ("  \n", "it is empty"),
            ("OK", "text where XML belongs"),
            ("{\"objects\": []}", "text where XML belongs"),
            ("<!DOCTYPE html><html><head></head></html>", "it is `html`"),
            ("<html><br></html>", "it is `html`"),
            ("<ListAllMyBucketsResult></ListAllMyBucketsResult>", "it is `ListAllMyBucketsResult`"),
            ("<ListBucketResult><Contents><Key>a</Key></Contents>", "ends in its middle"),
            ("<ListBucketResult><Contents></ListBucketResult>", "damaged"),
            ("<ListBucketResult></ListBucketResult><ListBucketResult/>", "two roots"),
            ("<ListBucketResult></ListBucketResult>more", "text where XML belongs"),
            ("<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>", "neither"),
        ] {
            let error = read(body.as_bytes()).unwrap_err();
            assert_eq!(error.kind, Kind::Failed, "{body}");
            assert!(error.message.contains(why) && error.message.contains("`endpoint`"), "{body}: {error}");
        }
        let deep = "<ListBucketResult>".to_owned() + &"<a>".repeat(DEEPEST);
        assert!(read(deep.as_bytes()).unwrap_err().message.contains("too deep"));
        assert_eq!(read(b"<Error><Code>SlowDown</Code></Error>"), Ok(Answer::Refusal));
    }
}
