//! Requests with `wasi:http`.

use std::time::Duration;

use understudy::{Failure, Request};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    Fields, FutureIncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::{Answer, shown};

/// Makes a request and reads the response to its end.
pub(crate) fn request(request: &Request) -> Result<Answer, Failure> {
    let wanted = Wanted::of(request)?;
    Ok(wanted.send().and_then(response).map(|(answer, _)| answer))
}

/// Makes a request, and then another request to the address that the response redirects to.
pub(crate) fn following(request: &Request) -> Result<Answer, Failure> {
    let mut wanted = Wanted::of(request)?;
    let answer = wanted.send().and_then(response).and_then(|(answer, location)| {
        let Some(location) = location else { return Ok(answer) };
        wanted.address = location;
        wanted.send().and_then(response).map(|(answer, _)| answer)
    });
    Ok(answer)
}

/// Makes several requests before it reads the first response.
pub(crate) fn at_once(request: &Request) -> Result<Answer, Failure> {
    let wanted = Wanted::of(request)?;
    let times: u64 = request.require("times")?;
    let sent: Vec<_> = (0..times).map(|_| wanted.send()).collect();
    let (mut answered, mut refused) = (0, Vec::new());
    for sent in sent {
        match sent.and_then(response) {
            Ok(_) => answered += 1,
            Err(why) => refused.push(why),
        }
    }
    refused.dedup();
    Ok(Ok(format!("{answered} of {times}; {refused:?}")))
}

struct Wanted {
    address: String,
    method: String,
    say: String,
    authorization: Option<String>,
    header: Option<String>,
    /// The timeouts for the response, in milliseconds.
    patience: Option<u64>,
    /// The pause after each part of the body, in milliseconds.
    pause: u64,
}

impl Wanted {
    fn of(request: &Request) -> Result<Self, Failure> {
        Ok(Self {
            address: request.require("address")?,
            method: request.require("method")?,
            say: request.require("say")?,
            authorization: request.get("authorization")?,
            header: request.get("header")?,
            patience: request.get("patience")?,
            pause: request.require("pause")?,
        })
    }

    fn send(&self) -> Result<FutureIncomingResponse, String> {
        let (scheme, rest) = self.address.split_once("://").ok_or("no scheme")?;
        let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
        let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let fields = Fields::new();
        if let Some(authorization) = &self.authorization {
            fields.append("authorization", authorization.as_bytes()).map_err(|error| format!("{error:?}"))?;
        }
        if let Some((name, value)) = self.header.as_ref().and_then(|header| header.split_once(": ")) {
            fields.append(name, value.as_bytes()).map_err(|error| format!("{error:?}"))?;
        }
        let request = OutgoingRequest::new(fields);
        let method = match self.method.as_str() {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "CONNECT" => Method::Connect,
            other => Method::Other(other.to_owned()),
        };
        let set = request
            .set_method(&method)
            .and_then(|()| request.set_scheme(Some(&scheme)))
            .and_then(|()| request.set_authority(Some(server)))
            .and_then(|()| request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })));
        set.map_err(|()| "the address cannot be set")?;
        let body = request.body().map_err(|()| "no body")?;
        let options = self.patience.map(|patience| {
            let (options, patience) = (RequestOptions::new(), Some(patience * 1_000_000));
            // A host need not support timeouts.
            let _ = options.set_first_byte_timeout(patience);
            let _ = options.set_between_bytes_timeout(patience);
            options
        });
        let sent = handle(request, options).map_err(|code| format!("{code:?}"))?;
        if !self.say.is_empty() {
            let stream = body.write().map_err(|()| "no stream")?;
            for part in self.say.as_bytes().chunks(4096) {
                // The response contains the reason.
                if stream.blocking_write_and_flush(part).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(self.pause));
            }
        }
        // This fails if the request was refused. The response contains the reason.
        let _ = OutgoingBody::finish(body, None);
        Ok(sent)
    }
}

/// Returns the status and the body, and the address of a redirect.
fn response(sent: FutureIncomingResponse) -> Result<(String, Option<String>), String> {
    sent.subscribe().block();
    let response = match sent.get() {
        Some(Ok(response)) => response.map_err(|code| format!("{code:?}"))?,
        Some(Err(())) | None => return Err("no response".to_owned()),
    };
    let location = response.headers().get("location").pop();
    let location = location.map(|location| String::from_utf8_lossy(&location).into_owned());
    let status = response.status();
    let body = response.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut got = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(StreamError::Closed) => return Ok((format!("{status} {}", shown(&got)), location)),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!("{status}, then {} after {}", error.to_debug_string(), shown(&got)));
            }
        }
    }
}
