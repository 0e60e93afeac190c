use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{self, Method, Scheme};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;

use super::super::connections::CONNECTIONS;
use super::*;

/// Returns how much memory is not reserved.
fn left(view: &HttpView<'_>) -> u32 {
    u32::try_from(view.http.held.left.available_permits()).unwrap()
}

/// The state of a component without a grant.
fn scene() -> (Http, ResourceTable) {
    (Http::new(None), ResourceTable::new())
}

fn request(view: &mut HttpView<'_>) -> wasmtime::Result<Resource<HostOutgoingRequest>> {
    let fields = types::HostFields::new(view)?;
    types::HostOutgoingRequest::new(view, fields)
}

#[test]
fn no_part_of_a_request_is_longer_than_its_bound() {
    let (mut http, mut table) = scene();
    let view = &mut HttpView { http: &mut http, table: &mut table };
    let handle = request(view).unwrap().rep();
    let at = || Resource::new_borrow(handle);
    for (more, expected) in [(0, Ok(())), (1, Err(()))] {
        let text = |first: &str, bytes: usize| format!("{first}{}", "a".repeat(bytes + more - first.len()));
        let method = Method::Other(text("", METHOD));
        assert_eq!(types::HostOutgoingRequest::set_method(view, at(), method).unwrap(), expected);
        let scheme = Some(Scheme::Other(text("", SCHEME)));
        assert_eq!(types::HostOutgoingRequest::set_scheme(view, at(), scheme).unwrap(), expected);
        let authority = Some(text("", AUTHORITY));
        assert_eq!(types::HostOutgoingRequest::set_authority(view, at(), authority).unwrap(), expected);
        let path = Some(text("/", PATH));
        assert_eq!(types::HostOutgoingRequest::set_path_with_query(view, at(), path).unwrap(), expected);
    }
    let path = types::HostOutgoingRequest::path_with_query(view, at()).unwrap();
    assert_eq!(path.map(|path| path.len()), Some(PATH));
}

#[test]
fn a_list_of_headers_has_a_bounded_number_of_lines() {
    let (mut http, mut table) = scene();
    let view = &mut HttpView { http: &mut http, table: &mut table };
    let handle = types::HostFields::new(view).unwrap().rep();
    let at = || Resource::new_borrow(handle);
    let append =
        |view: &mut HttpView<'_>| types::HostFields::append(view, at(), "x-a".to_owned(), b"b".to_vec());
    for _ in 0..HEADERS {
        append(view).unwrap();
    }
    let error = append(view).unwrap_err();
    assert!(error.to_string().contains("no more than 128 lines"), "{error}");
    let values = |count| vec![b"c".to_vec(); count];
    types::HostFields::set(view, at(), "X-A".to_owned(), values(HEADERS)).unwrap();
    assert!(types::HostFields::set(view, at(), "x-a".to_owned(), values(HEADERS + 1)).is_err());
    assert!(types::HostFields::set(view, at(), "x-b".to_owned(), values(1)).is_err());
    let entries = vec![("x-a".to_owned(), Vec::new()); HEADERS + 1];
    assert!(types::HostFields::from_list(view, entries).is_err());
}

#[test]
fn what_is_open_at_once_is_bounded() {
    let (mut http, mut table) = scene();
    let view = &mut HttpView { http: &mut http, table: &mut table };
    let mut open = Vec::new();
    let error = loop {
        match request(view) {
            Ok(request) => open.push(request),
            Err(error) => break error,
        }
    };
    assert_eq!(error.downcast_ref(), Some(&TooMuch::Held));
    // More than twice as many requests can be open as there may be connections.
    assert!(open.len() > 2 * CONNECTIONS, "{}", open.len());
    let headers = types::HostOutgoingRequest::headers(view, Resource::new_borrow(open[0].rep())).unwrap();
    for request in open {
        types::HostOutgoingRequest::drop(view, request).unwrap();
    }
    assert_eq!(
        left(view),
        permits(HELD) - permits(HELD_BY_REQUEST),
        "a list of headers keeps the reservation of its dropped request"
    );
    types::HostFields::drop(view, headers).unwrap();
    assert_eq!(left(view), permits(HELD));
    let fields: Vec<_> = std::iter::from_fn(|| types::HostFields::new(view).ok()).collect();
    assert_eq!(fields.len() as u64, HELD.0 / HELD_BY_FIELDS.0);
}

#[tokio::test]
async fn a_request_that_was_sent_has_its_share_until_its_task_ends() {
    let (mut http, mut table) = scene();
    let view = &mut HttpView { http: &mut http, table: &mut table };
    let sent = request(view).unwrap();
    let at = || Resource::new_borrow(sent.rep());
    types::HostOutgoingRequest::set_authority(view, at(), Some("a.example".to_owned())).unwrap().unwrap();
    types::HostOutgoingRequest::set_path_with_query(view, at(), Some("/".to_owned())).unwrap().unwrap();
    let options = types::HostRequestOptions::new(view).unwrap();
    let future = outgoing_handler::Host::handle(view, sent, Some(options)).unwrap();
    types::HostFutureIncomingResponse::drop(view, future).unwrap();
    assert_eq!(left(view), permits(HELD) - permits(HELD_BY_REQUEST), "the task has not ended");
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(left(view), permits(HELD));
    assert!(view.http.held.shares.is_empty() && view.table.is_empty());
}
