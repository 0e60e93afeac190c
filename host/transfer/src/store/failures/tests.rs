use super::*;

fn failure(status: u16, code: Option<&str>) -> Failure {
    ErrorResponse { code: code.map(str::to_owned), ..ErrorResponse::with(status, None) }.failure()
}

#[test]
fn a_permanent_status_is_not_retried_and_has_its_own_kind() {
    for (status, kind) in [
        (301, Kind::Invalid),
        (400, Kind::Invalid),
        (401, Kind::Denied),
        (403, Kind::Denied),
        (404, Kind::NotFound),
        (412, Kind::Corrupt),
        (416, Kind::Invalid),
        (418, Kind::Failed),
    ] {
        let failure = failure(status, None);
        assert_eq!((failure.error.kind, failure.retry), (kind, RetryAdvice::Never), "{status}");
    }
}

#[test]
fn only_a_missing_object_is_not_found() {
    let kind = |request, code: &str| {
        let refused = ErrorResponse { request, code: word(code), ..ErrorResponse::with(404, None) };
        refused.failure().error.kind
    };
    for request in [RequestKind::Bytes, RequestKind::Metadata] {
        for code in ["", "NoSuchKey", "BlobNotFound"] {
            assert_eq!(kind(Some(request), code), Kind::NotFound, "{request:?} {code}");
        }
    }
    for code in NO_BUCKET {
        assert_eq!(kind(Some(RequestKind::Bytes), code), Kind::Failed, "{code}");
    }
    assert_eq!(kind(Some(RequestKind::Listing), ""), Kind::Failed);
    assert_eq!(kind(Some(RequestKind::Listing), HIDDEN), Kind::Denied);
    for code in ["", "NoSuchKey", "NoSuchBucket", HIDDEN] {
        assert_eq!(kind(None, code), Kind::Denied, "{code}");
    }
}

#[test]
fn a_transient_status_is_retried_no_sooner_than_the_store_says() {
    for status in [408, 429, 500, 502, 503, 504] {
        assert_eq!(failure(status, None).retry, RetryAdvice::Soon, "{status}");
        assert_eq!(failure(status, None).error.kind, Kind::Transient, "{status}");
    }
    assert_eq!(failure(400, Some("RequestTimeout")).retry, RetryAdvice::Soon);
    assert_eq!(
        ErrorResponse::with(503, Some("7")).failure().retry,
        RetryAdvice::After(Duration::from_secs(7))
    );
}

fn refused(status: u16, body: &str) -> Failure {
    let headers = HeaderMap::new();
    let status = StatusCode::from_u16(status).unwrap();
    ErrorResponse::of(Some(RequestKind::Bytes), String::new(), (status, &headers), body.as_bytes()).failure()
}

#[test]
fn the_advice_for_a_known_error_code_does_not_depend_on_the_status() {
    for (status, code, kind, credentials_refused, says) in [
        (400, "ExpiredToken", Kind::Denied, true, "`session_token`"),
        (400, "InvalidToken", Kind::Denied, true, "`session_token`"),
        (403, "AccessDenied", Kind::Denied, true, "s3:ListBucket"),
        (403, "RequestTimeTooSkewed", Kind::Denied, false, "clock"),
        (403, "InvalidObjectState", Kind::Denied, false, "Glacier"),
        (403, "AuthenticationFailed", Kind::Denied, true, "`sas_token`"),
        (409, "PublicAccessNotPermitted", Kind::Denied, false, "`credentials`"),
        (409, "BlobArchived", Kind::Denied, false, "archive"),
        (400, "UserProjectMissing", Kind::Invalid, false, "pay"),
        (503, "SlowDown", Kind::Transient, false, "`concurrency`"),
        (200, "SlowDown", Kind::Transient, false, "`concurrency`"),
        (400, "RequestTimeout", Kind::Transient, false, "gave up waiting"),
    ] {
        let failure = refused(status, &format!("<Error><Code>{code}</Code></Error>"));
        assert_eq!((failure.error.kind, failure.credentials_refused), (kind, credentials_refused), "{code}");
        let message = &failure.error.message;
        assert!(message.contains(code) && message.contains(says), "{message}");
        assert_eq!(failure.retry == RetryAdvice::Soon, kind == Kind::Transient, "{code}");
    }
}

#[test]
fn the_region_of_a_bucket_is_shown_as_the_setting_to_write() {
    let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong</Message>\
                <Region>eu-west-1</Region></Error>";
    let failure = refused(400, body);
    assert_eq!(failure.error.kind, Kind::Invalid);
    assert!(
        failure.error.message.ends_with("set `region`: the store says region = \"eu-west-1\""),
        "{failure:?}"
    );
    let body =
        "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3-eu-west-1.amazonaws.com</Endpoint></Error>";
    assert!(refused(301, body).error.message.ends_with("its server is b.s3-eu-west-1.amazonaws.com"));
    // Text that is not a single word is not shown.
    let body = "<Error><Code>PermanentRedirect</Code><Endpoint>b/?x</Endpoint><Region>a b</Region></Error>";
    assert!(refused(301, body).error.message.ends_with("set `region`, or `endpoint`"));
}

#[test]
fn only_a_response_without_an_error_code_is_requested_again_with_a_body() {
    for status in [301, 400, 401, 403, 405] {
        assert_eq!(refused(status, "").missing, Missing::ErrorCode, "{status}");
        assert_eq!(refused(status, "<Code>SomeReason</Code>").missing, Missing::Nothing, "{status}");
    }
    for status in [404, 408, 412, 429, 500, 503] {
        assert_eq!(refused(status, "").missing, Missing::Nothing, "{status}");
    }
    assert_eq!(refused(416, "<Code>InvalidRange</Code>").missing, Missing::Range);
}

#[test]
fn only_single_words_of_a_servers_error_are_shown() {
    let xml =
        b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>key AKIA1234</Message></Error>";
    assert_eq!(code(xml).as_deref(), Some("AccessDenied"));
    for body in ["", "<Code></Code>", "<Code>a b</Code>", "<Code>\x1b[31m</Code>", "<Code>unfinished"] {
        assert_eq!(code(body.as_bytes()), None, "{body}");
    }
    assert_eq!(word(&"x".repeat(LONGEST_CODE + 1)), None);
}
