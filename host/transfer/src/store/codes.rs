//! The clouds' error codes: what they mean, and what to do.
//!
//! Sources: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>,
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-error-codes> with the common codes there,
//! <https://cloud.google.com/storage/docs/xml-api/reference-status>.

use crate::error::Kind;

/// An error code of a store.
#[derive(Debug)]
pub(super) struct Code {
    /// The code itself.
    code: &'static str,
    /// The kind of failure, independent of the status of the response. [`Kind::Transient`] is retried.
    pub(super) kind: Kind,
    /// Whether the credentials were refused, so that renewed ones may help.
    pub(super) credentials_refused: bool,
    /// What it means.
    pub(super) meaning: &'static str,
    /// What to do; empty if the operator can only wait.
    pub(super) remedy: &'static str,
}

/// Returns the entry of a code; `None` if it is unknown.
pub(super) fn find(code: &str) -> Option<&'static Code> {
    CODES.iter().find(|entry| entry.code == code)
}

/// Makes the entry of a code for refused credentials.
const fn credentials(code: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { code, kind: Kind::Denied, credentials_refused: true, meaning, remedy }
}

/// Makes the entry of a code for a refusal that does not depend on the credentials.
const fn refused(code: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { code, kind: Kind::Denied, credentials_refused: false, meaning, remedy }
}

/// Makes the entry of a code for a wrong setting.
const fn setting(code: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { code, kind: Kind::Invalid, credentials_refused: false, meaning, remedy }
}

/// Makes the entry of a code for a transient failure.
const fn passing(code: &'static str, meaning: &'static str) -> Code {
    Code { code, kind: Kind::Transient, credentials_refused: false, meaning, remedy: "" }
}

/// All known codes.
const CODES: &[Code] = &[
    // S3, and Google's XML interface.
    credentials(
        "AccessDenied",
        "the credentials do not permit this request",
        "grant s3:GetObject for the objects, and s3:ListBucket for the bucket, without which S3 also denies access to objects \
         that do not exist (Google: storage.objects.get and storage.objects.list)",
    ),
    credentials("ExpiredToken", "the session token has expired", "renew it at the source of `session_token`"),
    credentials(
        "TokenRefreshRequired",
        "the session token must be renewed",
        "renew it at the source of `session_token`",
    ),
    credentials(
        "InvalidToken",
        "the session token does not belong to this store or to these keys",
        "check `session_token`: it comes together with `access_key_id` and `secret_access_key`, and keys that do not expire have none",
    ),
    credentials(
        "InvalidAccessKeyId",
        "the store does not know the access key",
        "check `access_key_id`; a temporary access key (ASIA...) also needs its `session_token`",
    ),
    credentials("InvalidClientTokenId", "the store does not know the access key", "check `access_key_id`"),
    credentials(
        "SignatureDoesNotMatch",
        "the secret key does not belong to the access key, or a proxy changes the request",
        "check `secret_access_key`, and whether its file has more than the key in it",
    ),
    credentials("InvalidSecurity", "the credentials are not valid", "check `credentials`"),
    credentials(
        "MissingSecurityHeader",
        "the request is not signed as the store wants",
        "check `credentials`",
    ),
    credentials("AuthenticationRequired", "the store requires credentials", "set `credentials`"),
    credentials(
        "NotSignedUp",
        "the account does not use this service",
        "check whose `credentials` these are",
    ),
    credentials(
        "UserProjectAccessDenied",
        "the account may not be charged for the request",
        "check whose `credentials` these are",
    ),
    refused("AllAccessDisabled", "all access to the bucket is disabled", "ask its owner"),
    refused("AccountProblem", "something is wrong with the account", "ask the provider"),
    refused("UserAccountDisabled", "the account is disabled", "ask the provider"),
    refused(
        "InvalidObjectState",
        "the object lies in an archive (Glacier, or an archive tier)",
        "restore it in the store first, and do not keep backups that must be readable in such a class",
    ),
    refused(
        "RequestTimeTooSkewed",
        "the clock of this machine and the store's are too far apart",
        "set the clock (chronyc tracking, timedatectl)",
    ),
    refused(
        "RequestExpired",
        "the request came too late",
        "check the clock of this machine (chronyc tracking, timedatectl)",
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
    setting("InvalidBucketName", "the store has no bucket of such a name", "check `url`"),
    setting(
        "UserProjectMissing",
        "the bucket makes its readers pay, and the request names no project",
        "use a bucket whose owner pays",
    ),
    setting(
        "InvalidURI",
        "the store cannot read the address",
        "check `url`, `endpoint` and `virtual_hosted_style`",
    ),
    setting(
        "MethodNotAllowed",
        "the object was deleted and has only a delete marker, or the address is not that of a bucket",
        "check `url`, `endpoint` and `virtual_hosted_style`",
    ),
    passing("SlowDown", "the store asks for fewer requests (`concurrency` bounds them)"),
    passing("ServiceUnavailable", "the store is not available"),
    passing("RequestTimeout", "the store gave up waiting"),
    passing("InternalError", "something went wrong within the store"),
    passing("OperationAborted", "another operation on the bucket conflicts with the request"),
    // Azure.
    credentials(
        "AuthenticationFailed",
        "the key or the token is wrong, or not valid at this time",
        "check `account_key`, or `sas_token` with its time (`st`, `se`), and the clock of this machine",
    ),
    credentials("InvalidAuthenticationInfo", "the credentials cannot be read", "check `credentials`"),
    credentials("NoAuthenticationInformation", "the store requires credentials", "set `credentials`"),
    credentials(
        "AuthorizationFailure",
        "the credentials do not permit this request, or not from this network",
        "check the account's firewall and roles",
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
    credentials(
        "InsufficientAccountPermissions",
        "the account does not permit this request",
        "check its roles",
    ),
    credentials(
        "KeyBasedAuthenticationNotPermitted",
        "the account takes no keys",
        "use `client_id`, `tenant_id` and `client_secret`, or credentials = \"auto\"",
    ),
    refused(
        "PublicAccessNotPermitted",
        "the account does not allow reading without credentials",
        "set `credentials`",
    ),
    refused("AccountIsDisabled", "the account is disabled", "ask the provider"),
    refused(
        "BlobArchived",
        "the object lies in the archive tier",
        "rehydrate it in the store first, and do not keep backups that must be readable in that tier",
    ),
    refused(
        "BlobBeingRehydrated",
        "the object is still being rehydrated from the archive tier",
        "wait until that is done",
    ),
    passing("ServerBusy", "the store asks for fewer requests (`concurrency` bounds them)"),
    passing("OperationTimedOut", "the operation timed out within the store"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_occurs_once_and_has_a_remedy_unless_it_is_transient() {
        let codes: BTreeSet<&str> = CODES.iter().map(|code| code.code).collect();
        assert_eq!(codes.len(), CODES.len());
        for code in CODES {
            assert!(!code.meaning.is_empty() && !code.meaning.ends_with('.'), "{code:?}");
            assert_eq!(code.remedy.is_empty(), code.kind == Kind::Transient, "{code:?}");
            assert!(!code.credentials_refused || code.kind == Kind::Denied, "{code:?}");
        }
        assert!(find("expiredtoken").is_none() && find("").is_none());
    }
}
