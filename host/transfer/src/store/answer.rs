//! Checks whether the response to a listing request is a listing, and whether it is complete.
//!
//! The libraries of the clouds accept any XML as a listing without objects, and a truncated listing as a complete one. Without these
//! checks, a proxy's error page would look like an empty bucket, and a truncated listing could show only the first of six backups.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{Error, Kind};

/// The root elements of a listing: of S3 and Google, and of Azure.
const ROOTS: [&[u8]; 2] = [S3, AZURE];
const S3: &[u8] = b"ListBucketResult";
const AZURE: &[u8] = b"EnumerationResults";

/// The root element of an error. Some servers have already sent a success status when they fail.
const REFUSAL: &[u8] = b"Error";

/// The most characters of a root element's name that messages show.
const NAME: usize = 40;

/// How deep elements may be nested. Those of a listing are nested four deep.
const DEEPEST: usize = 32;

/// The body of a successful response to a listing request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A part of a listing.
    Listing(ListingEnd),
    /// An error, which the body describes.
    Refusal,
}

/// What a part of a listing says about its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ListingEnd {
    /// S3's `IsTruncated`: whether more objects follow; `None` if the server does not say.
    is_truncated: Option<bool>,
}

impl ListingEnd {
    /// Returns whether more objects may follow a part without a token. If the server does not say, a full part may have been
    /// truncated.
    pub(super) fn is_cut(self, is_full: bool) -> bool {
        self.is_truncated.unwrap_or(is_full)
    }
}

/// Parses the body to its end.
///
/// # Errors
/// `Failed` if the body is not a listing, or is cut off.
pub(super) fn read(body: &[u8]) -> Result<Answer, Error> {
    let mut reader = Reader::from_reader(body);
    let mut listed = ListingEnd::default();
    let mut root: Option<Answer> = None;
    let mut depth = 0_usize;
    let mut is_flag = false;
    loop {
        match reader.read_event().map_err(|error| not_a_listing(&format!("its XML is damaged: {error}")))? {
            Event::Start(element) => {
                if depth == 0 {
                    root = Some(named(root, element.local_name().as_ref(), &mut listed)?);
                }
                depth += 1;
                if depth > DEEPEST {
                    return Err(not_a_listing("its elements are nested too deep"));
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
                // A byte order mark may come first.
                let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text);
                if !text.trim_ascii().is_empty() {
                    return Err(not_a_listing("it has text instead of XML"));
                }
            }
            Event::Text(text) if is_flag => {
                listed.is_truncated = Some(match text.trim_ascii() {
                    word if word.eq_ignore_ascii_case(b"true") => true,
                    word if word.eq_ignore_ascii_case(b"false") => false,
                    _ => return Err(not_a_listing("its IsTruncated is neither true nor false")),
                });
            }
            Event::Eof if depth > 0 => return Err(not_a_listing("it is cut off")),
            Event::Eof => {
                return match root {
                    Some(Answer::Listing(_)) => Ok(Answer::Listing(listed)),
                    Some(Answer::Refusal) => Ok(Answer::Refusal),
                    None => Err(not_a_listing("it is empty")),
                };
            }
            _ => {}
        }
    }
}

/// Returns what a body with this root element is.
fn named(before: Option<Answer>, name: &[u8], listed: &mut ListingEnd) -> Result<Answer, Error> {
    if before.is_some() {
        return Err(not_a_listing("it has two root elements"));
    }
    if name == REFUSAL {
        return Ok(Answer::Refusal);
    }
    if !ROOTS.contains(&name) {
        let shown: String = String::from_utf8_lossy(name).chars().take(NAME).collect();
        return Err(not_a_listing(&format!("it is `{}`", shown.escape_debug())));
    }
    if name == AZURE {
        // Azure's token alone says whether more objects follow.
        listed.is_truncated = Some(false);
    }
    Ok(Answer::Listing(*listed))
}

fn not_a_listing(why: &str) -> Error {
    let message = format!(
        "the server's response to a listing request is not a listing ({why}): check that `endpoint` is the address of the store \
         itself, and not of a proxy or a login page"
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
    fn the_end_of_a_listing_is_parsed() {
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
            // This `IsTruncated` belongs to an object, not to the listing.
            (
                "<ListBucketResult><Contents><IsTruncated>true</IsTruncated></Contents></ListBucketResult>",
                None,
            ),
            ("<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>", Some(false)),
        ] {
            assert_eq!(listed(body), said, "{body}");
        }
        assert!(ListingEnd { is_truncated: Some(true) }.is_cut(false));
        assert!(!ListingEnd { is_truncated: Some(false) }.is_cut(true));
        assert!(ListingEnd { is_truncated: None }.is_cut(true));
        assert!(!ListingEnd { is_truncated: None }.is_cut(false));
    }

    #[test]
    fn other_responses_are_refused_with_the_cause() {
        for (body, why) in [
            ("", "it is empty"),
            ("  \n", "it is empty"),
            ("OK", "text instead of XML"),
            ("{\"objects\": []}", "text instead of XML"),
            ("<!DOCTYPE html><html><head></head></html>", "it is `html`"),
            ("<html><br></html>", "it is `html`"),
            ("<ListAllMyBucketsResult></ListAllMyBucketsResult>", "it is `ListAllMyBucketsResult`"),
            ("<ListBucketResult><Contents><Key>a</Key></Contents>", "it is cut off"),
            ("<ListBucketResult><Contents></ListBucketResult>", "damaged"),
            ("<ListBucketResult></ListBucketResult><ListBucketResult/>", "two root elements"),
            ("<ListBucketResult></ListBucketResult>more", "text instead of XML"),
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
