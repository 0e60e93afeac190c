//! Sends a request with `wasi:http`. The host resolves the name, encrypts the connection with TLS and adds the granted token, so this
//! module does none of that.

use understudy::Failure;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, Fields, Method, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

/// How many bytes an answer may have.
const ANSWER: usize = 1 << 20;
/// How many bytes are read at once.
const CHUNK: u64 = 64 << 10;

/// Sends a GET request to an `https://` address and returns the body of the response.
pub(crate) fn get(address: &str) -> Result<Vec<u8>, Failure> {
    let failed = |why: &str| Failure::failed(format!("{address}: {why}"));
    let rest = address.strip_prefix("https://").ok_or_else(|| failed("this is not an https:// address"))?;
    let (server, path) = match rest.find('/') {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    };
    let request = OutgoingRequest::new(Fields::new());
    let set = request
        .set_method(&Method::Get)
        .and_then(|()| request.set_scheme(Some(&Scheme::Https)))
        .and_then(|()| request.set_authority(Some(server)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    set.map_err(|()| failed("this is not a valid address"))?;

    let response = handle(request, None).map_err(|code| no_answer(address, &code))?;
    response.subscribe().block();
    let response = match response.get() {
        Some(Ok(response)) => response.map_err(|code| no_answer(address, &code))?,
        Some(Err(())) | None => return Err(failed("there is no response")),
    };
    match response.status() {
        200 => {}
        404 => return Err(Failure::not_applicable(format!("{address}: the catalogue has no backup"))),
        429 | 503 => return Err(Failure::retry_later(format!("{address}: the catalogue is busy"))),
        status => return Err(failed(&format!("the catalogue answers with the status {status}"))),
    }
    let body = response.consume().map_err(|()| failed("the response has no body"))?;
    let stream = body.stream().map_err(|()| failed("the response has no body"))?;
    let mut answer = Vec::new();
    loop {
        match stream.blocking_read(CHUNK) {
            Ok(bytes) => answer.extend_from_slice(&bytes),
            Err(StreamError::Closed) => return Ok(answer),
            Err(StreamError::LastOperationFailed(error)) => return Err(failed(&error.to_debug_string())),
        }
        if answer.len() > ANSWER {
            return Err(failed("the answer is too long"));
        }
    }
}

/// Returns the failure for a request without a response. The method may be tried again if the service could not be reached. For any other
/// error, the operator must change something first.
fn no_answer(address: &str, code: &ErrorCode) -> Failure {
    let why = format!("{address}: the request to the catalogue failed: {code:?}");
    match code {
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::DestinationUnavailable => Failure::retry_later(why),
        _ => Failure::failed(why),
    }
}
