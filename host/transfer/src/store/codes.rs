//! What the clouds' own words for a refusal mean, and what can be done.
//!
//! Sources: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>,
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-error-codes> with the common codes there,
//! <https://cloud.google.com/storage/docs/xml-api/reference-status>.

use crate::error::Kind;

/// A word that a store refuses with.
#[derive(Debug)]
pub(super) struct Code {
    /// The word itself.
    word: &'static str,
    /// What kind of failure it is, whatever status comes with it. [`Kind::Transient`] is tried again.
    pub(super) kind: Kind,
    /// Whether other credentials could change it, such as those that a file holds by now.
    pub(super) is_of_credentials: bool,
    /// What it means.
    pub(super) meaning: &'static str,
    /// What to do; empty where waiting is all.
    pub(super) remedy: &'static str,
}

/// The word's meaning, where it is known.
pub(super) fn find(word: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.word == word)
}

/// The credentials are not taken.
const fn credentials(word: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { word, kind: Kind::Denied, is_of_credentials: true, meaning, remedy }
}

/// It is refused, whatever the credentials.
const fn refused(word: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { word, kind: Kind::Denied, is_of_credentials: false, meaning, remedy }
}

/// The settings are not right.
const fn setting(word: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { word, kind: Kind::Invalid, is_of_credentials: false, meaning, remedy }
}

/// It passes.
const fn passing(word: &'static str, meaning: &'static str) -> Code {
    Code { word, kind: Kind::Transient, is_of_credentials: false, meaning, remedy: "" }
}

/// Every word that is known.
const CODES: &[Code] = &[
    // S3, and Google by its interface in XML.
    credentials(
        "AccessDenied",
        "the credentials may not do this",
        "let them read: s3:GetObject for the objects, and s3:ListBucket for the bucket, without which S3 also says of an \
         object that is not there that it may not be read (Google: storage.objects.get and storage.objects.list)",
    ),
    credentials(
        "ExpiredToken",
        "the session token has expired",
        "put a new one where `session_token` is read from",
    ),
    credentials(
        "TokenRefreshRequired",
        "the session token must be renewed",
        "put a new one where `session_token` is read from",
    ),
    credentials(
        "InvalidToken",
        "the session token is none of this store's, or belongs to other keys",
        "see `session_token`: it comes together with `access_key_id` and `secret_access_key`, and keys that do not expire have none",
    ),
    credentials(
        "InvalidAccessKeyId",
        "the store does not know the access key",
        "see `access_key_id`; a temporary one (ASIA...) needs its `session_token` too",
    ),
    credentials("InvalidClientTokenId", "the store does not know the access key", "see `access_key_id`"),
    credentials(
        "SignatureDoesNotMatch",
        "the secret key does not belong to the access key, or what stands between changes the request",
        "see `secret_access_key`, and whether its file has more than the key in it",
    ),
    credentials("InvalidSecurity", "the credentials are not valid", "see `credentials`"),
    credentials("MissingSecurityHeader", "the request is not signed as the store wants", "see `credentials`"),
    credentials("AuthenticationRequired", "the store wants to know who reads", "set `credentials`"),
    credentials("NotSignedUp", "the account does not use this service", "see whose `credentials` these are"),
    credentials(
        "UserProjectAccessDenied",
        "the account may not be charged for the request",
        "see whose `credentials` these are",
    ),
    refused("AllAccessDisabled", "all access to the bucket is disabled", "ask who owns it"),
    refused("AccountProblem", "something is wrong with the account", "ask the provider"),
    refused("UserAccountDisabled", "the account is disabled", "ask the provider"),
    refused(
        "InvalidObjectState",
        "the object lies in an archive (Glacier, or an archive tier)",
        "have the store restore it first, and keep backups that are to be read out of such a class",
    ),
    refused(
        "RequestTimeTooSkewed",
        "the clock of this machine and the store's are too far apart",
        "set the clock (chronyc tracking, timedatectl)",
    ),
    refused(
        "RequestExpired",
        "the request came too late",
        "see the clock of this machine (chronyc tracking, timedatectl)",
    ),
    setting(
        "AuthorizationHeaderMalformed",
        "the request is signed for another region than the bucket's",
        "set `region`",
    ),
    setting("IllegalLocationConstraintException", "the bucket is in another region", "set `region`"),
    setting("InvalidRegion", "the store has no such region", "set `region`"),
    setting("PermanentRedirect", "the bucket is elsewhere", "set `region`, or `endpoint`"),
    setting("TemporaryRedirect", "the bucket is elsewhere for now", "set `region`, or `endpoint`"),
    setting("Redirect", "the bucket is elsewhere for now", "set `region`, or `endpoint`"),
    setting("InvalidBucketName", "the store has no bucket of such a name", "see `url`"),
    setting(
        "UserProjectMissing",
        "the bucket's readers pay, and no project is named",
        "use a bucket whose owner pays",
    ),
    setting(
        "InvalidURI",
        "the store cannot read the address",
        "see `url`, `endpoint` and `virtual_hosted_style`",
    ),
    setting(
        "MethodNotAllowed",
        "the object is deleted and only its mark is left, or the address is no bucket's",
        "see `url`, `endpoint` and `virtual_hosted_style`",
    ),
    passing("SlowDown", "the store asks for fewer requests (`concurrency` bounds them)"),
    passing("ServiceUnavailable", "the store is not available"),
    passing("RequestTimeout", "the store gave up waiting"),
    passing("InternalError", "something went wrong within the store"),
    passing("OperationAborted", "something else is done with the bucket"),
    // Azure.
    credentials(
        "AuthenticationFailed",
        "the key or the token is not right, or not valid now",
        "see `account_key`, or `sas_token` with its time (`st`, `se`), and the clock of this machine",
    ),
    credentials("InvalidAuthenticationInfo", "the credentials cannot be read", "see `credentials`"),
    credentials("NoAuthenticationInformation", "the store wants to know who reads", "set `credentials`"),
    credentials(
        "AuthorizationFailure",
        "the credentials may not do this, or not from this network",
        "see the account's firewall and roles",
    ),
    credentials(
        "AuthorizationPermissionMismatch",
        "the credentials lack a permission",
        "give them the role Storage Blob Data Reader, or a `sas_token` with `sp=rl`",
    ),
    credentials(
        "AuthorizationResourceTypeMismatch",
        "the token is not for containers and blobs",
        "make a `sas_token` with `srt=co`",
    ),
    credentials(
        "AuthorizationServiceMismatch",
        "the token is not for blobs",
        "make a `sas_token` with `ss=b`",
    ),
    credentials(
        "AuthorizationProtocolMismatch",
        "the token is for another protocol",
        "use https, or a `sas_token` without `spr`",
    ),
    credentials(
        "AuthorizationSourceIPMismatch",
        "the token is not for this address",
        "make a `sas_token` with this machine's `sip`",
    ),
    credentials("InsufficientAccountPermissions", "the account may not do this", "see its roles"),
    credentials(
        "KeyBasedAuthenticationNotPermitted",
        "the account takes no keys",
        "use `client_id`, `tenant_id` and `client_secret`, or credentials = \"auto\"",
    ),
    refused(
        "PublicAccessNotPermitted",
        "the account lets nobody read without credentials",
        "set `credentials`",
    ),
    refused("AccountIsDisabled", "the account is disabled", "ask the provider"),
    refused(
        "BlobArchived",
        "the object lies in the archive tier",
        "have the store rehydrate it first, and keep backups that are to be read out of that tier",
    ),
    refused("BlobBeingRehydrated", "the object is still on its way out of the archive tier", "wait for that"),
    passing("ServerBusy", "the store asks for fewer requests (`concurrency` bounds them)"),
    passing("OperationTimedOut", "the store was too slow for itself"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_stands_once_and_says_what_to_do_unless_it_passes() {
        let words: BTreeSet<&str> = CODES.iter().map(|code| code.word).collect();
        assert_eq!(words.len(), CODES.len());
        for code in CODES {
            assert!(!code.meaning.is_empty() && !code.meaning.ends_with('.'), "{code:?}");
            assert_eq!(code.remedy.is_empty(), code.kind == Kind::Transient, "{code:?}");
            assert!(!code.is_of_credentials || code.kind == Kind::Denied, "{code:?}");
        }
        assert!(find("expiredtoken").is_none() && find("").is_none());
    }
}
