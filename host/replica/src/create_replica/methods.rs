//! Which methods are tried, and in which order. Loop rules 1, 2 and 4.

use super::ListedMethod;

/// The only method that is not a plugin. This is Patroni's name for `pg_basebackup`, and the only method of its default list.
pub const BASEBACKUP: &str = "basebackup";

/// `--from-leader` was given without a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`--from-leader` copies from the leader, and no source is configured: give `[source] conninfo` or `--connstring`"
)]
pub struct FromLeaderWithoutSource;

/// Returns the names of the methods in the order in which they are tried (rules 1 and 2).
///
/// - `local`: the list of this machine's configuration.
/// - `remote_member`: the list of the source (`[source] methods`), if it has one. It replaces the local list even if it is
///   empty. Each method's own section is still the local one.
/// - `from_leader`: the operator asked for a copy of the leader and nothing else.
///
/// An empty list means only `basebackup`.
///
/// # Errors
/// Fails for `from_leader` without a source, for which Patroni returns 1 and prints nothing.
pub fn methods_to_try(
    local: &[String],
    remote_member: Option<&[String]>,
    from_leader: bool,
    has_source: bool,
) -> Result<Vec<String>, FromLeaderWithoutSource> {
    if from_leader && !has_source {
        return Err(FromLeaderWithoutSource);
    }
    let listed = remote_member.unwrap_or(local);
    if from_leader || listed.is_empty() {
        return Ok(vec![BASEBACKUP.to_owned()]);
    }
    Ok(listed.to_vec())
}

impl ListedMethod {
    /// Returns whether the method can be tried without a source (rule 4). `basebackup` never can, even if its section says otherwise.
    pub fn can_work_without_source(&self) -> bool {
        self.method.name() != BASEBACKUP && self.no_leader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn rule_01_the_list_of_a_remote_member_replaces_the_local_one() {
        let (local, remote) = (names(&["a", "b"]), names(&["c"]));
        assert_eq!(methods_to_try(&local, None, false, true), Ok(local.clone()));
        assert_eq!(methods_to_try(&local, Some(&remote), false, true), Ok(remote));
    }

    #[test]
    fn rule_01_an_empty_list_means_basebackup() {
        let basebackup = Ok(names(&["basebackup"]));
        assert_eq!(methods_to_try(&[], None, false, true), basebackup);
        assert_eq!(methods_to_try(&names(&["a"]), Some(&[]), false, true), basebackup);
    }

    #[test]
    fn rule_01_order_and_repetition_are_the_operators() {
        let list = names(&["b", "a", "b", "basebackup"]);
        assert_eq!(methods_to_try(&list, None, false, false), Ok(list.clone()));
    }

    #[test]
    fn rule_02_from_leader_leaves_basebackup_alone() {
        let lists = (names(&["a"]), names(&["b"]));
        assert_eq!(methods_to_try(&lists.0, Some(&lists.1), true, true), Ok(names(&["basebackup"])));
    }

    #[test]
    fn rule_02_from_leader_without_a_source_says_what_is_missing() {
        let error = methods_to_try(&names(&["a"]), None, true, false).map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("--connstring")));
    }
}
