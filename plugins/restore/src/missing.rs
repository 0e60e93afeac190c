//! Names files that are missing, for a message.

use understudy::Failure;
use understudy::transfer::{Chain, Listing};

/// How many missing files are counted.
pub const COUNTED: u32 = 1000;

/// How many missing files are named.
const NAMED: usize = 3;

/// Names the first files of a chain that none of its backups has as a whole; `None` if there are none.
///
/// # Errors
/// The errors of [`Chain::missing`].
pub fn of_chain(chain: &mut Chain) -> Result<Option<String>, Failure> {
    Ok(some_of(chain.missing(COUNTED)?.iter().map(String::as_str)))
}

/// Names the first files of a listing that no archive contained; `None` if there are none.
///
/// # Errors
/// The errors of [`Listing::missing`].
pub fn of_listing(listing: &mut Listing) -> Result<Option<String>, Failure> {
    Ok(some_of(listing.missing(COUNTED)?.iter().map(String::as_str)))
}

/// Names the first of some files, at most [`COUNTED`]; `None` if there are none.
pub fn some_of<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    let (first, rest) = names.split_at_checked(NAMED).unwrap_or((&names, &[]));
    if first.is_empty() {
        return None;
    }
    let and = match rest.len() {
        0 => String::new(),
        more if names.len() == COUNTED as usize => format!(" and {more} or more others"),
        more => format!(" and {more} more"),
    };
    let first: Vec<_> = first.iter().map(|name| name.escape_debug().to_string()).collect();
    Some(format!("`{}`{and}", first.join("`, `")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_files_are_named_and_the_others_counted() {
        assert_eq!(some_of([].into_iter()), None);
        assert_eq!(some_of(["a\n"].into_iter()).as_deref(), Some("`a\\n`"));
        assert_eq!(some_of(["a", "b", "c", "d"].into_iter()).as_deref(), Some("`a`, `b`, `c` and 1 more"));
        let many = std::iter::repeat_n("a", COUNTED as usize);
        assert_eq!(some_of(many).as_deref(), Some("`a`, `a`, `a` and 997 or more others"));
    }
}
